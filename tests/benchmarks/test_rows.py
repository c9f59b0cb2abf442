"""What runs, and what it takes."""

from __future__ import annotations

import dataclasses
import json

import pytest

from benchmarks.harness.program import Settings
from benchmarks.rows import ROWS
from flax_mnist.config import Config
from tests.benchmarks.some_rows import row


@pytest.mark.usefixtures("torch")
def test_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [threads for _, threads in row("P3").candidates(4, "cpu")] == [1, 4]  # type: ignore[misc]
    assert [threads for _, threads in row("P3").candidates(1, "cpu")] == [1]  # type: ignore[misc]
    assert [threads for _, threads in row("J2").candidates(4, "cpu")] == [4]  # type: ignore[misc]
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert row("P5").candidates(2, "cpu") == "torch.compile needs a C++ compiler"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert row("T1").candidates(2, "cpu") == "tinygrad is not installed"
    # NumPy is always there.
    assert len(row("G1").candidates(1, "cpu")) == 1


def test_rows_are_named_once_and_quick_has_the_main_ones() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {"P1", "P3", "J1", "J2", "J4", "N1", "G1", "G2"} <= {r.name for r in ROWS if r.quick}


def test_settings_survive_json() -> None:
    settings = Settings(config=Config(hidden_sizes=(3, 2)), data_dir="x")
    assert Settings.from_json(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings
