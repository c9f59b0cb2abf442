"""A slow row leaves the others their time: rows whose processes only say how long they took."""

from __future__ import annotations

import math
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import pytest

from benchmarks.harness import entrant, schedule
from benchmarks.harness.entrant import Entrant, blank
from benchmarks.harness.process import RowError
from benchmarks.harness.program import Settings
from benchmarks.harness.protocol import Contest
from benchmarks.harness.schedule import NO_TIME, OVER_SHARE, Budget, Schedule
from benchmarks.rows import Row, Variant

PLAN = Schedule(rounds=7, turn_seconds=1, settle_seconds=0, slow_seconds=2, score=False)
ROWS = {"A": 0.1, "B": 0.5, "slow": 40.0, "C": 0.1, "D": 0.2}
"""Seconds of a call, in the order in which they start."""

Start = Callable[..., tuple[dict[str, Any], Contest]]


class Clocked:
    """Stands in for a row's process: its calls move a clock on, and nothing else."""

    first: ClassVar = {"models": 1}
    now = 0.0
    spent: ClassVar[dict[str, float]] = {}  #: Seconds, by row.

    def __init__(self, variant: Variant, threads: int, settings: Settings, timeout: float) -> None:
        self.name, self.seconds = variant.entry, variant.options["seconds"][threads - 1]

    def ask(self, timeout: float = math.inf, warm_up: int = 0, calls: int = 0) -> dict[str, Any]:
        took = min(self.seconds * (warm_up + calls), timeout)
        Clocked.now += took
        Clocked.spent[self.name] = Clocked.spent.get(self.name, 0.0) + took
        if took == timeout:
            raise RowError("failed", f"no answer within {timeout:.0f} s")
        return {"seconds": [self.seconds] * calls, "idle_cpu_seconds": 0.0, "peak_memory": None}

    def close(self) -> None:
        pass


@pytest.fixture
def start(monkeypatch: pytest.MonkeyPatch) -> Start:
    """Starts rows of so many seconds a call, each on one thread and on two, in so much time."""
    monkeypatch.setattr(entrant, "Process", Clocked)
    monkeypatch.setattr(schedule, "time", SimpleNamespace(monotonic=lambda: Clocked.now))

    def start(
        rows: dict[str, float], seconds: float, main: str = "", on_two: float = 1.0
    ) -> tuple[dict[str, Any], Contest]:
        Clocked.now, Clocked.spent = 0.0, {}
        entrants = []
        for name, each in rows.items():
            variant = Variant(name, {"seconds": (each, each * on_two)}, tune_threads=True)
            row = Row(name, name, "headline", "peers", (variant,), quick=name == main)
            entrants.append(Entrant(row, blank(row)))
        budget = Budget(seconds, began=0.0)
        contest = Contest(entrants, Settings(), PLAN, 2, lambda _: None, budget)
        contest.start()
        return {result["name"]: result for result in contest.results}, contest

    return start


def status(results: dict[str, Any]) -> dict[str, str]:
    return {name: result.get("reason", result["status"]) for name, result in results.items()}


FINE = dict.fromkeys(ROWS, "ok")


# When the slow row starts, A has taken 2 calls of 0.1 s and 3 turns of 1 s for each of its two
# candidates, 6.4 s, and B 8 s. Seven turns of each, of 1.1 s and 1.5 s, are kept free, with a
# quarter on top: 22.75 s. Three rows wait, so that a third of what is left is the row's share.
BEFORE = 6.4 + 8 + 22.75


@pytest.mark.parametrize(
    ("call", "seconds", "spent"),
    [
        # Its share ends in its first call, or in its second.
        (400.0, 400.0, (400 - BEFORE) / 3),
        (70.0, 400.0, (400 - BEFORE) / 3),
        # Two calls fit into the share of 121 s, three turns besides do not. No other candidate.
        (40.0, 400.0, 80.0),
    ],
)
def test_a_slow_row_takes_no_more_than_its_share(
    start: Start, call: float, seconds: float, spent: float
) -> None:
    results, contest = start(ROWS | {"slow": call}, seconds)
    assert status(results) == FINE | {"slow": OVER_SHARE}
    assert Clocked.spent["slow"] == pytest.approx(spent)
    assert contest.schedule == PLAN


# Two calls and three turns, at 1.25 times a call each, are 80 and 150 s; two calls more are 310.
@pytest.mark.parametrize(("share", "candidates"), [(235, 1), (305, 1), (315, 2)])
def test_another_candidate_is_tried_where_the_share_has_room_for_it(
    start: Start, share: float, candidates: int
) -> None:
    results, _ = start(ROWS, BEFORE + 3 * share)
    assert status(results) == FINE
    tried = [trial.get("reason", trial.get("seconds")) for trial in results["slow"]["trials"]]
    assert tried == [40.0, 40.0 if candidates == 2 else OVER_SHARE]
    assert Clocked.spent["slow"] == 80.0 * candidates


def test_another_candidate_leaves_the_first_one_its_turns(start: Start) -> None:
    # Of a share of some 500 s the first takes 80, and its turns 150: a call of 400 s is too long.
    results, _ = start(ROWS, 1600.0, on_two=10.0)
    assert results["slow"]["status"] == "ok"
    assert results["slow"]["trials"][1]["reason"] == OVER_SHARE


def test_without_a_budget_nothing_is_left_out(start: Start) -> None:
    results, contest = start(ROWS | {"slow": 800.0}, math.inf)
    assert status(results) == FINE
    assert [trial["seconds"] for trial in results["slow"]["trials"]] == [800.0, 800.0]
    assert contest.schedule == PLAN


def test_a_row_alone_and_a_main_one_may_take_what_there_is(start: Start) -> None:
    alone, _ = start({"slow": 40.0}, 400.0)
    assert status(alone) == {"slow": "ok"}
    main, _ = start(ROWS, 500.0, main="slow")
    assert main["slow"]["status"] == "ok"
    short, _ = start({"slow": 40.0}, 50.0)
    assert status(short) == {"slow": NO_TIME}
