"""What only some systems have is asked for before it is used."""

from __future__ import annotations

import subprocess
import sys

import pytest

from benchmarks import faults
from flax_mnist.errors import RequestError
from tests.helpers import runs
from tests.helpers.command_line import environment

ELSEWHERE = """
import os, select, signal, sys

for module in ("fcntl", "grp", "pty", "pwd", "resource", "termios", "tty"):
    sys.modules[module] = None
for home, names in {
    os: "fork forkpty getloadavg kill killpg sched_getaffinity setsid sysconf",
    select: "epoll poll",
    signal: "SIGHUP SIGKILL SIGSTOP SIGCONT pthread_sigmask",
}.items():
    for name in names.split():
        delattr(home, name)
"""
"""Takes from a Python on Linux what Windows, or macOS, lacks; but what other libraries look for by
the name of the system."""


TRAINING = """
import importlib, math, pkgutil

import jax

import flax_mnist
from benchmarks.harness import machine, process, worker
from flax_mnist.cli.main import main
from flax_mnist.devices import memory

for module in pkgutil.walk_packages(flax_mnist.__path__, "flax_mnist."):
    if module.name != "flax_mnist.__main__":
        importlib.import_module(module.name)

assert machine.cores() == os.cpu_count()
assert memory.cores() == os.cpu_count()
assert math.isinf(memory.memory(jax.devices()[0]))
assert machine.memory() is None
assert machine.load_average() is None
assert machine.told_by_linux("model name", "proc/cpuinfo") is None
sys.exit(main(sys.argv[1:]))
"""
"""Imports every module of the package, asks for what a system may not tell, and trains."""


def test_a_training_needs_nothing_that_linux_has_alone(data, tmp_path):
    flags = map(str, runs.train(data, tmp_path / "run", epochs=1))
    done = subprocess.run(
        [sys.executable, "-c", ELSEWHERE + TRAINING, *flags],
        cwd=tmp_path,
        env=environment(),
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert "Epoch 1/1" in done.stdout


@pytest.mark.parametrize("system", ["darwin", "win32"])
def test_the_campaign_of_faults_says_that_it_takes_linux(monkeypatch, system):
    monkeypatch.setattr(sys, "platform", system)
    with pytest.raises(RequestError, match="only Linux"):
        faults.main(kills=-1)  # which is refused next: no campaign begins
