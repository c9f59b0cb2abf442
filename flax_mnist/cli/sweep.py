"""`flax-mnist sweep`."""

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

import tyro

from flax_mnist.cli.flags import DataDir, Machine, Settings, Switch, by_default
from flax_mnist.config import Config, DatasetName
from flax_mnist.data import default_dir
from flax_mnist.errors import FlaxMnistError
from flax_mnist.show import terminal, text
from flax_mnist.store.outcomes import Setting, outcome_line
from flax_mnist.store.run_folder import BEST


@dataclasses.dataclass(frozen=True)
class Common(Settings):
    """What all members have in common."""

    learning_rate: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.learning_rate
    momentum: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.momentum
    seed: int = Config.seed
    """The first of the seeds."""
    validation: tyro.conf.Suppress[tyro.conf.Fixed[int]] = Config.validation
    patience: tyro.conf.Suppress[tyro.conf.Fixed[int]] = Config.patience
    until_accuracy: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.until_accuracy


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Train every combination of learning rates, momenta and seeds at once.

    Each member is what `train` makes of the same settings.

    The best member of the setting with the lowest mean test loss is kept as a run.

    Examples::

        flax-mnist sweep
        flax-mnist sweep --lr 0.003 0.01 0.03 --momenta 0 0.9 --seeds 4 --epochs 3
        flax-mnist sweep --dataset mnist --seeds 16 --run-dir runs/rates
    """

    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    """Step sizes; with a schedule the largest ones."""
    momenta: tuple[float, ...] = (0.0,)
    """Momenta of SGD, in [0, 1)."""
    seeds: int = 8
    """How many."""
    config: Common = dataclasses.field(default_factory=Common)
    dataset: DatasetName = "auto"
    """Images to train on; auto is mnist where it can be had, otherwise synthetic."""
    data_dir: DataDir = dataclasses.field(default_factory=default_dir.named)
    """Folder with the images, or a file of them: the four IDX files, mnist.npz, CSV, Parquet, or a
    tensorflow-datasets folder."""
    run_dir: Annotated[Path | None, by_default("DIR", "runs/sweep-<dataset>-<timestamp>")] = None
    """Folder to write to."""
    json: Switch = False
    """Print one JSON object a setting, that of outcomes.jsonl, and nothing else."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        from flax_mnist.runs.sweeping import sweep
        from flax_mnist.runs.telling import SweepLines

        with terminal.warnings_at_both_ends():
            swept = sweep(
                Config(**dataclasses.asdict(self.config)),
                self.learning_rates,
                self.momenta,
                self.seeds,
                self.dataset,
                self.run_dir,
                data_dir=self.data_dir,
                observer=None if self.json else SweepLines(),
                device=self.machine.device,
                compilation_cache=not self.machine.no_compilation_cache,
            )
            say_outcomes(swept.settings, self.json)
            if swept.best.best is None:
                raise FlaxMnistError(
                    "Every member diverged: the steps are too large. "
                    f"Try --learning-rates below {min(self.learning_rates):g}."
                )
            if not self.json:
                terminal.say(f"Saved in {swept.folder}, the best member in {swept.folder / BEST}")


def say_outcomes(settings: Sequence[Setting], json: bool) -> None:
    """Prints what came of the settings of a sweep: a table, or an object each."""
    for line in map(outcome_line, settings) if json else [text.sweep_table(settings)]:
        terminal.say(line)
