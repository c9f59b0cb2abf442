"""Rows that behave, and rows that do not."""

from __future__ import annotations

import sys
import time

import numpy as np

from benchmarks.harness.program import Program, Settings
from benchmarks.harness.schedule import Schedule
from benchmarks.loops.numpy_backprop import Backpropagation
from benchmarks.rows import ROWS, Row, Variant
from flax_mnist.data.dataset import Dataset

BRIEF = Schedule(rounds=3, turn_seconds=0.02, settle_seconds=0)
SLEEP = 0.002

HONEST = Row(
    "N1",
    "honest",
    "headline",
    "peers",
    (Variant("benchmarks.loops.numpy_backprop:Backpropagation"),),
)


def row(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)


class Slow(Backpropagation):
    def step(self, rows: np.ndarray) -> float:
        time.sleep(SLEEP)
        return super().step(rows)


class Lazy(Backpropagation):
    def step(self, rows: np.ndarray) -> float:
        self.odd = not getattr(self, "odd", False)
        return super().step(rows) if self.odd else 0.0


class Broken(Program):
    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        raise ValueError("on purpose\nand more")


class Dying(Backpropagation):
    def epoch(self) -> None:
        sys.exit(3)


def misbehaving(*names: str) -> tuple[Row, ...]:
    return tuple(
        Row(name, name, "headline", "peers", (Variant(f"tests.benchmarks.some_rows:{name}"),))
        for name in names
    )
