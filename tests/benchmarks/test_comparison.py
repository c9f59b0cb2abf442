"""Results against each other: what is called slower, and what is not."""

from __future__ import annotations

import copy
import re
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import __main__ as command
from benchmarks.command import stored
from benchmarks.harness.machine import ROOT
from benchmarks.tables.comparison import compare, differences
from benchmarks.tables.statistics import Estimate, ratio_of_runs
from benchmarks.tables.table import WIDTH

FULL = ROOT / "benchmarks" / "results" / "amd-epyc-2-cores.json"
Result = dict[str, Any]
Tuned = tuple[Result, float, float]  #: What was chosen, and the trials' seconds on one and on two.


@pytest.fixture(scope="module")
def full() -> Result:
    return stored.read(FULL)


def slowed(result: Result, **times: float) -> Result:
    """The result, had these rows taken so many times as long, but for a little noise."""
    changed, rng = copy.deepcopy(result), np.random.default_rng(0)
    for row in changed["rows"]:
        for turn in row["turns"]:
            factor = times.get(row["name"], times.get("all", 1.0)) * rng.normal(1, 0.005)
            turn["seconds"] = [seconds * factor for seconds in turn["seconds"]]
    return stored.complete(changed)


def test_two_runs_of_the_same_are_not_different(full: Result) -> None:
    (pairs,) = compare([full, slowed(full)])
    assert len(pairs) == 18
    assert {pair.verdict for pair in pairs.values()} == {""}
    for pair in pairs.values():
        assert pair.speed.low < 1 < pair.speed.high


def test_a_slowed_row_is_flagged_and_no_other(full: Result) -> None:
    (pairs,) = compare([full, slowed(full, J2=1.25)])
    assert [name for name, pair in pairs.items() if pair.verdict] == ["J2"]
    assert pairs["J2"].speed.value == pytest.approx(0.8, abs=0.01)
    assert pairs["J2"].is_slower_by(10)
    assert not pairs["J2"].is_slower_by(22)
    (back,) = compare([slowed(full, J2=1.25), full])
    assert back["J2"].verdict == "faster"
    assert not back["J2"].is_slower_by(0)


def test_a_slower_machine_slows_no_row(full: Result) -> None:
    (pairs,) = compare([full, slowed(full, all=1.2)])
    assert {pair.verdict for pair in pairs.values()} == {""}
    # Of the ceilings alone it says as little: what slowed them may have been over.
    (pairs,) = compare([full, slowed(full, G1=1.2, G2=1.2, G3=1.2)])
    assert {pair.verdict for pair in pairs.values()} == {""}
    for another in ({"device": "another"}, {"cores": 64}):
        elsewhere = slowed(full, all=1.2)
        elsewhere["machine"] = full["machine"] | another
        (pairs,) = compare([full, elsewhere])
        assert pairs["J3"].verdict == "slower"


def test_a_row_tuned_otherwise_is_as_sure_as_its_trials(full: Result) -> None:
    one, two = ({"variant": None, "threads": threads} for threads in (1, 2))

    def tuned(result: Result, chosen: dict[str, Any], one_s: float, two_s: float) -> Result:
        (row,) = (row for row in result["rows"] if row["name"] == "J2")
        row |= {**chosen, "trials": [{**one, "seconds": one_s}, {**two, "seconds": two_s}]}
        return result

    def verdict(slower: float, a: Tuned, b: Tuned) -> Estimate:
        before, after = (tuned(slowed(full, J2=by), *t) for by, t in ((1, a), (slower, b)))
        (pairs,) = compare([before, after], ["J2"])
        return pairs["J2"].speed

    alike = verdict(1.25, (one, 1.0, 1.3), (one, 1.0, 1.3))
    assert alike.high < 1
    # A as B was would have taken 1.3 times as long, B as A was 1.1 times.
    otherwise = verdict(1.25, (one, 1.0, 1.3), (two, 1.1, 1.0))
    expected = (alike.value, alike.low / 1.1, alike.high * 1.3)
    assert otherwise == pytest.approx(expected)
    assert verdict(2.0, (one, 1.0, 1.3), (two, 1.1, 1.0)).high < 1  # of a real loss it is sure
    # On another machine the best choice may be another: each is at its best.
    before = tuned(slowed(full), one, 1.0, 1.3)
    after = tuned(slowed(full, J2=1.25), two, 1.1, 1.0)
    after["machine"] = full["machine"] | {"cores": 64}
    (pairs,) = compare([before, after], ["J2"])
    assert pairs["J2"].verdict == "slower"


def test_all_intervals_hold_together_for_an_image(full: Result) -> None:
    elsewhere, turns = slowed(full), []
    halved = {"device": "another", "images": full["machine"]["images"] // 2}
    elsewhere["machine"] = full["machine"] | halved
    for result in (full, elsewhere):
        (row,) = (row for row in result["rows"] if row["name"] == "J2")
        turns.append([np.median(turn["seconds"]) for turn in row["turns"]])
    for others in (1, 2):
        pairs, *_ = compare([full, *[elsewhere] * others])
        expected = ratio_of_runs(*turns, 1 - 0.05 / (18 * others))
        assert expected
        assert pairs["J2"].speed == pytest.approx([value / 2 for value in expected])


def test_the_interval_holds_as_often_as_it_says() -> None:
    # Of runs of one and the same thing the interval of 90 % misses 1 in about a tenth.
    rng, missed = np.random.default_rng(1), 0
    for _ in range(30):
        found = ratio_of_runs(rng.normal(5, 1, 25), rng.normal(5, 1, 25), 0.9)
        assert found
        missed += not found.low <= 1 <= found.high
    assert missed <= 8  # 2 in 1,000 are more if it is a tenth
    assert ratio_of_runs([1.0, 2.0], [1.0, 2.0, 3.0], 0.9) is None


def test_rows_that_are_not_valid_are_not_compared(full: Result) -> None:
    broken = copy.deepcopy(full)
    for row in broken["rows"]:
        if row["name"] == "J2":
            row["scores"] = [[9.0, 0.1]]
    (pairs,) = compare([full, stored.complete(broken)], ["J1", "J2"])
    assert set(pairs) == {"J1"}


def test_what_differs_is_named(full: Result) -> None:
    other = copy.deepcopy(full)
    other["machine"]["versions"]["jax"] = "0.11.0"
    other["settings"]["config"]["batch_size"] = 128
    other["settings"]["data_dir"] = "elsewhere"
    other["rows"][0]["threads"] = 2
    other["rows"][1] |= {"threads": 7, "turns": []}  # it never ran
    assert differences(full, other) == [
        "batch_size 64 -> 128", "jax 0.10.2 -> 0.11.0", "P1 threads 1 -> 2",
    ]  # fmt: skip
    assert differences(full, full) == []


@pytest.mark.long
def test_the_command(full: Result, tmp_path: Path, capsys: Any) -> None:
    slow, same = tmp_path / "slow.json", tmp_path / "same.json"
    stored.write(slowed(full, J2=1.25), slow)
    stored.write(slowed(full), same)
    picture = tmp_path / "a.png"

    def ask(*words: object) -> int:
        return command.main(["compare", *map(str, words), "--output", str(picture)])

    assert ask(FULL, slow, same) == 0
    printed = capsys.readouterr().out
    assert re.search(
        r"^\| J2 .*0\.80 \d.\d\d-0\.\d\d - \|.*1\.00 \d.\d\d-1.\d\d +\|$", printed, re.M
    )
    assert max(map(len, printed.splitlines())) <= WIDTH
    assert picture.read_bytes().startswith(b"\x89PNG")
    assert ask(FULL, same, "--fail-if-slower", 10) == 0
    assert ask(FULL, slow, "--fail-if-slower", 10, "--rows", "j1", "J2") == 1
    assert f"J2 is 20 % slower in {slow}" in capsys.readouterr().err
    assert ask(FULL, slow, "--fail-if-slower", 10, "--rows", "j1") == 0
    assert ask(FULL, slow, "--fail-if-slower", 25) == 0
    # What could not be compared is not known to be as fast.
    assert ask(FULL, slow, "--fail-if-slower", 10, "--rows", "P7") == 1
    less = slowed(full)
    stored.write(less | {"rows": [row for row in less["rows"] if row["name"] != "J1"]}, slow)
    assert ask(FULL, same, slow, "--fail-if-slower", 10, "--rows", "J1") == 1
    assert ask(FULL) == ask(FULL, slow, "--rows", "X9") == ask(FULL, tmp_path / "none.json") == 2
