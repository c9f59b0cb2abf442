"""How the commands of the benchmarks start, and what they say where they cannot go on."""

from __future__ import annotations

import os
import signal
import sys
from typing import Any

import pytest

from benchmarks import __main__ as command
from benchmarks import entry
from benchmarks.command.flags import Flags
from flax_mnist.errors import DataError, StoppedError


def fail() -> None:
    """Meets damaged data."""
    raise DataError("a.bin: is damaged.")


def interrupted(times: int = 1) -> None:
    """Is stopped."""
    for _ in range(times):
        os.kill(os.getpid(), signal.SIGTERM)


def test_exit_codes_and_what_is_said(capsys: Any) -> None:
    before = signal.getsignal(signal.SIGTERM)
    for run, argv, code, said in (
        (fail, [], 1, "prog: a.bin: is damaged.\n"),
        (interrupted, [], 143, "prog: terminated.\n"),
        (fail, ["--no-such-flag"], 2, "--no-such-flag"),
        (fail, ["--help"], 0, ""),
    ):
        assert entry.run(run, "prog", argv) == code
        err = capsys.readouterr().err
        assert said in err
        assert "Traceback" not in err
    assert entry.run(fail, "prog", ["--debug"]) == 1
    assert "Traceback" in capsys.readouterr().err
    assert signal.getsignal(signal.SIGTERM) == before


def test_what_is_not_installed_is_named(capsys: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    # Alone: tyro, where it is first used, imports PyTorch if `sys.modules` names it.
    monkeypatch.setitem(sys.modules, "torch", None)
    monkeypatch.delitem(sys.modules, "benchmarks.equivalence.comparison", raising=False)
    assert entry.run("benchmarks.equivalence.comparison:main", "prog", []) == 2
    assert capsys.readouterr().err == "prog: torch is not installed: pip install torch.\n"


def test_the_second_signal_is_the_systems() -> None:
    with entry.stoppable():
        with pytest.raises(StoppedError):
            os.kill(os.getpid(), signal.SIGINT)
        assert signal.getsignal(signal.SIGINT) == signal.SIG_DFL


def test_a_signal_that_shall_be_of_no_effect_stays_so() -> None:
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)  # as `nohup` does with another
    try:
        with entry.stoppable():
            assert signal.getsignal(signal.SIGINT) == signal.SIG_IGN
            assert signal.getsignal(signal.SIGTERM) != signal.SIG_DFL
    finally:
        signal.signal(signal.SIGINT, before)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--rows X9", "X9: there is no such row"),
        ("--rows J22", "Did you mean J2?"),
        ("--models 0", "models is 0"),
        ("--minutes 0", "minutes is 0"),
        ("--batch-size 0", "batch-size is 0"),
        ("--momentum 2", "momentum is 2"),
        ("--threads 99999 --rows P7", "--threads 99999"),
        ("--quick --rows J2", "give one of them"),
        ("--output setup.cfg/x", "cannot be written to"),
        ("--resume no.json", "there is no such file"),
        ("--data-dir no/such/folder", "no/such/folder"),
    ],
)
def test_a_wrong_request_is_told_in_a_line(
    words: str, said: str, tmp_path: Any, capsys: Any
) -> None:
    argv = words.replace("setup.cfg", str(tmp_path / "file")).split()
    (tmp_path / "file").touch()
    assert command.main([*argv, *([] if "--output" in argv else ["--output", str(tmp_path)])]) == 2
    line = capsys.readouterr().err.strip().splitlines()[-1]
    assert line.startswith("python -m benchmarks: ")
    assert said in line


def test_rows_in_any_case_and_in_the_order_of_the_table() -> None:
    assert [row.name for row in Flags(rows=("g1", "J2", "p1", "j2")).wanted] == ["P1", "J2", "G1"]
    assert len(Flags().wanted) > 20
