"""Homes, locales and terminals as a program may find them."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from flax_mnist.store.metrics import read_metrics
from tests.helpers.command_line import COMMAND, environment, run
from tests.helpers.platforms import POSIX


@pytest.fixture(scope="module")
def unfriendly(data, tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """A training with no home to write to, no UTF-8, no terminal, no colour and 20 columns."""
    path = tmp_path_factory.mktemp("unfriendly") / "a run"
    done = run(
        "train", "--data-dir", data, "--run-dir", path, "--epochs", "1",
        HOME="/proc/nobody", XDG_CACHE_HOME=None, XDG_CONFIG_HOME=None, MPLCONFIGDIR=None,
        LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING=None,
        COLUMNS="20", NO_COLOR="1", TERM=None,
    )  # fmt: skip
    return done, path


@pytest.mark.long
@POSIX
def test_a_home_that_cannot_be_written_is_no_obstacle(unfriendly):
    done, path = unfriendly
    assert (done.returncode, done.stderr) == (0, "")
    assert (path / "weights.safetensors").exists()


@POSIX
def test_a_terminal_without_utf8_is_no_obstacle(unfriendly):
    done, path = unfriendly
    assert done.stdout.splitlines()[-1] == f"Saved in {path}"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
    done = run("--help", **plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Train the network" in done.stdout


@pytest.mark.long
@POSIX
def test_a_run_folder_whose_name_is_not_utf_8_there_is_like_any_other(data, tmp_path):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
    # The second one is no name in UTF-8 anywhere.
    for path in (tmp_path / "é ß", tmp_path / os.fsdecode(b"\xff")):
        done = run("train", "--data-dir", data, "--run-dir", path, "--epochs", "1", **plain)
        assert (done.returncode, done.stderr) == (0, "")
        done = run("train", "--resume", "--run-dir", path, "--epochs", "2", **plain)
        assert (done.returncode, done.stderr) == (0, "")
        assert "Going on after step 16 of 32" in done.stdout
        assert [row.epoch for row in read_metrics(path)] == [1, 2]
        assert len(list((path / "checkpoints").glob("*.safetensors"))) == 2


@POSIX
def test_twenty_columns_cut_no_line(unfriendly):
    lines = unfriendly[0].stdout.splitlines()
    assert lines[0].startswith("mnist: 1,000 training and 200 test images from ")
    assert [line for line in lines if line.startswith("Epoch 1/1  Training loss: ")]


@POSIX
def test_a_narrow_terminal_without_colours_gets_a_progress_bar(data, tmp_path):
    text = seen_on_a_terminal(20, data, tmp_path / "run")
    assert "Epoch 3/3  Training loss: " in text
    bars = re.findall(r"Steps .*?(?=\r)", text)
    assert "━━━" in bars[-1]
    assert max(map(len, bars)) <= 20
    assert not re.search(r"\x1b\[[\d;]*m", text)  # a colour


@POSIX
def test_the_progress_bar_tells_loss_and_rate(data, tmp_path):
    text = seen_on_a_terminal(80, data, tmp_path / "run")
    told = re.findall(r"48/48 .*?loss (\S+)  (\S+)k images/s", text)[-1]
    last = read_metrics(tmp_path / "run")[-1]
    assert told == (f"{last.train_loss:.4f}", f"{last.images_per_second / 1000:.0f}")


@POSIX
@pytest.mark.parametrize("flag", ["--quiet", "--json"])
def test_what_is_to_say_nothing_else_draws_no_bar_on_a_terminal(data, tmp_path, flag):
    text = seen_on_a_terminal(120, data, tmp_path / "run", flag)
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert text.replace("\r\n", "\n").strip("\n") == ("" if flag == "--quiet" else metrics).strip()


def seen_on_a_terminal(columns: int, data: Path, run: Path, *more: str) -> str:
    """What `train` writes to a terminal of so many columns, control sequences and all."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, "train", "--data-dir", data, "--epochs", "3", "--run-dir", run, *more],
        stdout=theirs, stderr=subprocess.PIPE,
        env=environment(TERM="xterm", NO_COLOR="1", COLUMNS=None),
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while chunk := _read(ours):
        seen += chunk
    os.close(ours)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 0, errors
    return seen.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""
