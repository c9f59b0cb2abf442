"""`flax-mnist runs`."""

import contextlib
import dataclasses
import json
from datetime import datetime
from pathlib import Path
from typing import Annotated, NamedTuple

import tyro

from flax_mnist.cli.flags import Switch
from flax_mnist.errors import DataError, RequestError
from flax_mnist.show import terminal, text
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import Metrics, read_metrics
from flax_mnist.store.record import Record, read_config


@dataclasses.dataclass(frozen=True)
class Runs:
    """List the runs in a folder with their results."""

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = Path("runs")
    """Folder of run folders."""
    json: Switch = False
    """Print one JSON object a run instead of a table."""

    def run(self) -> None:
        runs, damages = _read(self.folder)
        if self.json:
            for line in _json(runs, damages):
                terminal.say(line)
            return
        if runs:
            terminal.say(_table(runs))
        elif not damages:
            terminal.say(f"{self.folder}: there are no runs.")
        for damage in damages.values():
            terminal.say(damage)


_HEADER = ("run", "dataset", "epoch", "train", "test", "correct", "started")
_SIDES = "<<>>>>>"
_LEGEND = """
train, test: mean loss in nats. correct: of the test images; * the best on its dataset."""


class Run(NamedTuple):
    """What is known of a run."""

    path: Path
    started: datetime  #: Or resumed for the last time: then `config.json` was written.
    record: Record
    last: Metrics | None  #: Of the last epoch that is done.


def _read(folder: Path) -> tuple[list[Run], dict[Path, str]]:
    """The runs by time, and of each damaged one what is wrong with it."""
    if not folder.is_dir():
        raise RequestError(f"{folder}: there is no such folder.")
    runs, damages = [], {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        metrics: list[Metrics] = []
        try:
            record = read_config(path)
            with contextlib.suppress(RequestError):  # it is imported, or in its first epoch
                metrics = read_metrics(path)
        except RequestError:  # it is no run
            continue
        except DataError as error:
            damages[path] = str(error)
            continue
        started = datetime.fromtimestamp((path / run_folder.CONFIG).stat().st_mtime).astimezone()
        runs.append(Run(path, started, record, metrics[-1] if metrics else None))
    return sorted(runs, key=lambda run: run.started), damages


def _best(runs: list[Run]) -> dict[str, float]:
    """The highest test accuracy on each dataset."""
    # Sorted, so that of the runs on one dataset the best one has the last word.
    return dict(sorted((run.record.dataset, run.last.test_accuracy) for run in runs if run.last))


def _table(runs: list[Run]) -> str:
    best = _best(runs)
    rows = [_HEADER]
    for path, started, record, last in runs:
        epoch = f"{last.epoch if last else 0}/{record.config.epochs}" if record.checkpoints else "-"
        results = ("-", "-", "- ")
        if last:
            mark = "*" if last.test_accuracy == best[record.dataset] else " "
            losses = f"{last.train_loss:.4f}", f"{last.test_loss:.4f}"
            results = (*losses, f"{last.test_accuracy:.2%}{mark}")
        rows.append((path.name, record.dataset, epoch, *results, f"{started:%Y-%m-%d}"))
    return f"{text.table(rows, _SIDES)}\n{_LEGEND}"


def _json(runs: list[Run], damages: dict[Path, str]) -> list[str]:
    best = _best(runs)
    objects = [
        {
            "run": str(path),
            "dataset": record.dataset,
            "started": started.isoformat(timespec="seconds"),
            "epochs": record.config.epochs if record.checkpoints else None,
            **{field: getattr(last, field, None) for field in Metrics._fields},
            "best": last is not None and last.test_accuracy == best[record.dataset],
        }
        for path, started, record, last in runs
    ]
    objects += [{"run": str(path), "error": damage} for path, damage in damages.items()]
    return [json.dumps(line) for line in objects]
