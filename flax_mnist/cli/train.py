"""`flax-mnist train`."""

from __future__ import annotations

import contextlib
import dataclasses
import functools
import importlib.util
import math
import re
import shlex
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from flax_mnist.cli.flags import Cluster, DataDir, Machine, Switch, directory
from flax_mnist.config import Config, DatasetName
from flax_mnist.errors import RequestError, StoppedError
from flax_mnist.runs import signals
from flax_mnist.show import terminal, text

if TYPE_CHECKING:
    import jax
    from jax.sharding import Mesh

    from flax_mnist.data.dataset import Dataset
    from flax_mnist.runs.observers import Observer
    from flax_mnist.store.checkpoint import Progress
    from flax_mnist.store.record import Record


@dataclasses.dataclass(frozen=True)
class Checkpoints:
    """What is kept of a run, so that it can go on."""

    resume: Switch = False
    """Go on with the run in --run-dir from its newest checkpoint, with its own settings. The result
    is that of a run never interrupted, bit for bit. --epochs extends it."""
    checkpoint_every: Annotated[str, tyro.conf.arg(metavar="N|Nsteps")] = "1"
    """Epochs, or steps, between checkpoints at most; 0 is only when stopped and at the end."""
    keep: int = 3
    """Checkpoints that remain, the newest ones."""

    def __post_init__(self) -> None:
        self.interval()
        if self.keep < 1:
            raise RequestError(f"keep is {self.keep}; it must be at least 1.")

    def interval(self) -> tuple[int, str]:
        """What --checkpoint-every says: a count, and of what."""
        match = re.fullmatch(r"(\d{1,9}) ?(step|epoch)?s?", self.checkpoint_every)
        if match is None:
            raise RequestError(
                f"checkpoint-every is {self.checkpoint_every!r}; it must be a number of epochs, "
                "such as 2, or of steps, such as 100steps."
            )
        return int(match[1]), match[2] or "epoch"

    def steps(self, steps_per_epoch: int) -> float:
        """At most, between two checkpoints; infinite, if there are to be none."""
        count, unit = self.interval()
        return (count if unit == "step" else count * steps_per_epoch) or math.inf


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
    profile: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
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


@dataclasses.dataclass(frozen=True)
class Train:
    """Train the network and keep it in a run folder."""

    config: Config = dataclasses.field(default_factory=Config)
    dataset: DatasetName = "auto"
    """Images to train on; auto is mnist where it can be had, otherwise synthetic."""
    data_dir: DataDir = None
    """Folder with the four IDX files, gzipped or not, or a tensorflow-datasets folder."""
    run_dir: Annotated[Path | None, directory("runs/<dataset>-<timestamp>")] = None
    """Folder to write to."""
    like: Annotated[Path | None, tyro.conf.arg(name="config", metavar="config.json")] = None
    """Take settings and images from this file of an old run; further flags override them."""
    dry_run: Switch = False
    """Train for two steps and write no files, unless the images must first be fetched or drawn."""
    checkpoints: Checkpoints = dataclasses.field(default_factory=Checkpoints)
    output: Output = dataclasses.field(default_factory=Output)
    cluster: Cluster = dataclasses.field(default_factory=Cluster)
    machine: Machine = dataclasses.field(default_factory=Machine)

    @property
    def has_own_defaults(self) -> bool:
        """Whether a file decides what flags are where they are not given."""
        return self.checkpoints.resume or self.like is not None

    def own_defaults(self) -> Train:
        """The flags as a run was started with, whose settings these shall have."""
        if self.checkpoints.resume and self.like:
            raise RequestError("--resume goes on with the run's own settings: leave --config out.")
        path = self.run_dir if self.checkpoints.resume else self.like
        if path is None:
            raise RequestError("--resume needs the --run-dir of the run to go on with.")
        record = self._read_config(path)
        if record.checkpoints is None:
            raise RequestError(f"{path}: was not trained here: only its weights are known.")
        every, keep = record.checkpoints
        # Others would round differently. A run that goes on takes what there is.
        devices = None if self.checkpoints.resume or self.cluster.is_joint else record.devices
        return Train(
            config=record.config,
            dataset=record.dataset,
            data_dir=record.data_dir,
            checkpoints=Checkpoints(False, every, keep),
            cluster=Cluster(num_devices=devices),
        )

    def _read_config(self, path: Path) -> Record:
        """The record of an old run, in every process that of the first: it has the folder."""
        from flax_mnist.store.record import parse_config, read_config, read_config_text

        if not self.cluster.is_joint:
            return read_config(path)
        from flax_mnist.devices import agreement, processes

        with processes.whoever_fails_leaves():
            self._start()
            with processes.watch_others(self.cluster.peer_timeout):
                text = agreement.broadcast_text(lambda: read_config_text(path))
        record = parse_config(text, path)
        if record.config.deterministic and not self.config.deterministic:
            # JAX is running: it is too late to tell it from what was read.
            raise RequestError(f"{path}: was --deterministic; several processes must be told so.")
        return record

    def _start(self) -> jax.Device:
        """Meets the other processes, and makes JAX's settings."""
        from flax_mnist.devices import processes

        self.cluster.join()
        machine = self.machine
        if self.dry_run:
            machine = dataclasses.replace(machine, no_compilation_cache=True)
        device = machine.start(self.config, self.cluster.num_devices or 1)
        processes.require_alike()
        return device

    def run(self) -> None:
        """Trains, with a line for each epoch."""
        from flax_mnist.devices import processes

        with processes.whoever_fails_leaves():
            self._run()
            processes.shutdown()

    def _run(self) -> None:
        from flax_mnist.data.dataset import load_dataset
        from flax_mnist.devices import agreement, processes, sharding
        from flax_mnist.store import run_folder

        device = self._start()
        if self.output.profile:  # JAX would tell after the epoch, and of C++
            self.output.profile.mkdir(parents=True, exist_ok=True)
        mesh = sharding.make_mesh(sharding.choose_devices(device, self.cluster.num_devices))
        with processes.watch_others(self.cluster.peer_timeout):
            agreement.barrier()
            if self.checkpoints.resume:
                _require_the_runs_settings(self)
            elif self.run_dir is not None:
                folder = self.run_dir
                agreement.on_first(
                    lambda: run_folder.require_no_run(folder)
                )  # before data are loaded
        with terminal.warnings_at_both_ends():
            processes.silence_others()
            with processes.watch_others(2 * self.cluster.peer_timeout):
                dataset = load_dataset(self.dataset, self.data_dir)
                agreement.barrier()
            with contextlib.ExitStack() as stack:
                renew = stack.enter_context(processes.watch_others(self.cluster.peer_timeout))
                if self.dry_run:
                    return self._try(dataset, device)
                path = Path(
                    agreement.broadcast_text(lambda: str(self._folder(dataset.name, stack)))
                )
                background = stack.enter_context(ThreadPoolExecutor(max_workers=1))
                # Begun when it is first asked for.
                identity = functools.cache(
                    lambda: background.submit(_identity, self.config, dataset)
                )
                progress = self._first_progress(path, identity, mesh)
                renew()
                if progress.epoch >= self.config.epochs:
                    self._tell(
                        f"{path} is finished: it has {progress.epoch} epochs. "
                        "A higher --epochs trains it further."
                    )
                    return None
                if processes.is_first():
                    self._write_config(path, dataset, device, mesh)
                self._tell(text.header(self.config, dataset, progress.state.params, device))
                self._train(path, dataset, progress, identity, renew, mesh)
                self._tell(f"Saved in {path}")
        return None

    def _folder(self, dataset_name: str, stack: contextlib.ExitStack) -> Path:
        """The run folder, with nobody else writing there until the stack is left."""
        from flax_mnist.store import run_folder

        path = run_folder.create(self.run_dir, dataset_name, self.checkpoints.resume)
        stack.enter_context(run_folder.only_writer(path))
        if not self.checkpoints.resume:
            run_folder.require_no_run(path)  # now that nobody else can make one
        return path

    def _tell(self, what: str) -> None:
        from flax_mnist.devices import processes

        if processes.is_first() and self.output.is_for_people:
            terminal.say(what)

    def _try(self, dataset: Dataset, device: jax.Device) -> None:
        """Two steps of the first epoch, and a look at two batches of the test images."""
        from flax_mnist.data.dataset import Split
        from flax_mnist.runs import loop

        config = dataclasses.replace(self.config, epochs=1)
        few = 2 * config.batch_size
        train_split, test_split = (
            Split(split.images[:few], split.labels[:few]) for split in (dataset.train, dataset.test)
        )
        small = dataset._replace(train=train_split, test=test_split)
        progress = loop.begin(config)
        self._tell(text.header(config, dataset, progress.state.params, device))
        run_chunk = loop.compile_chunks(config, progress, small.train, 2)
        for _, metrics in loop.fit(config, small, progress, run_chunk, 2):
            if metrics:
                self._tell(f"Dry run, two steps: {text.epoch_line(metrics, 1)}")

    def _first_progress(
        self, path: Path, identity: Callable[[], Future[dict[str, Any]]], mesh: Mesh | None
    ) -> Progress:
        """The beginning, or where the run in the folder stands: the same in all processes."""
        from flax_mnist.devices import agreement, processes, sharding
        from flax_mnist.runs import loop

        beginning = loop.begin(self.config)
        if processes.are_many():
            agreement.require_same(
                [identity().result(), self.config.epochs, self.checkpoints.checkpoint_every]
            )
        elif not self.checkpoints.resume:
            return beginning
        progress = agreement.broadcast(lambda: self._stand(path, beginning, identity), beginning)
        return progress._replace(
            state=sharding.replicate(progress.state, mesh),
            losses=sharding.replicate(progress.losses, mesh),
            epoch=int(progress.epoch),
            step=int(progress.step),
            seconds=float(progress.seconds),
        )

    def _stand(
        self, path: Path, beginning: Progress, identity: Callable[[], Future[dict[str, Any]]]
    ) -> Progress:
        """Where the run in the folder stands; its metrics end there too."""
        from flax_mnist.store import checkpoint
        from flax_mnist.store.metrics import cut_metrics

        if not self.checkpoints.resume:
            return beginning
        progress = checkpoint.restore(path, beginning, identity().result())
        if progress is None:
            self._tell(f"{path} has no checkpoint yet: starting from the beginning.")
            progress = beginning
        cut_metrics(path, progress.epoch)
        return progress

    def _write_config(
        self, path: Path, dataset: Dataset, device: jax.Device, mesh: Mesh | None
    ) -> None:
        from flax_mnist.store.record import Checkpoints, Record, write_config

        kept = Checkpoints(self.checkpoints.checkpoint_every, self.checkpoints.keep)
        record = Record(
            self.config,
            dataset.name,
            dataset.source,
            self.data_dir,
            dataset.class_names,
            kept,
        )
        write_config(path, record, device, mesh)

    def _train(
        self,
        path: Path,
        dataset: Dataset,
        first: Progress,
        identity: Callable[[], Future[dict[str, Any]]],
        renew: Callable[[], None],
        mesh: Mesh | None,
    ) -> None:
        from flax_mnist.data.order import steps_per_epoch
        from flax_mnist.devices import agreement, processes
        from flax_mnist.runs import loop

        config, is_first = self.config, processes.is_first()
        n = len(dataset.train.labels)
        steps = steps_per_epoch(config, n)
        step = saved = first.epoch * steps + first.step
        if step:
            self._tell(f"Going on after step {step:,} of {config.epochs * steps:,}")
        every = self.checkpoints.steps(steps)
        chunk = loop.chunk_steps(config, n, every, mesh)
        start = time.perf_counter()
        run_chunk = loop.compile_chunks(config, first, dataset.train, chunk, mesh)
        renew()
        self._tell(f"Compiled in {time.perf_counter() - start:.2f} s")
        # Before, it would slow the start; while XLA trains, Python has nothing else to do.
        identity()
        with contextlib.ExitStack() as stack:
            observers = self._observers(path, dataset, first, stack) if is_first else []
            is_shown = is_first and self.output.is_for_people
            bar = terminal.progress_bar(config.epochs * steps, step, is_shown)
            advance = stack.enter_context(bar)
            received = stack.enter_context(signals.patience())
            save: Callable[[int, Progress], None] | None = None
            for progress, metrics in loop.fit(config, dataset, first, run_chunk, chunk, mesh):
                renew()
                step = progress.epoch * steps + progress.step
                if metrics:
                    for observe in observers:
                        observe(progress, metrics)
                advance(step, metrics)
                # A signal to one process stops all, after the same step.
                signum, done = agreement.largest(received() or 0), progress.epoch == config.epochs
                next_step = step + min(chunk, steps - progress.step)
                if is_first and (signum or done or next_step > saved + every):
                    from flax_mnist.store import checkpoint

                    save = save or stack.enter_context(
                        checkpoint.saving(path, identity().result(), self.checkpoints.keep)
                    )
                    save(step, progress)
                    saved = step
                if signum:
                    if is_first:
                        draw_curves(path)
                    raise _stopped(signum, f"{step:,} of {config.epochs * steps:,}", path)
        if is_first:
            draw_curves(path)

    def _observers(
        self, path: Path, dataset: Dataset, first: Progress, stack: contextlib.ExitStack
    ) -> list[Observer]:
        from flax_mnist.runs import observers

        chosen = [observers.folder(path, dataset.name)]
        if self.output.json:
            chosen.append(observers.json_lines(dataset.name))
        elif not self.output.quiet:
            chosen.append(observers.lines(self.config))
        if self.output.tensorboard:
            chosen.append(stack.enter_context(observers.tensorboard(path / "tensorboard")))
        if self.output.gif:
            chosen.append(stack.enter_context(observers.weights_gif(path / "weights.gif", first)))
        if self.output.profile:
            profile = observers.profile(self.output.profile, first.epoch, self.config.epochs)
            chosen.append(stack.enter_context(profile))
        return chosen


def _stopped(signum: int, step: str, path: Path) -> StoppedError:
    """What a signal ends a run with."""
    resume = f"flax-mnist train --resume --run-dir {shlex.quote(str(path))}"
    what = f"{signals.word(signum)} after step {step}. Go on with: {resume}"
    return StoppedError(what, 128 + signum)


def draw_curves(path: Path) -> None:
    """Draws what is known of the run in a folder, once it has an epoch."""
    from flax_mnist.show import figures
    from flax_mnist.show.curves import draw_curves
    from flax_mnist.store import run_folder
    from flax_mnist.store.metrics import read_metrics

    rows = read_metrics(path) if (path / run_folder.METRICS).exists() else []
    if rows:
        figures.save(draw_curves({path.name: rows}), path / run_folder.CURVES)


def _identity(config: Config, dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint belongs to; the imports bring Orbax and matplotlib, which take a while."""
    from flax_mnist.store import checkpoint

    return checkpoint.identity(config, dataset)


def _require_the_runs_settings(command: Train) -> None:
    """Refuses to resume with settings that are not the run's."""
    then, now = (
        dataclasses.asdict(flags.config) | {"dataset": flags.dataset, "epochs": None}
        for flags in (command.own_defaults(), command)
    )
    differences = [
        f"{name.replace('_', '-')} is {now[name]}, the run's is {then[name]}"
        for name in now
        if now[name] != then[name]
    ]
    if differences:
        raise RequestError(
            f"{command.run_dir}: cannot go on with other settings: {'; '.join(differences)}."
        )
