"""The folder of a sweep.

`sweep.json` has all that is needed to repeat it, `sweep.jsonl` a line for each member and epoch,
`outcomes.jsonl`, once it has come to its end, a line for each setting.
"""

import dataclasses
import itertools
import json
import math
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flax_mnist.axes import Axes
from flax_mnist.config import Config
from flax_mnist.errors import DataError, FlaxMnistError, RequestError
from flax_mnist.files import read, write_atomically
from flax_mnist.store.metrics import Metrics
from flax_mnist.store.record import Record, content_of, parse_content
from flax_mnist.store.run_folder import OUTCOMES, SWEEP, SWEEP_CONFIG

#: What tells members apart, as it stands in the lines of `sweep.jsonl`.
DIFFERENT = ("hidden_sizes", "batch_size", "learning_rate", "momentum", "seed")
QUANTILES = (0.05, 0.25, 0.5, 0.75, 0.95)
"""Of the seeds' results, where they are many."""


class Setting(NamedTuple):
    """A setting of a sweep, and what its seeds came to; None is what they are too few for.

    Where images are held out, losses and accuracies are those of each member's best epoch.
    """

    learning_rate: float
    momentum: float
    test_loss: float | None  #: Mean over the seeds that did not diverge, nats.
    test_loss_sd: float | None
    test_accuracy: float | None  #: Mean of the shares, 0 to 1.
    test_accuracy_sd: float | None
    ensemble_accuracy: float | None  #: By the mean of the seeds' probabilities.
    members: int  #: Seeds.
    diverged: int  #: Of them.
    #: Whether its mean loss is the lowest, that on the images held out if there are any.
    best: bool
    batch_size: int = Config.batch_size
    hidden_sizes: tuple[int, ...] = Config.hidden_sizes
    validation_loss: float | None = None  #: Mean, nats; None, too, where no images are held out.
    validation_accuracy: float | None = None
    test_loss_quantiles: Sequence[float] | None = None  #: `QUANTILES`.
    test_accuracy_quantiles: Sequence[float] | None = None

    @property
    def deciding_loss(self) -> float:
        """By which the best is chosen; infinite where every member diverged."""
        loss = self.test_loss if self.validation_loss is None else self.validation_loss
        return math.inf if loss is None else loss

    @property
    def rank(self) -> tuple[int, float]:
        """The lower the better: first how many diverged, then the mean loss."""
        return self.diverged, self.deciding_loss


class SweepRecord(NamedTuple):
    """What a sweep is, as `sweep.json` says."""

    axes: Axes
    record: Record  #: Of what all members have in common.
    group_size: int  #: How many are trained at the same time, at most.


def write_asked(path: Path, asked: SweepRecord, environment: Mapping[str, Any]) -> None:
    """Writes `sweep.json` into the folder of a sweep, and makes it one.

    Raises:
        FlaxMnistError: it cannot be written.
    """
    axes = {"axes": dataclasses.asdict(asked.axes), "group_size": asked.group_size}
    content = axes | content_of(asked.record, environment)
    write_atomically(path / SWEEP_CONFIG, (json.dumps(content, indent=2) + "\n").encode())
    append_rows(path, [], asked.record.dataset)  # by which others know the folder


def read_asked_text(path: Path) -> str:
    """The content of `sweep.json` in the folder of a sweep.

    Raises:
        RequestError: the folder holds no sweep.
        DataError: it cannot be read.
    """
    try:
        return read(path / SWEEP_CONFIG).decode()
    except FileNotFoundError as error:
        raise RequestError(f"{path}: is no folder of a sweep: it has no {SWEEP_CONFIG}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{path / SWEEP_CONFIG}: damaged ({error}).") from error


def parse_asked(text: str, path: Path) -> SweepRecord:
    """What the content of `sweep.json` says of the sweep at `path`.

    Raises:
        DataError: it is damaged, or a newer version of this program wrote it.
    """
    file = path / SWEEP_CONFIG
    record = parse_content(text, file)
    try:
        content = json.loads(text)
        axes, size = Axes(**content["axes"]), int(content["group_size"])
        axes.members(record.config)
    except (ValueError, KeyError, TypeError, RequestError) as error:
        raise DataError(f"{file}: damaged ({error!r}).") from error
    return SweepRecord(axes, record, size)


def append_rows(path: Path, rows: Sequence[tuple[Config, Metrics]], dataset_name: str) -> None:
    """Adds a line for each member to `sweep.jsonl`: what it is, and its metrics.

    These are null once it diverged. `seconds` is its share of the time in which all train,
    `images_per_second` counts all images.

    Raises:
        FlaxMnistError: they cannot be written, or only a part of them; `cut_rows` removes that.
    """
    lines = []
    for config, metrics in rows:
        what = {name: getattr(config, name) for name in DIFFERENT}
        values = metrics.known() | {"diverged": math.isnan(metrics.test_loss)}
        finite = {
            name: None if isinstance(value, float) and math.isnan(value) else value
            for name, value in values.items()
        }
        lines.append(json.dumps(what | finite | {"dataset": dataset_name}) + "\n")
    try:
        with (path / SWEEP).open("a", encoding="utf-8") as stream:
            stream.write("".join(lines))
    except OSError as error:
        raise FlaxMnistError(f"{path / SWEEP}: cannot be written ({error.strerror}).") from error


def cut_rows(path: Path, count: int) -> None:
    """Leaves the first lines of `sweep.jsonl`, so many: those that a checkpoint knows of.

    Raises:
        DataError: one of them is missing.
        FlaxMnistError: the file cannot be written.
    """
    file = path / SWEEP
    try:
        with file.open("rb+") as stream:
            lines = itertools.islice(stream, count)
            there = sum(line.endswith(b"\n") for line in lines)
            if there < count:
                raise DataError(f"{file}: must have {count:,} lines; it has {there:,}.")
            stream.truncate(stream.tell())
    except OSError as error:
        raise FlaxMnistError(f"{file}: cannot be written ({error.strerror}).") from error


def read_rows(path: Path) -> Iterator[tuple[dict[str, Any], Metrics]]:
    """The lines of `sweep.jsonl`, one after the other: what the member is, and its metrics.

    Raises:
        DataError: a line is damaged; the message names it.
    """
    file = path / SWEEP
    with file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            try:
                row = json.loads(line)
                what = {name: row[name] for name in DIFFERENT}
                values: dict[str, Any] = {n: row[n] for n in row.keys() & set(Metrics._fields)}
                known: dict[str, Any] = {
                    name: math.nan if value is None else value for name, value in values.items()
                }
                metrics = Metrics(**known)
                yield what | {"hidden_sizes": tuple(what["hidden_sizes"])}, metrics
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                raise DataError(f"{file}: line {number} is damaged ({error!r}).") from error


def outcome_line(setting: Setting) -> str:
    """A setting as it stands in `outcomes.jsonl`."""
    return json.dumps(setting._asdict())


def write_outcomes(path: Path, settings: Sequence[Setting]) -> None:
    """Writes `outcomes.jsonl` into the folder of a sweep.

    Raises:
        FlaxMnistError: it cannot be written.
    """
    lines = "".join(f"{outcome_line(setting)}\n" for setting in settings)
    write_atomically(path / OUTCOMES, lines.encode())


def read_outcomes(path: Path) -> list[Setting]:
    """The settings of the sweep in a folder, in the order of their training.

    Raises:
        RequestError: the folder holds no sweep, or one that did not come to its end.
        DataError: a line is damaged.
    """
    file = path / OUTCOMES
    try:
        rows = [json.loads(line) for line in read(file).splitlines()]
        return [
            Setting(**row | {"hidden_sizes": tuple(row.get("hidden_sizes", Config.hidden_sizes))})
            for row in rows
        ]
    except FileNotFoundError as error:
        go_on = f"go on with it: sweep --resume --run-dir {path}"
        resumable = (path / SWEEP_CONFIG).exists()
        remedy = go_on if resumable else f"or one of before {OUTCOMES}"
        unfinished = f"a sweep that did not come to its end, {remedy}"
        wrong = unfinished if (path / SWEEP).exists() else "holds no sweep"
        raise RequestError(f"{path}: {wrong}.") from error
    except (AttributeError, ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: damaged ({error!r}).") from error
