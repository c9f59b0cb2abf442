"""`flax-mnist sweep`."""

from __future__ import annotations

import dataclasses
import json
import math
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from flax_mnist.cli.flags import DataDir, Machine, directory
from flax_mnist.cli.train import draw_curves
from flax_mnist.config import Config, DatasetName
from flax_mnist.errors import FlaxMnistError, RequestError
from flax_mnist.show import terminal, text

if TYPE_CHECKING:
    import jax

    from flax_mnist.data.dataset import Dataset
    from flax_mnist.model import Params
    from flax_mnist.runs.sweeping import Rows
    from flax_mnist.sweep import Outcome


MAX_SEEDS = 100_000
"""More than this is taken for a slip: they would train for a day."""

ROWS, PICTURE, BEST = "sweep.jsonl", "loss.png", "best"


@dataclasses.dataclass(frozen=True)
class Common(Config):
    """What all members have in common."""

    learning_rate: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.learning_rate
    momentum: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.momentum
    seed: int = Config.seed
    """The first of the seeds."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Train every combination of learning rates, momenta and seeds at once.

    Each member is what `train` makes of the same settings. The best setting is the one with the
    lowest mean test loss, and of its members the best one is kept as a run folder.
    """

    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    """Step sizes of SGD."""
    momenta: tuple[float, ...] = (0.0,)
    """Momenta of SGD, in [0, 1)."""
    seeds: int = 8
    """How many."""
    config: Common = dataclasses.field(default_factory=Common)
    dataset: DatasetName = "auto"
    """Images to train on; auto is mnist where it can be had, otherwise synthetic."""
    data_dir: DataDir = None
    """Folder with the four IDX files, gzipped or not, or a tensorflow-datasets folder."""
    run_dir: Annotated[Path | None, directory("runs/sweep-<dataset>-<timestamp>")] = None
    """Folder to write to."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Trains, with a line for each epoch and a table at the end."""
        from flax_mnist import sweep
        from flax_mnist.data.dataset import load_dataset
        from flax_mnist.devices.memory import cpu_devices
        from flax_mnist.show import figures
        from flax_mnist.show.curves import draw_sweep
        from flax_mnist.store import run_folder

        config = Config(**dataclasses.asdict(self.config))
        if self.seeds > MAX_SEEDS:
            raise RequestError(f"seeds is {self.seeds:,}; it must be at most {MAX_SEEDS:,}.")
        members = sweep.combinations(config, self.learning_rates, self.momenta, self.seeds)
        device = self.machine.start(config, cpu_devices(len(members)))
        with terminal.warnings_at_both_ends():
            dataset = load_dataset(self.dataset, self.data_dir)
            path = run_folder.create(self.run_dir, f"sweep-{dataset.name}")
            with run_folder.only_writer(path):
                run_folder.require_no_run(path)  # now that nobody else can make one
                rows, outcomes = self._train(members, dataset, device, path)
                best = min(outcomes, key=lambda outcome: outcome.rank)
                terminal.say(text.sweep_table(outcomes, best, dataset.test.labels))
                if best.best is None:
                    raise FlaxMnistError(
                        "Every member diverged: the steps are too large. "
                        f"Try --learning-rates below {min(self.learning_rates):g}."
                    )
                _save_best(path / BEST, best.best, rows, self, dataset, device)
                figures.save(draw_sweep(rows), path / PICTURE)
                terminal.say(f"Saved in {path}, the best member in {path / BEST}")

    def _train(
        self, members: Sequence[Config], dataset: Dataset, device: jax.Device, path: Path
    ) -> tuple[Rows, list[Outcome]]:
        import jax

        from flax_mnist import sweep
        from flax_mnist.data.order import steps_per_epoch
        from flax_mnist.devices.memory import make_plan, memory
        from flax_mnist.runs import sweeping

        devices = jax.local_devices(backend=device.platform)
        plan = make_plan(members, dataset, devices, memory(device))
        megabytes = plan.bytes / 1e6
        groups, spread, kind = len(plan.groups), plan.mesh.size, device.device_kind
        terminal.say(text.sweep_header(dataset, members, groups, spread, kind, megabytes))
        start = time.perf_counter()
        programs = sweeping.compile_programs(plan, dataset, together=device.platform != "cpu")
        terminal.say(f"Compiled in {time.perf_counter() - start:.2f} s")
        outcomes = sweep.outcomes_of(members)
        rows: Rows = []
        steps = steps_per_epoch(members[0], len(dataset.train.labels))
        with terminal.progress_bar(len(members) * members[0].epochs * steps, 0) as advance:
            for epoch in sweeping.fit(plan, dataset, programs):
                rows += epoch.rows
                _append(path / ROWS, epoch.rows, dataset.name)
                sweep.collect(outcomes, epoch)
                metrics = [metrics for _, metrics in epoch.rows]
                terminal.say(text.sweep_line(epoch.group, groups, plan.template.epochs, metrics))
                advance(len(rows) * steps, None)
        return rows, list(outcomes.values())


def _append(file: Path, rows: Rows, dataset_name: str) -> None:
    """Adds a line for each member: its setting and its metrics, which are null once it diverged.

    `seconds` is its share of the time in which all train, `images_per_second` counts all images.
    """
    lines = []
    for config, metrics in rows:
        setting = {name: getattr(config, name) for name in ("learning_rate", "momentum", "seed")}
        values = metrics._asdict() | {"diverged": math.isnan(metrics.test_loss)}
        finite = {name: None if math.isnan(value) else value for name, value in values.items()}
        lines.append(json.dumps(setting | finite | {"dataset": dataset_name}) + "\n")
    with file.open("a", encoding="utf-8") as stream:
        stream.write("".join(lines))


def _save_best(
    path: Path,
    best: tuple[Config, Params],
    rows: Rows,
    command: Sweep,
    dataset: Dataset,
    device: jax.Device,
) -> None:
    """Keeps a member as `train` keeps a run, but for its checkpoints."""
    from flax_mnist.store import run_folder
    from flax_mnist.store.metrics import append_metrics
    from flax_mnist.store.record import Checkpoints, Record, write_config
    from flax_mnist.store.weights import save_weights

    config, params = best
    run_folder.create(path, dataset.name)
    record = Record(
        config,
        dataset.name,
        dataset.source,
        command.data_dir,
        dataset.class_names,
        Checkpoints("1", 3),
    )
    write_config(path, record, device)
    for metrics in (metrics for member, metrics in rows if member == config):
        append_metrics(path, metrics, dataset.name)
    save_weights(path / run_folder.WEIGHTS, params)
    draw_curves(path)
