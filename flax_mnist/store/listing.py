"""The runs in a folder, and which of them are asked for."""

import contextlib
import dataclasses
import math
import re
from collections.abc import Iterator, Sequence
from datetime import datetime
from pathlib import Path
from typing import Any, NamedTuple

from flax_mnist.config import Config
from flax_mnist.errors import DataError, RequestError
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import Metrics, read_metrics
from flax_mnist.store.record import Record, read_config

SETTINGS = tuple(field.name for field in dataclasses.fields(Config))


class Run(NamedTuple):
    """What is known of a run."""

    path: Path
    started: datetime  #: Or resumed for the last time: then `config.json` was written.
    record: Record
    metrics: Sequence[Metrics]
    sweep: Path | None  #: Whose best member it is.

    @property
    def name(self) -> str:
        """What its folder is called; of a sweep's best member with that of the sweep."""
        return f"{self.sweep.name}/{self.path.name}" if self.sweep else self.path.name

    @property
    def kept(self) -> Metrics | None:
        """Of the epoch whose weights it has: of those that are done the last, or the best one."""
        if not self.metrics:
            return None
        last = self.metrics[-1]
        return next((row for row in self.metrics if row.epoch == last.best_epoch), last)

    @property
    def config(self) -> dict[str, Any]:
        """Its settings: of one that was imported those that its weights tell."""
        known = SETTINGS if self.record.checkpoints else ("hidden_sizes", "precision")
        return {name: getattr(self.record.config, name) for name in known}

    @property
    def took(self) -> float | None:
        """Seconds that its epochs were trained for."""
        return sum(row.seconds for row in self.metrics) if self.metrics else None

    @property
    def facts(self) -> dict[str, Any]:
        """All that runs are chosen and sorted by; None is what it has not."""
        results = {field: getattr(self.kept, field, None) for field in _RESULTS}
        settings = dict.fromkeys(SETTINGS) | self.config
        about = {"run": self.name, "dataset": self.record.dataset, "started": self.started}
        return about | settings | results | {"took": self.took}


_RESULTS = ("epoch", "train_loss", "test_loss", "test_accuracy")


def read_runs(folder: Path) -> tuple[list[Run], dict[Path, str]]:
    """The runs in a folder by time, and of each damaged one what is wrong with it.

    A sweep is there as its best member.

    Raises:
        RequestError: there is no such folder.
    """
    if not folder.is_dir():
        raise RequestError(f"{folder}: there is no such folder.")
    runs, wrongs = [], {}
    for path in sorted(path for path in folder.iterdir() if path.is_dir()):
        try:
            best = run_folder.best_of_sweep(path)
        except RequestError as error:
            wrongs[path] = str(error)
            continue
        try:
            runs.append(_read(best or path, path if best else None))
        except RequestError:  # it is no run
            continue
        except DataError as error:
            wrongs[path] = str(error)
    return sorted(runs, key=lambda run: run.started), wrongs


def _read(path: Path, sweep: Path | None) -> Run:
    record, metrics = read_config(path), []
    with contextlib.suppress(RequestError):  # it is imported, or in its first epoch
        metrics = read_metrics(path)
    started = datetime.fromtimestamp((path / run_folder.CONFIG).stat().st_mtime).astimezone()
    return Run(path, started, record, metrics, sweep)


def chosen(runs: Sequence[Run], conditions: Sequence[tuple[str, str]]) -> list[Run]:
    """Those of which every fact that is named has the value that is given, as it is written.

    Raises:
        RequestError: a name is that of no fact.
    """
    for name, _ in conditions:
        _require_fact(name)
    return [run for run in runs if all(_is(run.facts[name], word) for name, word in conditions)]


def ordered(runs: Sequence[Run], fact: str) -> list[Run]:
    """Sorted by a fact, the smallest first; those that lack it come last, as they came.

    Raises:
        RequestError: the name is that of no fact.
    """
    _require_fact(fact)
    lacking = [run for run in runs if run.facts[fact] is None]
    return sorted((r for r in runs if r not in lacking), key=lambda r: r.facts[fact]) + lacking


def differing(runs: Sequence[Run]) -> list[str]:
    """The dataset and the settings, if not all have the same; epochs are told of each anyway."""
    facts = [run.facts for run in runs]
    names = ("dataset", *(name for name in SETTINGS if name != "epochs"))
    return [name for name in names if len({fact[name] for fact in facts} - {None}) > 1]


def word(value: Any) -> str:
    """A setting in one word: `0.01`, `128-64`, `float32`."""
    if isinstance(value, tuple):
        return "-".join(map(str, value))
    return f"{value:g}" if isinstance(value, float) else str(value)


def _is(value: Any, said: str) -> bool:
    if isinstance(value, int | float) and not isinstance(value, bool):
        with contextlib.suppress(ValueError):
            return math.isclose(value, float(said), rel_tol=1e-9)
    return word(value).lower() == re.sub(r"[ ,]+", "-", said.strip()).lower()


def _facts() -> Iterator[str]:
    yield from ("run", "dataset", "started", *SETTINGS, *_RESULTS, "took")


def _require_fact(name: str) -> None:
    if name not in _facts():
        raise RequestError(f"{name}: runs have no such thing. They have {', '.join(_facts())}.")
