"""`flax-mnist sweep`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from flax_mnist.cli.flags import DataDir, Machine, WeightDecay, by_default
from flax_mnist.config import Config, DatasetName
from flax_mnist.errors import FlaxMnistError
from flax_mnist.show import terminal, text


@dataclasses.dataclass(frozen=True)
class Common(Config):
    """What all members have in common."""

    learning_rate: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.learning_rate
    momentum: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.momentum
    weight_decay: WeightDecay = Config.weight_decay
    """Of adamw alone: each step shrinks all weights by it times the rate."""
    seed: int = Config.seed
    """The first of the seeds."""
    validation: tyro.conf.Suppress[tyro.conf.Fixed[int]] = Config.validation
    patience: tyro.conf.Suppress[tyro.conf.Fixed[int]] = Config.patience
    until_accuracy: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.until_accuracy


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Train every combination of learning rates, momenta and seeds at once.

    Each member is what `train` makes of the same settings. The best setting is the one with the
    lowest mean test loss, and of its members the best one is kept as a run folder.
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
    data_dir: DataDir = None
    """Folder with the images, or a file of them: the four IDX files, mnist.npz, CSV, Parquet, or a
    tensorflow-datasets folder."""
    run_dir: Annotated[Path | None, by_default("DIR", "runs/sweep-<dataset>-<timestamp>")] = None
    """Folder to write to."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        from flax_mnist.runs.sweeping import BEST, sweep
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
                observer=SweepLines(),
                device=self.machine.device,
                compilation_cache=not self.machine.no_compilation_cache,
            )
            terminal.say(text.sweep_table(swept.outcomes, swept.best, swept.dataset.test.labels))
            if swept.best.best is None:
                raise FlaxMnistError(
                    "Every member diverged: the steps are too large. "
                    f"Try --learning-rates below {min(self.learning_rates):g}."
                )
            terminal.say(f"Saved in {swept.folder}, the best member in {swept.folder / BEST}")
