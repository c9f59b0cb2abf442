"""What fits into the time there is."""

from __future__ import annotations

import dataclasses
import math

import pytest

from benchmarks.harness.schedule import FEWEST_ROUNDS, RETAKEN, Budget, Schedule, fitting

PLAN = Schedule(rounds=7, turn_seconds=1, settle_seconds=0.25, warm_seconds=2, slow_seconds=2)
ROWS = {"fast": 0.1, "middling": 0.5, "slow": 4.0}


def by_hand(plan: Schedule, seconds: list[float]) -> float:
    """Round by round, turn by turn."""
    total = 0.0
    for number in range(plan.rounds):
        for s in seconds:
            if s > plan.slow_seconds and number not in plan.turns_of(slow=True):
                continue
            calls = max(1, round(plan.turn_seconds / s))
            total += plan.settle_seconds + calls * s + (s if s <= plan.warm_seconds else 0)
    return RETAKEN * total


@pytest.mark.parametrize("seconds", [1e4, 80.0, 60.0, 40.0, 20.0, 8.0, 3.0, 0.5])
def test_what_is_planned_fits(seconds: float) -> None:
    schedule, staying = fitting(PLAN, ROWS, seconds)
    assert by_hand(schedule, [ROWS[name] for name in staying]) <= seconds or not staying
    assert schedule.rounds >= FEWEST_ROUNDS
    # The slowest go first.
    assert staying in ({"fast", "middling", "slow"}, {"fast", "middling"}, {"fast"}, set())


def test_nothing_is_given_up_for_which_there_is_time() -> None:
    enough = by_hand(PLAN, list(ROWS.values()))
    assert fitting(PLAN, ROWS, enough * 1.0001) == (PLAN, set(ROWS))
    less, staying = fitting(PLAN, ROWS, enough * 0.9)
    assert staying == set(ROWS)
    assert less != PLAN
    assert by_hand(less, list(ROWS.values())) > 0.3 * enough


def test_turns_are_made_shorter_then_fewer() -> None:
    shorter = [{"turn_seconds": 1}, {"turn_seconds": 0.5}, {"turn_seconds": 0.25}]
    fewer = [{"turn_seconds": 0.25, "rounds": rounds} for rounds in (6, 5, 4, 3)]
    spare = dataclasses.replace(PLAN, slow_rounds=3)
    schedules = [PLAN, *(dataclasses.replace(spare, **less) for less in (*shorter, *fewer))]
    needed = [by_hand(schedule, list(ROWS.values())) for schedule in schedules]
    for schedule, seconds in zip(schedules, needed, strict=True):
        assert fitting(PLAN, ROWS, seconds * 1.0001) == (schedule, set(ROWS))
        assert fitting(PLAN, ROWS, seconds * 0.9999) != (schedule, set(ROWS))


def test_a_part_of_a_budget_leaves_the_rest() -> None:
    budget = Budget(100)
    assert budget.part(0.5, reserve=20).left() == pytest.approx(40, abs=1)
    assert budget.part(reserve=200).left() < 0
    assert math.isinf(Budget().part(0.5, reserve=20).left())


@pytest.mark.parametrize(("rows", "seconds"), [(1, 100), (2, 50), (4, 25), (20, 25)])
def test_one_of_many_rows_has_a_quarter(rows: int, seconds: float) -> None:
    assert Budget(100).share(rows).left() == pytest.approx(seconds, abs=1)
    assert math.isinf(Budget().share(rows).left())
