"""`flax-mnist sweep`."""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from flax_mnist.axes import Axes
from flax_mnist.cli import flags
from flax_mnist.cli.flags import DataDir, Devices, Machine, Settings, Switch, by_default, optional
from flax_mnist.config import CheckpointPolicy, Config, DatasetName
from flax_mnist.data import default_dir
from flax_mnist.errors import FlaxMnistError, RequestError
from flax_mnist.show import terminal, text
from flax_mnist.store.run_folder import BEST
from flax_mnist.store.sweep_folder import Setting, SweepRecord, outcome_line

if TYPE_CHECKING:
    from flax_mnist.devices.place import Place


@dataclasses.dataclass(frozen=True)
class Common(Settings):
    """What all members have in common."""

    batch_size: tyro.conf.Suppress[tyro.conf.Fixed[int]] = Config.batch_size
    learning_rate: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.learning_rate
    momentum: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.momentum
    seed: int = Config.seed
    """The first of the seeds."""
    validation: int = Config.validation
    """Training images that each seed holds out. The best member, and of each member the best epoch,
    are then chosen by the loss on them, and not by the test images."""
    patience: tyro.conf.Suppress[tyro.conf.Fixed[int]] = Config.patience
    until_accuracy: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.until_accuracy


@dataclasses.dataclass(frozen=True)
class SpreadDevices(Devices):
    """Devices and processes over which the members are spread."""

    num_devices: Annotated[int | None, by_default("N", "all accelerators; a CPU's cores")] = None
    """Devices of each process to train on."""


@dataclasses.dataclass(frozen=True)
class Sweep:
    """Train every combination of settings with every seed, many at once.

    Each member is what `train` makes of the same settings.

    The best member of the setting with the lowest mean loss is kept as a run.

    Examples::

        flax-mnist sweep --lr 0.003 0.01 --momenta 0 0.9 --seeds 4 --validation 5000
        flax-mnist sweep --networks 128-64 512 --batch-sizes 32 64 --run-dir runs/s
        flax-mnist sweep --resume --run-dir runs/s
    """

    learning_rates: tuple[float, ...] = Axes.learning_rates
    """Step sizes; with a schedule the largest ones."""
    momenta: tuple[float, ...] = Axes.momenta
    """Momenta of SGD, in [0, 1)."""
    batch_sizes: tuple[int, ...] = Axes.batch_sizes
    """Images a step."""
    networks: Annotated[tuple[str, ...], optional("N-N ...")] = ()
    """Networks, each by its hidden sizes, such as 128-64; without it the one of --hidden-sizes."""
    seeds: int = Axes.seeds
    """How many."""
    config: Common = dataclasses.field(default_factory=Common)
    dataset: DatasetName = "auto"
    """Images to train on; auto is mnist where it can be had, otherwise synthetic."""
    data_dir: DataDir = dataclasses.field(default_factory=default_dir.named)
    """Folder with the images, or a file of them: the four IDX files, mnist.npz, CSV, Parquet, or a
    tensorflow-datasets folder."""
    run_dir: Annotated[Path | None, by_default("DIR", "runs/sweep-<dataset>-<timestamp>")] = None
    """Folder to write to."""
    resume: Switch = False
    """Go on with the sweep in --run-dir from its newest checkpoint, with its own settings. The
    result is that of a sweep never interrupted, on a CPU bit for bit."""
    checkpoint_every: Annotated[str, tyro.conf.arg(metavar="N|Nsteps")] = "5"
    """Epochs, or steps, between checkpoints at most, besides the one after each group; 0 is none
    besides."""
    group_size: Annotated[int | None, by_default("N", "64 a CPU core, 256 a GPU or TPU core")] = (
        None
    )
    """Members that are trained at a time, at most. By itself fewer where memory is short."""
    json: Switch = False
    """Print one JSON object a setting, that of outcomes.jsonl, and nothing else."""
    devices: SpreadDevices = dataclasses.field(default_factory=SpreadDevices)
    machine: Machine = dataclasses.field(default_factory=Machine)

    def __post_init__(self) -> None:
        if self.networks and self.config.hidden_sizes != Config.hidden_sizes:
            raise RequestError("--networks and --hidden-sizes: choose one.")
        CheckpointPolicy(self.checkpoint_every)  # refuses what is none

    def run(self, argv: Sequence[str]) -> None:
        from flax_mnist.devices import processes

        if self.resume and self.run_dir is None:
            raise RequestError("--resume needs the --run-dir of the sweep to go on with.")
        with processes.joined(self.devices.peers), terminal.warnings_at_both_ends():
            command = self._repeating(argv, self.run_dir) if self.resume and self.run_dir else self
            command.train()

    def _repeating(self, argv: Sequence[str], old: Path) -> Sweep:
        """With the flags of an old sweep: defaults of those that are not given now."""
        from flax_mnist.devices import memory, processes, runtime
        from flax_mnist.sweeps.sweeping import asked_of

        if self.devices.peers:
            keeps_programs = not self.machine.no_compilation_cache
            count = self.devices.num_devices or memory.cores()
            runtime.start_devices(self.machine.device, keeps_programs, count)
        with processes.watch_others():
            default = flags_of(asked_of(old))
        command: Sweep = flags.parse(Sweep, "flax-mnist sweep", argv[1:], default=default)
        return command

    def train(self) -> None:
        from flax_mnist.devices import processes
        from flax_mnist.runs import signals
        from flax_mnist.sweeps.sweeping import sweep
        from flax_mnist.sweeps.telling import SweepLines

        swept = sweep(
            Config(**dataclasses.asdict(self.config)),
            self.axes,
            self.dataset,
            self.run_dir,
            data_dir=self.data_dir,
            resume=self.resume,
            checkpoints=CheckpointPolicy(self.checkpoint_every),
            group_size=self.group_size,
            observer=None if self.json else SweepLines(),
            place=self._place(),
            listening=signals.listening,
        )
        if processes.is_first():
            say_outcomes(swept.settings, self.json)
        if swept.best is None:
            raise FlaxMnistError(
                "Every member diverged: the steps are too large. "
                f"Try --learning-rates below {min(self.learning_rates):g}."
            )
        if processes.is_first() and not self.json:
            terminal.say(f"Saved in {swept.folder}, the best member in {swept.folder / BEST}")

    @property
    def axes(self) -> Axes:
        """What the members differ in."""
        networks = tuple(map(_network, self.networks)) or (self.config.hidden_sizes,)
        rates, sizes = self.learning_rates, self.batch_sizes
        return Axes(rates, self.momenta, sizes, networks, self.seeds)

    def _place(self) -> Place:
        """Where it is trained."""
        from flax_mnist.devices.place import Place

        cache = not self.machine.no_compilation_cache
        count, peers = self.devices.num_devices, self.devices.peers
        return Place(self.machine.device, count, peers, compilation_cache=cache)


def _network(said: str) -> tuple[int, ...]:
    """The hidden sizes in `128-64`."""
    try:
        return tuple(map(int, said.split("-")))
    except ValueError as error:
        raise RequestError(f"networks: {said!r} is none; write 128-64.") from error


def flags_of(asked: SweepRecord) -> Sweep:
    """What would start the sweep again."""
    axes, record = asked.axes, asked.record
    policy = record.checkpoints or CheckpointPolicy()
    one, *others = axes.networks
    settings = dataclasses.asdict(record.config) | {"hidden_sizes": Config.hidden_sizes}
    return Sweep(
        axes.learning_rates,
        axes.momenta,
        axes.batch_sizes,
        tuple("-".join(map(str, network)) for network in (one, *others)),
        axes.seeds,
        Common(**settings),
        record.dataset,
        record.data_dir,
        checkpoint_every=policy.every,
    )


def say_outcomes(settings: Sequence[Setting], json: bool) -> None:
    """Prints what came of the settings of a sweep: a table, or an object each."""
    for line in map(outcome_line, settings) if json else [text.sweep_table(settings)]:
        terminal.say(line)
