"""Rows against each other: what is measured, what is taken again, who competes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, ClassVar

import pytest

from benchmarks.harness.entrant import Entrant, Trial, blank
from benchmarks.harness.process import whole_process
from benchmarks.harness.program import Settings
from benchmarks.harness.protocol import take_round
from benchmarks.harness.schedule import Budget, Schedule
from benchmarks.tables.summary import summarize
from tests.benchmarks.some_rows import SLEEP, row


@pytest.mark.long
def test_a_slowed_step_shows(result: dict[str, Any]) -> None:
    lines = {line.name: line for line in summarize(result).lines}
    slow, honest = lines["Slow"].step_seconds, lines["N1"].step_seconds
    assert slow
    assert honest
    assert slow.low >= SLEEP  # sleep never returns early
    assert lines["Slow"].status == "ok"
    for turn in result["rows"][1]["turns"]:
        assert min(turn["seconds"]) >= 16 * SLEEP


def test_the_result_keeps_every_sample(result: dict[str, Any]) -> None:
    honest = result["rows"][0]
    assert [turn["round"] for turn in honest["turns"]] == [0, 1, 2]
    assert honest["first_seconds"] > 0
    assert honest["import_seconds"] > 0
    assert honest["peak_memory"] > 1e7
    assert honest["environment"]["OPENBLAS_NUM_THREADS"] == str(honest["threads"])


@pytest.mark.long
def test_a_whole_process_is_timed(folder: Path, tmp_path: Path) -> None:
    settings = Settings(dataset="mnist", data_dir=str(folder))
    run = whole_process(row("J2").variants[0], 1, settings, tmp_path / "cache")
    assert run["seconds"] > 0
    assert len(run["scores"]) == 1
    assert list((tmp_path / "cache").iterdir()), "nothing was kept for a warm start"


def test_slow_rows_have_fewer_turns_evenly_spread() -> None:
    schedule = Schedule(rounds=7, slow_rounds=3)
    assert schedule.turns_of(slow=True) == {0, 3, 6}
    assert schedule.turns_of(slow=False) == set(range(7))
    assert Schedule(rounds=1, slow_rounds=3).turns_of(slow=True) == {0}


class Scripted:
    """Stands in for a row's process: its next turns take so long."""

    first: ClassVar = {"models": 1}

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.is_closed = False

    def ask(self, timeout: float = 0, warm_up: int = 0, calls: int = 0) -> dict[str, Any]:
        turn = [self.seconds.pop(0)] * calls
        return {"seconds": turn, "idle_cpu_seconds": 0.0, "peak_memory": None}

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(("again", "threads"), [(0.6, 2), (1.4, 1)])
def test_threads_that_lost_to_one_compete_again(again: float, threads: int) -> None:
    variant = row("N1").variants[0]
    one = Trial(variant, 1, Scripted(1.1), seconds=1.0)  # type: ignore[arg-type]
    two = Trial(variant, 2, Scripted(again), seconds=1.5)  # type: ignore[arg-type]
    entrant = Entrant(row("N1"), blank(row("N1")), trials=[one, two])
    entrant.choose(one)
    processes = [one.process, two.process]
    assert entrant.reconsider(Schedule(trial_turns=1, settle_seconds=0), Budget())
    assert entrant.result["threads"] == threads
    assert entrant.epoch_seconds == min(again, 1.0)
    assert entrant.process is processes[threads - 1]
    assert [process.is_closed for process in processes] == [threads == 2, threads == 1]  # type: ignore[union-attr]
    assert not entrant.reconsider(Schedule(trial_turns=1, settle_seconds=0), Budget())


def test_a_turn_that_lags_is_taken_again_and_the_faster_counts() -> None:
    schedule = Schedule(rounds=4, settle_seconds=0, lag=1.25, retakes=2)
    steady, caught, slow_from_the_start = (
        Entrant(row("N1"), blank(row("N1")), Scripted(*seconds), 1.0, best)  # type: ignore[arg-type]
        for best, *seconds in (
            (1.0, 1.2, 1.1, 1.0, 1.2),
            #    as ever; once lagging; all three lagging; as fast as never before
            (1.0, 1.0, 2.0, 1.1, 2.0, 3.0, 2.5, 0.5),
            (2.0, 2.0, 2.0, 2.0, 2.0),
        )
    )
    for number in range(schedule.rounds):
        take_round([steady, caught, slow_from_the_start], number, schedule, Budget())

    def counted(entrant: Entrant, which: str = "turns") -> list[float]:
        return [turn["seconds"][0] for turn in entrant.result[which]]

    assert counted(steady) == [1.2, 1.1, 1.0, 1.2]
    assert counted(caught) == [1.0, 1.1, 2.0, 0.5]
    assert counted(caught, "retaken") == [2.0, 3.0, 2.5]
    assert [turn["round"] for turn in caught.result["turns"]] == [0, 1, 2, 3]
    assert counted(slow_from_the_start, "retaken") == []
