"""A benchmark that is stopped keeps what it has, goes on with it, and ends in time."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from benchmarks.command import benchmark, stored
from benchmarks.harness.program import Settings
from benchmarks.harness.schedule import NO_TIME, Budget
from flax_mnist.config import Config
from flax_mnist.errors import FlaxMnistError, StoppedError
from tests.benchmarks.some_rows import BRIEF

Result = dict[str, Any]


@pytest.fixture
def settings(folder: Path) -> Settings:
    return Settings(config=Config(learning_rate=0.05), dataset="mnist", data_dir=str(folder))


@pytest.fixture
def begun(result: Result, settings: Settings) -> Result:
    """One of which nothing is measured yet, without the process that looks at the machine."""
    return {
        **copy.deepcopy(result),
        "settings": dataclasses.asdict(settings) | {"data_dir": None},
        "request": {"kind": "rows", "rows": ["N1", "P7"], "minutes": 1.0},
        "plan": dataclasses.asdict(BRIEF),
        "rounds_done": 0,
        "rows": [],
    }


def go_on(
    result: Result, settings: Settings, keep: Callable[[], None], seconds: float
) -> list[str]:
    said: list[str] = []
    benchmark.measure_all(result, settings, Budget(seconds), said.append, keep)
    return said


def test_a_stopped_benchmark_is_gone_on_with(
    begun: Result, settings: Settings, tmp_path: Path
) -> None:
    path = tmp_path / "a.json"

    def stop_after_the_first_round() -> None:
        stored.write(begun, path)
        if begun["rounds_done"] == 1:
            raise StoppedError("terminated.", 143)

    with pytest.raises(StoppedError):
        go_on(begun, settings, stop_after_the_first_round, seconds=600)
    partial = stored.read(path)
    assert partial["partial"] == "1 of 3 rounds"
    (first,) = partial["rows"][1]["turns"]
    # A turn of a round that did not come to its end is taken again.
    partial["rows"][1]["turns"].append({**first, "round": 1, "seconds": [1e-9]})
    said = go_on(partial, settings, lambda: None, seconds=600)
    assert not any("round 1 " in line for line in said)
    graph, numpy = partial["rows"]
    assert numpy["turns"][0] == first
    assert [turn["round"] for turn in numpy["turns"]] == [0, 1, 2]
    assert min(min(turn["seconds"]) for turn in numpy["turns"]) > 1e-9
    assert len(numpy["scores"]) == 1
    assert graph["reason"] == "CUDA graphs need an NVIDIA GPU"
    assert partial["partial"] is None
    assert stored.complete(partial)["summary"]["rows"]["N1"]["status"] == "ok"


def test_where_there_is_no_time_rows_are_left_out(begun: Result, settings: Settings) -> None:
    go_on(begun, settings, lambda: None, seconds=1)
    assert [(row["status"], row["reason"]) for row in begun["rows"]] == [("skipped", NO_TIME)] * 2


def test_another_machine_is_not_gone_on_with(result: Result) -> None:
    now = result["machine"]
    stored.require_same(now, copy.deepcopy(now), Path("a.json"))
    for changed in ({"cores": 64}, {"commit": "0"}, {"versions": {"jax": "0"}}):
        with pytest.raises(FlaxMnistError, match=r"a.json: was measured with \w+ .* is now"):
            stored.require_same(now, {**now, **changed}, Path("a.json"))
