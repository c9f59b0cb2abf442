"""`flax-mnist train`."""

from __future__ import annotations

import dataclasses
import importlib.util
import shlex
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from flax_mnist.cli import flags
from flax_mnist.cli.flags import (
    DataDir,
    Devices,
    Machine,
    OptionalDir,
    Settings,
    Switch,
    by_default,
    optional,
)
from flax_mnist.config import CheckpointPolicy, Config, DatasetName
from flax_mnist.data import default_dir
from flax_mnist.errors import FlaxMnistError, RequestError
from flax_mnist.show import terminal, text

if TYPE_CHECKING:
    from flax_mnist.devices.place import Place
    from flax_mnist.runs.observers import Observer
    from flax_mnist.runs.training import Training
    from flax_mnist.store.record import Record


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """What is kept of a run, so that it can go on."""

    resume: Switch = False
    """Go on with the run in --run-dir from its newest checkpoint, with its own settings. The result
    is that of a run never interrupted, bit for bit. --epochs extends it."""
    checkpoint_every: Annotated[str, tyro.conf.arg(metavar="N|Nsteps")] = CheckpointPolicy.every
    """Epochs, or steps, between checkpoints at most; 0 is only when stopped and at the end."""
    keep: int = CheckpointPolicy.keep
    """Checkpoints that remain, the newest ones."""

    def __post_init__(self) -> None:
        _ = self.policy  # refuses what is none

    @property
    def policy(self) -> CheckpointPolicy:
        """The last two."""
        return CheckpointPolicy(self.checkpoint_every, self.keep)


@dataclasses.dataclass(frozen=True)
class Output:
    """What is shown and written besides."""

    quiet: Switch = False
    """Print nothing but warnings and errors."""
    json: Switch = False
    """Print one JSON object an epoch, that of metrics.jsonl, and nothing else."""
    tensorboard: Switch = False
    """Write TensorBoard's event files into the run folder's tensorboard."""
    gif: Switch = False
    """Draw the first layer's weights after each epoch, from where this process begins, into
    weights.gif in the run folder, if the run comes to its end."""
    profile: OptionalDir = None
    """Write a trace of JAX's profiler there, of the second epoch or the only one."""

    def __post_init__(self) -> None:
        if self.quiet and self.json:
            raise RequestError("--quiet and --json: choose one.")
        if self.tensorboard and not importlib.util.find_spec("tensorboardX"):
            raise RequestError(
                "--tensorboard needs tensorboardX: pip install 'flax-mnist[tensorboard]'."
            )
        if self.profile and self.profile.exists() and not self.profile.is_dir():
            raise RequestError(f"--profile {self.profile}: is a file, and must be a folder.")

    @property
    def is_for_people(self) -> bool:
        """Whether what happens is told in words."""
        return not (self.quiet or self.json)

    def written(self, folder: Path) -> Iterator[str]:
        """Where besides the run folder's own files something is, and how to look at it."""
        if self.tensorboard:
            yield f"Curves: tensorboard --logdir {shlex.quote(str(folder / 'tensorboard'))}"
        if self.gif:
            yield f"Weights: {folder / 'weights.gif'}"
        if self.profile:
            yield f"Profile: xprof --logdir {shlex.quote(str(self.profile))} (pip install xprof)"

    def observers(self) -> list[Observer]:
        """Those that show and write it."""
        from flax_mnist.runs import observers, telling

        chosen: list[Observer] = [telling.ProgressBar()] if self.is_for_people else []
        if self.tensorboard:
            chosen.append(observers.TensorBoard())
        if self.gif:
            chosen.append(observers.WeightsGif())
        if self.profile:
            self.profile.mkdir(parents=True, exist_ok=True)  # JAX would fail after the epoch
            chosen.append(observers.Profile(self.profile))
        if self.json:
            chosen.append(telling.JsonLines())
        return [*chosen, telling.Lines()] if self.is_for_people else chosen


@dataclasses.dataclass(frozen=True)
class Asked(Settings):
    """What is asked for now; it may fit only beside the settings of an old run."""

    def require_fit(self) -> None:
        """They are held against each other when all are known."""


@dataclasses.dataclass(frozen=True)
class Train:
    """Train the network and keep it in a run folder.

    Examples::

        flax-mnist train --dataset mnist
        flax-mnist train --lr 0.03 --momentum 0.9 --epochs 10 --run-dir runs/a
        flax-mnist train --resume --run-dir runs/a --epochs 20
    """

    settings: Asked = dataclasses.field(default_factory=Asked)
    dataset: DatasetName = "auto"
    """Images to train on; auto is mnist where it can be had, otherwise synthetic."""
    data_dir: DataDir = dataclasses.field(default_factory=default_dir.named)
    """Folder with the images, or a file of them: the four IDX files, mnist.npz, CSV, Parquet, or a
    tensorflow-datasets folder."""
    run_dir: Annotated[Path | None, by_default("DIR", "runs/<dataset>-<timestamp>")] = None
    """Folder to write to."""
    init_from: Annotated[Path | None, optional("RUN_DIR|FILE")] = None
    """Begin with the weights of a run or a file, whatever `evaluate` reads, not with the seed's."""
    like: Annotated[Path | None, tyro.conf.arg(name="config"), optional("config.json")] = None
    """Take settings and images from this file of an old run; further flags override them."""
    dry_run: Switch = False
    """Train for two steps and write no files, unless the images must first be fetched or drawn."""
    checkpoints: Checkpoints = dataclasses.field(default_factory=Checkpoints)
    output: Output = dataclasses.field(default_factory=Output)
    devices: Devices = dataclasses.field(default_factory=Devices)
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self, argv: Sequence[str]) -> None:
        from flax_mnist.devices import processes

        if self.checkpoints.resume and self.like:
            raise RequestError("--resume goes on with the run's own settings: leave --config out.")
        if self.checkpoints.resume and self.run_dir is None:
            raise RequestError("--resume needs the --run-dir of the run to go on with.")
        old = self.run_dir if self.checkpoints.resume else self.like
        with processes.joined(self.devices.peers), terminal.warnings_at_both_ends():
            command = self if old is None else parse(argv, self._repeating(old))
            command.try_two_steps() if self.dry_run else command.train()

    def _repeating(self, old: Path) -> Train:
        """The flags of an old run: defaults of those that are not given now."""
        from flax_mnist.devices import processes, runtime
        from flax_mnist.runs.training import recorded

        if self.devices.peers:
            keeps_programs = not self.machine.no_compilation_cache
            count = self.devices.num_devices or 1
            runtime.start_devices(self.machine.device, keeps_programs, count)
        with processes.watch_others():
            record = recorded(old)
        # Others would round differently. A run that goes on takes what there is.
        takes_all = self.checkpoints.resume or self.devices.peers
        flags = flags_of(record, None if takes_all else record.devices)
        return dataclasses.replace(flags, init_from=None) if self.checkpoints.resume else flags

    def train(self) -> None:
        from flax_mnist.devices import processes
        from flax_mnist.runs import signals
        from flax_mnist.runs.training import train

        trained = train(
            self.config,
            self.dataset,
            self.run_dir,
            data_dir=self.data_dir,
            resume=self.checkpoints.resume,
            init_from=self.init_from,
            checkpoints=self.checkpoints.policy,
            observers=self.output.observers(),
            place=self._place(),
            listening=signals.listening,
        )
        if self.output.is_for_people and processes.is_first():
            for line in self.output.written(trained.folder) if trained.metrics else []:
                terminal.say(line)
            if not trained.metrics:
                terminal.say(_finished(trained))
        wanted = trained.config.until_accuracy
        best = max(row.test_accuracy for row in trained.history)
        if best < wanted:
            raise FlaxMnistError(
                f"until-accuracy {wanted:g} was not reached, but {best:.6g}. "
                f"{trained.folder} is kept; --resume with more --epochs goes on with it."
            )

    def try_two_steps(self) -> None:
        from flax_mnist.data.dataset import load_dataset
        from flax_mnist.devices import place, processes, runtime
        from flax_mnist.runs.training import dry_run

        with place.entered(self._place()._replace(compilation_cache=False)) as (device, mesh):
            config = self.config
            runtime.set_precision(config)
            dataset = load_dataset(self.dataset, self.data_dir)
            is_told = self.output.is_for_people and processes.is_first()
            if is_told:
                terminal.say(text.header(config, dataset, device))
            metrics = dry_run(config, dataset, mesh, self.init_from)
            if is_told:
                terminal.say(f"Dry run, two steps:\n{text.epoch_line(metrics, 1)}")

    @property
    def config(self) -> Config:
        """The settings, which fit each other."""
        return Config(**dataclasses.asdict(self.settings))

    def _place(self) -> Place:
        """Where it is trained."""
        from flax_mnist.devices.place import Place

        cache = not self.machine.no_compilation_cache
        count, peers = self.devices.num_devices, self.devices.peers
        return Place(self.machine.device, count, peers, compilation_cache=cache)


def _finished(trained: Training) -> str:
    """What there is to say of a run that was trained already."""
    from flax_mnist.runs.stopping import why_over

    if why := why_over(trained.config, trained.history):
        return f"{trained.folder} is finished. {why}"
    return (
        f"{trained.folder} is finished: it has {trained.epochs} epochs. "
        "A higher --epochs trains it further."
    )


def parse(argv: Sequence[str], default: Train) -> Train:
    """The command of a command line, with other defaults than usual."""
    command: Train = flags.parse(Train, "flax-mnist train", argv[1:], default=default)
    return command


def flags_of(record: Record, num_devices: int | None) -> Train:
    """What would start the run of the record again."""
    policy = record.checkpoints or CheckpointPolicy()
    kept = Checkpoints(False, policy.every, policy.keep)
    devices = Devices(num_devices=num_devices)
    first = Path(record.init_from["path"]) if record.init_from else None
    return Train(
        Asked(**dataclasses.asdict(record.config)),
        record.dataset,
        record.data_dir,
        init_from=first,
        checkpoints=kept,
        devices=devices,
    )
