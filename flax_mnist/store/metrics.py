"""What is known after each epoch: the lines of `metrics.jsonl`."""

import json
from pathlib import Path
from typing import Any, NamedTuple

from flax_mnist.errors import DataError, FlaxMnistError, RequestError
from flax_mnist.files import read, write_atomically
from flax_mnist.store.run_folder import METRICS


class Metrics(NamedTuple):
    """What is known after an epoch."""

    epoch: int  #: Counted from 1.
    step: int  #: Steps done since the run began.
    train_loss: float  #: Mean of the losses of the epoch's batches, nats.
    test_loss: float  #: Mean over the test images, nats.
    test_accuracy: float  #: Share of the test images that are classified rightly, 0 to 1.
    seconds: float  #: Wall time of the epoch's training alone.
    images_per_second: float
    #: Mean over the images that are held out, nats. None, as the next two, where there are none.
    validation_loss: float | None = None
    validation_accuracy: float | None = None  #: Share of them that are classified rightly, 0 to 1.
    #: Of the epochs so far the one with the lowest validation loss: its weights are the run's.
    best_epoch: int | None = None

    def known(self) -> dict[str, Any]:
        """By name what is not None."""
        return {name: value for name, value in self._asdict().items() if value is not None}


_REQUIRED = set(Metrics._fields) - set(Metrics._field_defaults)


def metrics_line(metrics: Metrics, dataset_name: str) -> str:
    """An epoch as it stands in `metrics.jsonl`."""
    return json.dumps(metrics.known() | {"dataset": dataset_name})


def append_metrics(path: Path, metrics: Metrics, dataset_name: str) -> None:
    """Adds one line to `metrics.jsonl`.

    Raises:
        FlaxMnistError: it cannot be written, or only a part of it; `cut_metrics` removes that.
    """
    file = path / METRICS
    try:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(metrics_line(metrics, dataset_name) + "\n")
    except OSError as error:
        raise FlaxMnistError(f"{file}: cannot be written ({error.strerror}).") from error


def cut_metrics(path: Path, epochs: int) -> None:
    """Leaves in `metrics.jsonl` the lines of the first epochs, so many: later ones are not kept.

    Raises:
        DataError: one of them is missing or damaged.
    """
    file = path / METRICS
    lines = file.read_bytes().splitlines(keepends=True)[:epochs] if file.exists() else []
    write_atomically(file, b"".join(lines))
    there = [row.epoch for row in read_metrics(path)]
    if there != list(range(1, epochs + 1)):
        raise DataError(f"{file}: must have the epochs 1 to {epochs}; it has {there}.")


def read_finished(path: Path) -> list[Metrics]:
    """As `read_metrics`, of a run that has at least one epoch.

    Raises:
        RequestError: the folder holds no metrics, or no epoch is finished yet.
        DataError: a line is damaged; the message names it.
    """
    rows = read_metrics(path)
    if not rows:
        raise RequestError(f"{path}: has not finished its first epoch.")
    return rows


def read_metrics(path: Path) -> list[Metrics]:
    """The lines of `metrics.jsonl` in the run folder `path`, an epoch each, in order.

    Raises:
        RequestError: the folder holds no metrics: it is no run, or an imported one.
        DataError: a line is damaged; the message names it.
    """
    file = path / METRICS
    try:
        lines = read(file).decode().splitlines()
    except FileNotFoundError as error:
        raise RequestError(f"{path}: holds no training run: it has no {METRICS}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: damaged ({error}).") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            wanted = set(row) & set(Metrics._fields) | _REQUIRED
            rows.append(Metrics(**{field: row[field] for field in wanted}))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{file}: line {number} is damaged ({error!r}).") from error
    return rows
