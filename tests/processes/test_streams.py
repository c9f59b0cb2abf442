"""Standard output and error that were never there, or whose reader has left."""

from __future__ import annotations

import os
import shlex
import subprocess
from pathlib import Path

import pytest

from tests.helpers.command_line import COMMAND, OFFLINE, environment
from tests.helpers.platforms import POSIX
from tests.helpers.runs import metrics, train


@POSIX
@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_was_never_there_stops_no_training(data, tmp_path, closed):
    words = shlex.join([*COMMAND, *train(data, tmp_path / "run", epochs=1)])
    redirect = {"stdout": ">&-", "stderr": "2>&-"}[closed]
    done = subprocess.run(
        ["sh", "-c", f"{words} {redirect}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("Epoch 1/1" in done.stdout) == (closed == "stderr")
    assert len(metrics(tmp_path / "run")) == 1


@pytest.mark.long
def test_a_reader_of_stderr_that_leaves_takes_nothing_from_stdout(tmp_path):
    ear, stderr = os.pipe()
    os.close(ear)
    done = subprocess.run(
        [*COMMAND, "train", "--json", "--epochs", "1", "--run-dir", tmp_path / "run"],
        stdout=subprocess.PIPE, stderr=stderr, text=True, check=False,
        env=environment(HOME=str(tmp_path), **OFFLINE),
    )  # fmt: skip
    os.close(stderr)
    assert done.stdout == (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize("where", ["/dev/full", "closed pipe"])
def test_a_stdout_that_takes_nothing_does_not_stop_a_training(data, tmp_path, where):
    path = tmp_path / "run"
    if where == "/dev/full":
        if not Path(where).exists():
            pytest.skip("there is no /dev/full")
        stdout = os.open(where, os.O_WRONLY)
    else:
        ear, stdout = os.pipe()
        os.close(ear)
    done = subprocess.run(
        [*COMMAND, *train(data, path, epochs=3)],
        stdout=stdout, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(stdout)
    assert len(metrics(path)) == 3
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if where == "/dev/full" else 0)
    assert ("No space left" in done.stderr) == (where == "/dev/full")
