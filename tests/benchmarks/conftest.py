"""The data and the measured rows that several tests of the benchmark need."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
import pytest

from benchmarks.command import stored
from benchmarks.harness import judge, machine, protocol
from benchmarks.harness.entrant import left_out
from benchmarks.harness.program import Settings
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset, Split
from tests.benchmarks.some_rows import BRIEF, HONEST, misbehaving, row
from tests.helpers.idx_files import write_idx_dir


@pytest.fixture(scope="session")
def dataset(digits: dict[str, np.ndarray]) -> Dataset:
    train, test = (
        Split(digits[f"{s}_images"], digits[f"{s}_labels"].astype(np.int32))
        for s in ("train", "test")
    )
    return Dataset("synthetic", "drawn", (), train, test)


@pytest.fixture
def settings() -> Settings:
    # A rate at which one epoch of 16 steps goes somewhere.
    return Settings(config=Config(learning_rate=0.05, seed=3), models=3)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    # The loops make settings for the whole process, as they may in one of their own.
    names = (
        "jax_platforms", "jax_default_device", "jax_enable_compilation_cache", "jax_enable_x64",
        "jax_default_matmul_precision",
    )  # fmt: skip
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


@pytest.fixture(scope="session")
def folder(tmp_path_factory: pytest.TempPathFactory, digits: dict[str, np.ndarray]) -> Path:
    """The small set as IDX files, for processes."""
    return write_idx_dir(tmp_path_factory.mktemp("data") / "idx", digits)


@pytest.fixture(scope="session")
def result(folder: Path) -> dict[str, Any]:
    """Rows that behave and rows that do not, measured as the command measures them."""
    settings = Settings(config=Config(learning_rate=0.05), dataset="mnist", data_dir=str(folder))
    rows = (HONEST, *misbehaving("Slow", "Lazy", "Broken", "Dying"), row("P7"))
    measured = protocol.measure(rows, settings, BRIEF, 1, lambda _: None)
    honest = measured[0]["scores"][0]
    reference = judge.Reference(honest[0], honest[1], "the honest row")
    made = {
        "version": stored.VERSION,
        "partial": None,
        "request": {"kind": "quick", "rows": [row.name for row in rows], "minutes": 3.0},
        "rounds_done": BRIEF.rounds,
        "date": "2026-01-01T00:00:00+00:00",
        "settings": dataclasses.asdict(settings),
        "plan": dataclasses.asdict(BRIEF),
        "machine": {
            "device": "a CPU", "platform": "cpu", "cores": 1, "dataset": "mnist", "images": 1000,
            "versions": machine.versions(), "commit": None,
        },
        "rows": [*measured, left_out(row("P1"), "not in --quick")],
        "reference": reference._asdict(),
        "processes": [],
        "scaling": [],
        "load_average": [0.0, 0.0],
        "others_cores": 0.0,
    }  # fmt: skip
    return json.loads(json.dumps(stored.complete(made)))  # type: ignore[no-any-return]
