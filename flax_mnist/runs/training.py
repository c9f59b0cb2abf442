"""A training from its beginning to its end: what `flax-mnist train` does, as a function."""

import contextlib
import dataclasses
import json
import shlex
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from flax_mnist.config import CheckpointPolicy, Config, DatasetName
from flax_mnist.data.dataset import Dataset, Split, load_dataset
from flax_mnist.data.order import steps_per_epoch
from flax_mnist.data.validation import hold_out
from flax_mnist.devices import agreement, processes, runtime, sharding
from flax_mnist.devices.environment import describe
from flax_mnist.devices.place import Place, entered
from flax_mnist.errors import (
    FlaxMnistError,
    RequestError,
    StoppedError,
    Verdict,
)
from flax_mnist.model import Params
from flax_mnist.runs import loop, signals, verdict
from flax_mnist.runs.observers import Ending, Folder, Observer, Start
from flax_mnist.runs.stopping import why_over, with_best_epoch
from flax_mnist.runs.trained import FirstWeights, first_weights
from flax_mnist.store import checkpoint, run_folder
from flax_mnist.store.checkpoint import Progress
from flax_mnist.store.metrics import Metrics, cut_metrics, read_metrics
from flax_mnist.store.record import Record, parse_config, read_config_text, write_config
from flax_mnist.store.weights import from_torch_state_dict, load_weights
from flax_mnist.train import State, make_optimizer


class Training(NamedTuple):
    """What a training came to."""

    folder: Path  #: The run folder, which holds it.
    config: Config
    epochs: int  #: How many the run has.
    metrics: list[Metrics]  #: Of the epochs that were trained now; none where the run had them all.
    #: The parameters after the last epoch; where images are held out, after the best one.
    params: Params
    history: list[Metrics]  #: Of all epochs, those of before too.


# What a new run takes where nothing is asked for.
_TUTORIAL = Record(Config(), "auto", "", None, (), CheckpointPolicy())


def train(
    config: Config | None = None,
    dataset: Dataset | DatasetName | None = None,
    run_dir: Path | str | None = None,
    *,
    data_dir: Path | str | None = None,
    resume: bool = False,
    init_from: Path | str | None = None,
    checkpoints: CheckpointPolicy | None = None,
    observers: Sequence[Observer] = (),
    place: Place = Place(),
    listening: signals.Listening = signals.deaf,
) -> Training:
    """Trains a network and keeps it in a run folder, with metrics, weights and checkpoints.

    What is None is the tutorial's; with `resume` it is the run's, of which only what is not in
    `Config.lasting` may change. A run that has learned nothing ends with a `Verdict`.

    Args:
        config, dataset, data_dir: the settings; the images, or their name and where they are.
        run_dir: the run folder; None is `runs/<dataset>-<timestamp>`.
        resume: go on from the newest checkpoint, to the bits of a run that was never interrupted.
        init_from: a run folder or a file, whose weights are the first ones.
        checkpoints: how often one is written, and how many remain.
        observers: are told what happens, in the first process.
        place: where it is trained. JAX's settings are afterwards what they were before.
        listening: `signals.listening` has a signal end it in good order, with a checkpoint, within
            about a second. By itself none is heard: an interrupted call leaves the last checkpoint.

    Raises:
        RequestError: what is asked for is wrong, or does not fit the run that is resumed.
        DataError: images, settings or metrics are damaged.
        StoppedError: a signal was heard.
        FlaxMnistError: a loss is not finite, no checkpoint is whole, a file cannot be written, the
            dataset cannot be had, or another process is gone.
    """
    with entered(place) as (device, mesh), contextlib.ExitStack() as held:
        old = _record_before(run_dir, resume, config, dataset)
        config = config or old.config
        data_dir = old.data_dir if data_dir is None else Path(data_dir)
        runtime.set_precision(config)
        first = _first_weights(init_from, config, resume)
        images = loaded(dataset or old.dataset, data_dir)
        kept, origin = checkpoints or old.checkpoints, first.origin if first else old.init_from
        record = Record.of(config, images, data_dir, kept, origin)
        with processes.watch_others() as renew:
            taken = run_folder.taken(run_dir, images.name, resume)
            path = Path(agreement.broadcast_text(lambda: str(held.enter_context(taken))))
            run = _Run(record, images, path, resume, first, device, mesh, renew, listening)
            return run.train(observers)


def _record_before(
    run_dir: Path | str | None,
    resume: bool,
    config: Config | None,
    dataset: Dataset | DatasetName | None,
) -> Record:
    """The record of the run to go on with, which must fit what is asked for, or the tutorial's."""
    folder = None if run_dir is None else Path(run_dir)
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
    then = old.config.lasting() | {"dataset": old.dataset}
    now = (config or old.config).lasting() | {"dataset": name}
    differences = [
        f"{key.replace('_', '-')} is {now[key]}, the run's is {then[key]}"
        for key in now
        if key in then and now[key] != then[key]
    ]
    if "epochs" in then and "epochs" in now and now["epochs"] != then["epochs"]:
        differences.append("its schedule is spread over the epochs")
    if differences:
        raise RequestError(f"{folder}: cannot go on with other settings: {'; '.join(differences)}.")
    return old


def _first_weights(
    path: Path | str | None, config: Config, resume: bool = False
) -> FirstWeights | None:
    """Those of a run or a file, which only the first process need have; None in the others."""
    if path is None:
        return None
    if resume:
        raise RequestError("--init-from is for a new run: --resume goes on with the run's weights.")
    with processes.watch_others():
        return agreement.on_first(lambda: first_weights(Path(path), config))


def loaded(dataset: Dataset | DatasetName, data_dir: Path | None) -> Dataset:
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


def dry_run(
    config: Config,
    dataset: Dataset,
    mesh: Mesh | None = None,
    init_from: Path | None = None,
) -> Metrics:
    """Trains two steps and looks at two batches of the test images; writes nothing."""
    _first_weights(init_from, config)  # that they fit is what can be tried
    few = 2 * config.batch_size
    dataset = hold_out(dataset, config.validation, config.seed)
    train_split, test_split = (
        Split(split.images[:few], split.labels[:few]) for split in (dataset.train, dataset.test)
    )
    small = dataset._replace(train=train_split, test=test_split, validation=None)
    config = dataclasses.replace(config, epochs=1, warmup=config.warmup / config.epochs)
    optimizer = make_optimizer(config, steps_per_epoch(config, len(small.train.labels)))
    progress = loop.begin(config, optimizer)
    run_chunk = loop.compile_chunks(config, progress, small.train, 2, mesh, optimizer)
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
    first: FirstWeights | None
    device: jax.Device
    mesh: Mesh | None
    renew: Callable[[], None]
    listening: signals.Listening

    def __post_init__(self) -> None:
        self.config = self.record.config
        self.checkpoints = self.record.checkpoints or CheckpointPolicy()
        self.identity = checkpoint.identity(self.config, self.dataset)
        self.dataset = hold_out(self.dataset, self.config.validation, self.config.seed)
        self.steps = steps_per_epoch(self.config, len(self.dataset.train.labels))
        self.optimizer = make_optimizer(self.config, self.steps)
        self.history: list[Metrics] = []

    def train(self, observers: Sequence[Observer]) -> Training:
        """Trains from where the run stands to its end."""
        progress = self._first_progress()
        self.renew()
        before = len(self.history)
        if progress.epoch < self.config.epochs and not why_over(self.config, self.history):
            start = Start(
                self.folder,
                self.config,
                self.dataset,
                self.device,
                progress,
                self.resume,
                self.steps,
                tuple(self.history),
            )
            observers = [Folder(), *observers] if processes.is_first() else ()
            if processes.is_first():
                self._save_first(progress)
            with _observed(observers, start):
                progress = self._train(start, observers)
            self._warn()
        params = self._kept(progress.state.params)
        history = self.history
        return Training(self.folder, self.config, progress.epoch, history[before:], params, history)

    def _save_first(self, progress: Progress) -> None:
        """Makes the folder a run's, which goes on from here by itself."""
        if self.first is not None:
            # Or else whoever goes on would need the file, as it was.
            checkpoint.save(self.folder, 0, progress, self.identity, self.checkpoints.keep)
        write_config(self.folder, self.record, describe(self.device, self.config, self.mesh))

    def _kept(self, params: Params) -> Params:
        """Those of the epoch whose weights are in the folder, in every process."""
        if not self.history or self.history[-1].best_epoch in (None, self.history[-1].epoch):
            return params
        file = self.folder / run_folder.WEIGHTS
        return agreement.broadcast(lambda: from_torch_state_dict(load_weights(file)), params)

    def _warn(self) -> None:
        if processes.is_first():
            warning = verdict.of_a_run(self.config, self.history, self.dataset.test.labels)
            if warning:
                warnings.warn(warning, Verdict, stacklevel=4)

    def _train(self, start: Start, observers: Sequence[Observer]) -> Progress:
        config, train_images = self.config, self.dataset.train
        every = self.checkpoints.steps(self.steps)
        chunk = loop.chunk_steps(config, len(train_images.labels), every, self.mesh)
        began = time.perf_counter()
        run_chunk = loop.compile_chunks(
            config, start.progress, train_images, chunk, self.mesh, self.optimizer
        )
        self.renew()
        seconds = time.perf_counter() - began
        fit = loop.fit(config, self.dataset, start.progress, run_chunk, chunk, self.mesh)
        saved, progress = start.step, start.progress
        with self.listening() as received:
            for observer in observers:  # whoever sees this can stop it in good order
                observer.compiled(seconds)
            for progress, metrics in fit:
                self.renew()
                step = progress.epoch * self.steps + progress.step
                if metrics:
                    metrics = with_best_epoch(self.history, metrics)
                    self.history.append(metrics)
                for observer in observers:
                    observer.advance(step, progress, metrics)
                # A signal to one process stops all, after the same step.
                signum = agreement.largest(received() or 0)
                last = step == start.last_step or (metrics is not None and self._is_over())
                next_step = step + min(chunk, self.steps - progress.step)
                if signum or last or next_step > saved + every:
                    saved = step
                    if processes.is_first():
                        keep = self.checkpoints.keep
                        checkpoint.save(self.folder, step, progress, self.identity, keep)
                if signum:
                    stopped = f"{signals.word(signum)} after step {step:,} of {start.last_step:,}"
                    go_on = f"flax-mnist train --resume --run-dir {shlex.quote(str(self.folder))}"
                    raise StoppedError(f"{stopped}. Go on with: {go_on}", 128 + signum)
                if last:
                    break
        return progress

    def _is_over(self) -> bool:
        """Whether the training ends here, before its last epoch, as the first process sees it."""
        over = processes.is_first() and why_over(self.config, self.history) is not None
        return bool(agreement.largest(int(over)))

    def _first_progress(self) -> Progress:
        """The beginning, or where the run in the folder stands: the same in all processes."""
        agreement.require_same([self.identity, self.config.epochs, self.checkpoints.every])
        if not (self.resume or self.first or processes.are_many()):
            return loop.begin(self.config, self.optimizer)
        # Only the first process compiles what draws the first weights.
        progress = agreement.broadcast(self._restored, loop.shapes(self.config, self.optimizer))
        state, losses = sharding.replicate((progress.state, progress.losses), self.mesh)
        if self.resume:
            rows = agreement.broadcast_text(lambda: json.dumps(read_metrics(self.folder)))
            self.history = [Metrics(*row) for row in json.loads(rows)]
        epoch, step, seconds = progress.epoch, progress.step, progress.seconds
        return Progress(state, losses, int(epoch), int(step), float(seconds))

    def _restored(self) -> Progress:
        """Where the run in the folder stands; its metrics end there too."""
        beginning = loop.begin(self.config, self.optimizer)
        if self.first is not None:
            params = self.first.params
            state = State(params, jax.jit(self.optimizer.init)(params))
            return beginning._replace(state=state)
        if not self.resume:
            return beginning
        progress = checkpoint.restore(self.folder, beginning, self.identity)
        if progress is None and self.record.init_from:
            path = self.record.init_from["path"]
            raise FlaxMnistError(
                f"{self.folder}: has no checkpoint, and began with the weights of {path}. "
                f"Train again, with another --run-dir and --init-from {path}."
            )
        progress = progress or beginning
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
