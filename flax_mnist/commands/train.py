"""`flax-mnist train`."""

from __future__ import annotations

import dataclasses
import math
import re
import shlex
import time
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import tyro

from flax_mnist import signals, terminal
from flax_mnist.commands.flags import DataDir, Machine, directory
from flax_mnist.config import Config, DatasetName
from flax_mnist.errors import RequestError, StoppedError

if TYPE_CHECKING:
    from flax_mnist.data import Dataset
    from flax_mnist.train import Progress


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
    resume: bool = False
    """Go on with the run in --run-dir from its newest checkpoint, with its own settings. The result
    is that of a run never interrupted, bit for bit. --epochs extends it."""
    checkpoint_every: Annotated[str, tyro.conf.arg(metavar="N|Nsteps")] = "1"
    """Epochs, or steps, between checkpoints; 0 is only when stopped and at the end."""
    keep: int = 3
    """Checkpoints that remain, the newest ones."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def with_its_runs_defaults(self) -> Train:
        """These flags, as they are where none is given for a run that is to be resumed."""
        from flax_mnist import run_dir

        if self.run_dir is None:
            raise RequestError("--resume needs the --run-dir of the run to go on with.")
        record = run_dir.read_config(self.run_dir)
        if record.checkpoints is None:
            raise RequestError(f"{self.run_dir}: was not trained here: there is nothing to resume.")
        every, keep = record.checkpoints
        return Train(
            config=record.config,
            dataset=record.dataset,
            data_dir=record.data_dir,
            checkpoint_every=every,
            keep=keep,
        )

    def run(self) -> None:
        """Trains, with a line for each epoch."""
        from flax_mnist import run_dir
        from flax_mnist.data import load_dataset

        _interval(self.checkpoint_every)
        if self.keep < 1:
            raise RequestError(f"keep is {self.keep}; it must be at least 1.")
        if self.resume:
            _require_the_runs_settings(self)
        elif self.run_dir is not None:
            run_dir.require_no_run(self.run_dir)  # before the data are loaded
        device = self.machine.start(self.config)
        with terminal.warnings_at_both_ends():
            dataset = load_dataset(self.dataset, self.data_dir)
            path = run_dir.create(self.run_dir, dataset.name, self.resume)
            with run_dir.only_writer(path), ThreadPoolExecutor(max_workers=1) as background:
                # While XLA compiles there is a core for what the first checkpoint needs.
                identity = background.submit(_identity, self.config, dataset)
                progress = self._first_progress(path, identity)
                if progress.epoch >= self.config.epochs:
                    terminal.say(
                        f"{path} is finished: it has {progress.epoch} epochs. "
                        "A higher --epochs trains it further."
                    )
                    return
                record = run_dir.Record(
                    self.config,
                    dataset.name,
                    dataset.source,
                    self.data_dir,
                    dataset.class_names,
                    run_dir.Checkpoints(self.checkpoint_every, self.keep),
                )
                run_dir.write_config(path, record, device)
                terminal.say(terminal.header(self.config, dataset, progress.state.params, device))
                self._train(path, dataset, progress, identity)
                terminal.say(f"Saved in {path}")

    def _first_progress(self, path: Path, identity: Future[dict[str, Any]]) -> Progress:
        """The beginning, or where the run in the folder stands; its metrics end there too."""
        from flax_mnist import run_dir, train

        beginning = train.begin(self.config)
        if not self.resume:
            run_dir.require_no_run(path)  # now that nobody else can make one
            return beginning
        from flax_mnist import checkpoint

        progress = checkpoint.restore(path, beginning, identity.result())
        if progress is None:
            terminal.say(f"{path} has no checkpoint yet: starting from the beginning.")
            progress = beginning
        run_dir.cut_metrics(path, progress.epoch)
        return progress

    def _train(
        self, path: Path, dataset: Dataset, first: Progress, identity: Future[dict[str, Any]]
    ) -> None:
        from flax_mnist import checkpoint, interop, run_dir, train

        config = self.config
        n = len(dataset.train.labels)
        steps = train.steps_per_epoch(config, n)
        every = _steps_between_checkpoints(self.checkpoint_every, steps)
        chunk = train.chunk_steps(config, n, every)
        start = time.perf_counter()
        run_chunk = train.compile_chunks(config, first, dataset.train, chunk)
        terminal.say(f"Compiled in {time.perf_counter() - start:.2f} s")
        step = first.epoch * steps + first.step
        with (
            signals.patience() as received,
            terminal.progress_bar(config.epochs * steps, step) as advance,
        ):
            for progress, metrics in train.fit(config, dataset, first, run_chunk, chunk):
                before, step = step, progress.epoch * steps + progress.step
                if metrics:
                    run_dir.append_metrics(path, metrics, dataset.name)
                    interop.save_weights(path / run_dir.WEIGHTS, progress.state.params)
                    terminal.say(terminal.epoch_line(metrics, config.epochs))
                advance(step)
                signum, done = received(), progress.epoch == config.epochs
                if signum or done or step // every > before // every:
                    checkpoint.save(path, step, progress, identity.result(), self.keep)
                if signum:
                    raise StoppedError(
                        f"{signals.word(signum)} after step {step:,} of {config.epochs * steps:,}. "
                        f"Go on with: flax-mnist train --resume --run-dir {shlex.quote(str(path))}",
                        128 + signum,
                    )


def _interval(text: str) -> tuple[int, str]:
    """What --checkpoint-every says: a count, and of what."""
    match = re.fullmatch(r"(\d{1,9}) ?(step|epoch)?s?", text)
    if match is None:
        raise RequestError(
            f"checkpoint-every is {text!r}; it must be a number of epochs, such as 2, or of steps, "
            "such as 100steps."
        )
    return int(match[1]), match[2] or "epoch"


def _steps_between_checkpoints(text: str, steps_per_epoch: int) -> float:
    count, unit = _interval(text)
    return (count if unit == "step" else count * steps_per_epoch) or math.inf


def _require_the_runs_settings(command: Train) -> None:
    """Refuses to resume with settings that are not the run's."""
    runs = command.with_its_runs_defaults()
    then, now = (
        dataclasses.asdict(c.config) | {"dataset": c.dataset, "epochs": None}
        for c in (runs, command)
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


def _identity(config: Config, dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint belongs to; the import brings Orbax, which takes a while."""
    from flax_mnist import checkpoint

    return checkpoint.identity(config, dataset)
