"""Runs: the arguments that make them, and what is in their folders."""

from __future__ import annotations

import json
from pathlib import Path

from flax_mnist.store import run_folder
from flax_mnist.store.metrics import read_metrics
from tests.helpers.command_line import flags

LEARNS = flags(dataset="mnist", epochs=3, learning_rate=0.05, momentum=0.9)
"""With these a network tells most of the small set's digits."""


def train(data: Path, path: Path, **more: object) -> list[str]:
    """Arguments that train on the images in one folder, and keep it in another."""
    return ["train", *flags(data_dir=data, run_dir=path, **more)]


def resume(path: Path, **more: object) -> list[str]:
    """Arguments by which a run goes on."""
    return ["train", "--resume", *flags(run_dir=path, **more)]


def metrics(path: Path) -> list[dict]:
    """The lines of a run's metrics as they stand there."""
    lines = (path / run_folder.METRICS).read_text(encoding="utf-8").splitlines()
    return [json.loads(line) for line in lines]


def result(path: Path) -> tuple[bytes, list[tuple]]:
    """What must not depend on interruptions: weights, and metrics without their times."""
    rows = [row[: row._fields.index("seconds")] for row in read_metrics(path)]
    return (path / run_folder.WEIGHTS).read_bytes(), rows
