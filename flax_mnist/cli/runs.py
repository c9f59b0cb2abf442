"""`flax-mnist runs`."""

import dataclasses
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from flax_mnist.cli.fields import ALIASES
from flax_mnist.cli.flags import Switch
from flax_mnist.cli.sweep import say_outcomes
from flax_mnist.errors import RequestError
from flax_mnist.show import terminal, text
from flax_mnist.store import listing, run_folder
from flax_mnist.store.listing import Run
from flax_mnist.store.metrics import Metrics
from flax_mnist.store.sweep_folder import read_outcomes

#: As people type them, `lr`, and as the columns are headed.
SHORT = {name: ALIASES[name][-1].lstrip("-") for name in listing.SETTINGS if name in ALIASES}


@dataclasses.dataclass(frozen=True)
class Runs:
    """List the runs in a folder with their results, or the settings of a sweep.

    Examples::

        flax-mnist runs
        flax-mnist runs --where lr=0.01 --where dataset=mnist --sort test_loss
        flax-mnist runs runs/sweep-mnist-20261126-101500
    """

    folder: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="DIR")] = Path("runs")
    """Folder of run folders, or of a sweep, whose table is printed again."""
    where: Annotated[
        tyro.conf.UseAppendAction[tuple[str, ...]],
        tyro.conf.arg(metavar="NAME=VALUE", help_behavior_hint="(may be given several times)"),
    ] = ()
    """Only the runs of which this is so, such as learning_rate=0.01 or hidden_sizes=128-64."""
    sort: Annotated[str, tyro.conf.arg(metavar="NAME")] = "started"
    """What they are sorted by: run, dataset, started, took, epoch, train_loss, test_loss,
    test_accuracy, or a setting."""
    reverse: Switch = False
    """The largest first."""
    json: Switch = False
    """Print one JSON object a run, with all its settings, instead of a table."""

    def run(self) -> None:
        if (self.folder / run_folder.SWEEP).exists():
            say_outcomes(read_outcomes(self.folder), self.json)
            return
        conditions = [_condition(said) for said in self.where]
        runs, wrongs = listing.read_runs(self.folder)
        best = _best(runs)
        runs = listing.ordered(listing.chosen(runs, conditions), _name(self.sort))
        runs = runs[::-1] if self.reverse else runs
        if self.json:
            objects = [_object(run, best) for run in runs]
            objects += [{"run": str(path), "error": wrong} for path, wrong in wrongs.items()]
            for row in objects:
                terminal.say(json.dumps(row))
            return
        if runs:
            terminal.say(_table(runs, best))
        elif not wrongs:
            such = " such" if conditions else ""
            terminal.say(f"{self.folder}: there are no{such} runs.")
        for wrong in wrongs.values():
            terminal.say(wrong)


_LEGEND = """
train, test: mean loss in nats. correct: of the test images; * the best on its
dataset. All of the last epoch, with validation of the best one. took: training
alone. Of the settings those are shown that differ."""


def _name(said: str) -> str:
    """What somebody means by a name: `lr` is the learning rate."""
    long = {short: name for name, short in SHORT.items()}
    name = said.strip().lstrip("-").replace("-", "_")
    return long.get(name, name)


def _condition(said: str) -> tuple[str, str]:
    name, equals, value = said.partition("=")
    if not equals:
        raise RequestError(f"--where {said}: must be NAME=VALUE, such as learning_rate=0.01.")
    return _name(name), value


def _best(runs: Sequence[Run]) -> dict[str, float]:
    """The highest test accuracy on each dataset."""
    # Sorted, so that of the runs on one dataset the best one has the last word.
    return dict(sorted((run.record.dataset, run.kept.test_accuracy) for run in runs if run.kept))


def _table(runs: Sequence[Run], best: dict[str, float]) -> str:
    settings = listing.differing(runs)
    heads = ["run", *(SHORT.get(name, name) for name in settings)]
    rows = [(*heads, "epoch", "train", "test", "correct", "took", "started")]
    for run in runs:
        kept, record = run.kept, run.record
        epoch = f"{len(run.metrics)}/{record.config.epochs}" if record.checkpoints else "-"
        results = ("-", "-", "- ", "-")
        if kept and run.took is not None:
            mark = "*" if kept.test_accuracy == best[record.dataset] else " "
            losses = text.loss(kept.train_loss), text.loss(kept.test_loss)
            results = (*losses, f"{kept.test_accuracy:.2%}{mark}", text.seconds(run.took))
        facts = run.facts
        own = ["-" if facts[name] is None else listing.word(facts[name]) for name in settings]
        started = f"{run.started:%Y-%m-%d %H:%M}"
        rows.append((run.name, *own, epoch, *results, started))
    return f"{text.table(rows, '<' + '>' * (len(rows[0]) - 1))}\n{_LEGEND}"


def _object(run: Run, best: dict[str, float]) -> dict[str, object]:
    kept = run.kept
    return {
        "run": str(run.path),
        "sweep": str(run.sweep) if run.sweep else None,
        "dataset": run.record.dataset,
        "started": run.started.isoformat(timespec="seconds"),
        "epochs": run.record.config.epochs if run.record.checkpoints else None,
        **{field: getattr(kept, field, None) for field in Metrics._fields},
        "took": run.took,
        "best": kept is not None and kept.test_accuracy == best[run.record.dataset],
        "config": run.config,
    }
