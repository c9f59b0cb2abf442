"""Who listens to SIGINT, SIGTERM and SIGHUP, and what they do outside a training's good order."""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from tests.helpers.command_line import COMMAND, ask, environment
from tests.helpers.platforms import POSIX
from tests.helpers.runs import train


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("delay", [0, 0.1, 0.5, 1.0])
def test_a_signal_is_obeyed_while_the_program_still_starts(data, tmp_path, delay):
    process = subprocess.Popen(
        [*COMMAND, "train", "--data-dir", data, "--run-dir", "r", "--epochs", "1000000"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    while not catches(process.pid, signal.SIGTERM):  # Python itself starts for as long
        assert process.poll() is None
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    # Where the machine is fast, it may train already.
    assert re.fullmatch(r"flax-mnist: terminated( after step .*)?\n", errors)
    assert process.returncode == 143


def catches(pid: int, signum: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> signum - 1 & 1)


def test_a_command_that_a_program_calls_leaves_its_signals_alone(data, tmp_path):
    numbers = (signal.SIGINT, signal.SIGTERM)
    before = [signal.getsignal(number) for number in numbers]
    assert ask("train", "--data-dir", data, "--run-dir", tmp_path / "run", "--epochs", 1) == 0
    assert [signal.getsignal(number) for number in numbers] == before
    wakeup = signal.set_wakeup_fd(-1)
    signal.set_wakeup_fd(wakeup)
    assert wakeup == -1


def test_a_second_signal_ends_it_at_once():
    script = (
        "import os, signal, time\n"
        "from flax_mnist.runs import signals\n"
        "signals.watch()\n"
        "with signals.listening() as received:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    while not received(): time.sleep(0.01)\n"
        "    print(received(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(100)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (143, "2\n")
    assert "terminated" in done.stderr


@POSIX
def test_a_signal_that_is_ignored_at_the_start_stays_so():
    """As `nohup` starts a command, and a shell's script one in the background."""
    script = (
        "import signal\n"
        "from flax_mnist.runs import signals\n"
        "signals.watch()\n"
        "for number in (signal.SIGHUP, signal.SIGINT): signal.raise_signal(number)\n"
        "print('still here', flush=True)\n"
        "signal.raise_signal(signal.SIGTERM)\n"
        "signal.pause()\n"
    )
    shell = 'trap "" HUP INT; exec "$0" -c "$1"'
    done = subprocess.run(
        ["sh", "-c", shell, sys.executable, script],
        capture_output=True, text=True, timeout=50, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stdout) == (143, "still here\n")


@pytest.mark.long
@POSIX
@pytest.mark.parametrize(
    ("after", "hidden_sizes"),
    [
        pytest.param("Epoch 2/", 128, id="between lines"),
        # An epoch takes so long that the bar is the first to meet the terminal that is gone.
        pytest.param("Compiled in", 4096, id="within an epoch"),
    ],
)
def test_a_run_whose_terminal_is_gone_keeps_what_it_has(data, tmp_path, after, hidden_sizes):
    """The session of ssh has dropped: whatever is printed from then on fails."""
    import pty

    outside, inside = pty.openpty()
    # The first process of a session owns the terminal that it opens.
    opens = ["sh", "-c", 'exec "$@" <"$0" >"$0" 2>&1', os.ttyname(inside)]
    process = subprocess.Popen(
        [
            *opens, *COMMAND,
            *train(data, tmp_path / "run", epochs=1_000_000, checkpoint_every=0,
                   hidden_sizes=hidden_sizes),
            str(hidden_sizes),
        ],
        env=environment(), start_new_session=True,
    )  # fmt: skip
    seen = b""
    while after.encode() not in seen:
        seen += os.read(outside, 4096)
    os.close(inside)  # not before the shell has opened it
    os.close(outside)
    try:
        assert process.wait(60) == 129
    finally:
        process.kill()
    assert len(list((tmp_path / "run" / "checkpoints").glob("*.safetensors"))) == 1
