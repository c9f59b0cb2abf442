"""A training from its beginning to its end: what `flax-mnist train` does, as a function."""

import contextlib
import dataclasses
import shlex
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from flax_mnist.config import CheckpointPolicy, Config, DatasetName
from flax_mnist.data.dataset import Dataset, Split, load_dataset
from flax_mnist.data.order import steps_per_epoch
from flax_mnist.devices import agreement, processes, runtime, sharding
from flax_mnist.devices.environment import describe
from flax_mnist.devices.place import Place, entered
from flax_mnist.errors import RequestError, StoppedError
from flax_mnist.model import Params
from flax_mnist.runs import loop, signals
from flax_mnist.runs.observers import Ending, Folder, Observer, Start
from flax_mnist.store import checkpoint, run_folder
from flax_mnist.store.checkpoint import Progress
from flax_mnist.store.metrics import Metrics, cut_metrics
from flax_mnist.store.record import Record, parse_config, read_config_text, write_config


class Training(NamedTuple):
    """What a training came to."""

    folder: Path  #: The run folder, which holds it.
    config: Config
    epochs: int  #: How many the run has.
    metrics: list[Metrics]  #: Of the epochs that were trained now; none where the run had them all.
    params: Params  #: The parameters after the last epoch.


# What a new run takes where nothing is asked for.
_TUTORIAL = Record(Config(), "auto", "", None, (), CheckpointPolicy())


def train(
    config: Config | None = None,
    dataset: Dataset | DatasetName | None = None,
    run_dir: Path | str | None = None,
    *,
    data_dir: Path | str | None = None,
    resume: bool = False,
    checkpoints: CheckpointPolicy | None = None,
    observers: Sequence[Observer] = (),
    place: Place = Place(),
    patience: signals.Patience = signals.deaf,
) -> Training:
    """Trains a network and keeps it in a run folder, with metrics, weights and checkpoints.

    What is None is the tutorial's; with `resume` it is the run's, of which `epochs` may change.

    Args:
        config, dataset: the settings, and the images or their name.
        run_dir: the run folder; None is `runs/<dataset>-<timestamp>`.
        data_dir: see `load_dataset`.
        resume: go on with the run from its newest checkpoint that is whole. The result has the very
            bits of a run that was never interrupted.
        checkpoints: how often one is written, and how many remain.
        observers: are told what happens, in the first process.
        place: where it is trained. JAX's settings are afterwards what they were before.
        patience: `signals.patience` has a signal end it in good order, with a checkpoint, within
            about a second. By itself none is heard: an interrupted call leaves the last checkpoint.

    Raises:
        RequestError: what is asked for is wrong, or does not fit the run that is resumed.
        DataError: images, settings or metrics are damaged.
        StoppedError: a signal was heard.
        FlaxMnistError: a loss is not finite, no checkpoint is whole, a file cannot be written, the
            dataset cannot be had, or another process is gone.
    """
    folder = None if run_dir is None else Path(run_dir)
    with entered(place) as (device, mesh), contextlib.ExitStack() as held:
        old = _record_before(folder, resume, config, dataset)
        config = config or old.config
        data_dir = old.data_dir if data_dir is None else Path(data_dir)
        runtime.set_precision(config)
        images = _loaded(dataset or old.dataset, data_dir)
        kept = checkpoints or old.checkpoints
        record = Record.of(config, images, data_dir, kept)
        with processes.watch_others() as renew:
            taken = run_folder.taken(folder, images.name, resume)
            path = Path(agreement.broadcast_text(lambda: str(held.enter_context(taken))))
            run = _Run(record, images, path, resume, device, mesh, renew, patience)
            return run.train(observers)


def _record_before(
    folder: Path | None, resume: bool, config: Config | None, dataset: Dataset | DatasetName | None
) -> Record:
    """The record of the run to go on with, which must fit what is asked for, or the tutorial's."""
    with processes.watch_others():
        agreement.barrier()
        if not resume:
            if folder is not None:  # looked at before the images are loaded
                agreement.on_first(lambda: run_folder.require_no_run(folder))
            return _TUTORIAL
        if folder is None:
            raise RequestError("--resume needs the --run-dir of the run to go on with.")
        old = recorded(folder)
    name = dataset.name if isinstance(dataset, Dataset) else dataset or old.dataset
    then = dataclasses.asdict(old.config) | {"dataset": old.dataset, "epochs": None}
    now = dataclasses.asdict(config or old.config) | {"dataset": name, "epochs": None}
    differences = [
        f"{key.replace('_', '-')} is {now[key]}, the run's is {then[key]}"
        for key in now
        if now[key] != then[key]
    ]
    if differences:
        raise RequestError(f"{folder}: cannot go on with other settings: {'; '.join(differences)}.")
    return old


def _loaded(dataset: Dataset | DatasetName, data_dir: Path | None) -> Dataset:
    """The images, once every process has them."""
    with processes.watch_others(2):
        images = dataset if isinstance(dataset, Dataset) else load_dataset(dataset, data_dir)
        agreement.barrier()
    return images


def recorded(path: Path) -> Record:
    """The record of a run, in every process that of the first: it has the folder.

    Raises:
        RequestError: there is no run, or one whose weights alone are known.
        DataError: its `config.json` is damaged.
    """
    record = parse_config(agreement.broadcast_text(lambda: read_config_text(path)), path)
    if record.checkpoints is None:
        raise RequestError(f"{path}: was not trained here: only its weights are known.")
    return record


def dry_run(config: Config, dataset: Dataset, mesh: Mesh | None = None) -> Metrics:
    """Trains two steps and looks at two batches of the test images; writes nothing."""
    few = 2 * config.batch_size
    train_split, test_split = (
        Split(split.images[:few], split.labels[:few]) for split in (dataset.train, dataset.test)
    )
    small = dataset._replace(train=train_split, test=test_split)
    config = dataclasses.replace(config, epochs=1)
    progress = loop.begin(config)
    run_chunk = loop.compile_chunks(config, progress, small.train, 2, mesh)
    fitted = loop.fit(config, small, progress, run_chunk, 2, mesh)
    (metrics,) = (metrics for _, metrics in fitted if metrics)
    return metrics


@dataclasses.dataclass
class _Run:
    """A training whose folder and images are there."""

    record: Record
    dataset: Dataset
    folder: Path
    resume: bool
    device: jax.Device
    mesh: Mesh | None
    renew: Callable[[], None]
    patience: signals.Patience

    def __post_init__(self) -> None:
        self.config = self.record.config
        self.checkpoints = self.record.checkpoints or CheckpointPolicy()
        self.steps = steps_per_epoch(self.config, len(self.dataset.train.labels))
        self.identity = checkpoint.identity(self.config, self.dataset)

    def train(self, observers: Sequence[Observer]) -> Training:
        """Trains from where the run stands to its last epoch."""
        first = self._first_progress()
        self.renew()
        if first.epoch >= self.config.epochs:
            return Training(self.folder, self.config, first.epoch, [], first.state.params)
        start = Start(
            self.folder, self.config, self.dataset, self.device, first, self.resume, self.steps
        )
        observers = [Folder(), *observers] if processes.is_first() else ()
        if processes.is_first():
            write_config(self.folder, self.record, describe(self.device, self.config, self.mesh))
        with _observed(observers, start):
            return self._train(start, observers)

    def _train(self, start: Start, observers: Sequence[Observer]) -> Training:
        config, train_images = self.config, self.dataset.train
        every = self.checkpoints.steps(self.steps)
        chunk = loop.chunk_steps(config, len(train_images.labels), every, self.mesh)
        began = time.perf_counter()
        run_chunk = loop.compile_chunks(config, start.progress, train_images, chunk, self.mesh)
        self.renew()
        for observer in observers:
            observer.compiled(time.perf_counter() - began)
        fit = loop.fit(config, self.dataset, start.progress, run_chunk, chunk, self.mesh)
        history: list[Metrics] = []
        saved, progress = start.step, start.progress
        with self.patience() as received:
            for progress, metrics in fit:
                self.renew()
                step = progress.epoch * self.steps + progress.step
                history += [metrics] if metrics else []
                for observer in observers:
                    observer.advance(step, progress, metrics)
                # A signal to one process stops all, after the same step.
                signum = agreement.largest(received() or 0)
                next_step = step + min(chunk, self.steps - progress.step)
                if signum or step == start.last_step or next_step > saved + every:
                    saved = step
                    if processes.is_first():
                        keep = self.checkpoints.keep
                        checkpoint.save(self.folder, step, progress, self.identity, keep)
                if signum:
                    stopped = f"{signals.word(signum)} after step {step:,} of {start.last_step:,}"
                    go_on = f"flax-mnist train --resume --run-dir {shlex.quote(str(self.folder))}"
                    raise StoppedError(f"{stopped}. Go on with: {go_on}", 128 + signum)
        return Training(self.folder, config, progress.epoch, history, progress.state.params)

    def _first_progress(self) -> Progress:
        """The beginning, or where the run in the folder stands: the same in all processes."""
        beginning = loop.begin(self.config)
        agreement.require_same([self.identity, self.config.epochs, self.checkpoints.every])
        if not self.resume and not processes.are_many():
            return beginning
        progress = agreement.broadcast(lambda: self._restored(beginning), beginning)
        state, losses = sharding.replicate((progress.state, progress.losses), self.mesh)
        epoch, step, seconds = progress.epoch, progress.step, progress.seconds
        return Progress(state, losses, int(epoch), int(step), float(seconds))

    def _restored(self, beginning: Progress) -> Progress:
        """Where the run in the folder stands; its metrics end there too."""
        if not self.resume:
            return beginning
        progress = checkpoint.restore(self.folder, beginning, self.identity) or beginning
        cut_metrics(self.folder, progress.epoch)
        return progress


@contextlib.contextmanager
def _observed(observers: Sequence[Observer], start: Start) -> Iterator[None]:
    """Tells the observers of the beginning and the end."""
    begun: list[Observer] = []
    ending: Ending = "failed"
    try:
        for observer in observers:
            begun.append(observer)
            observer.begin(start)
        yield
        ending = "done"
    except StoppedError:
        ending = "stopped"
        raise
    finally:
        with contextlib.ExitStack() as ends:  # each is told, whatever another one fails with
            for observer in reversed(begun):
                ends.callback(observer.end, ending)
