"""How much memory a process has held."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.helpers.command_line import environment

MB = 1_000_000
HOLDS = f"""
from flax_mnist.devices.footprint import peak_memory
before = peak_memory()
held = b"x" * {300 * MB}
del held
print(before, peak_memory())
"""
HELD_MORE = f"""
import subprocess, sys
held = b"x" * {600 * MB}
subprocess.run([sys.executable, "-c", sys.argv[1]], check=True)
"""


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
def test_it_is_its_own_and_not_that_of_the_process_that_started_it():
    said = subprocess.run(
        [sys.executable, "-c", HELD_MORE, HOLDS],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    before, after = map(int, said.stdout.split())
    assert 1 * MB < before < 200 * MB
    assert 295 * MB < after - before < 310 * MB
