"""Who looks on while a network is trained, to show or to keep what comes of it."""

from __future__ import annotations

import contextlib
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, NamedTuple

import jax
import numpy as np
from numpy.typing import NDArray

from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.store import run_folder
from flax_mnist.store.checkpoint import Progress
from flax_mnist.store.metrics import Metrics, append_metrics, read_metrics
from flax_mnist.store.weights import save_weights

if TYPE_CHECKING:
    from tensorboardX import SummaryWriter

Ending = Literal["done", "stopped", "failed"]  #: How a training ends: see `Observer.end`.


class Start(NamedTuple):
    """What is known of a training before its first step."""

    folder: Path
    config: Config
    dataset: Dataset
    device: jax.Device
    progress: Progress  #: Where it begins, or goes on.
    resumed: bool
    steps_per_epoch: int
    history: Sequence[Metrics] = ()  #: Of the epochs before.

    @property
    def step(self) -> int:
        """Steps done before."""
        return self.progress.epoch * self.steps_per_epoch + self.progress.step

    @property
    def last_step(self) -> int:
        """Steps done when it comes to its end."""
        return self.config.epochs * self.steps_per_epoch


class Observer:
    """Is told what happens, in this order. Here it does nothing: a subclass does what it wants."""

    def begin(self, start: Start) -> None:
        """Before all else; the run folder is there."""

    def compiled(self, seconds: float) -> None:
        """All programs are compiled, which took so long."""

    def advance(self, step: int, progress: Progress, metrics: Metrics | None) -> None:
        """So many steps are done; with metrics where an epoch is.

        The state of `progress` is good until this returns: its memory is used again.
        """

    def end(self, ending: Ending) -> None:
        """`stopped` by a signal, `failed` by an error."""


class Folder(Observer):
    """Keeps the metrics of each epoch, the weights of the best one, and draws the curves.

    Where no images are held out, the best one is the last.
    """

    def begin(self, start: Start) -> None:
        self.folder, self.dataset_name = start.folder, start.dataset.name

    def advance(self, step: int, progress: Progress, metrics: Metrics | None) -> None:
        if metrics:
            append_metrics(self.folder, metrics, self.dataset_name)
            if metrics.best_epoch in (None, metrics.epoch):
                save_weights(self.folder / run_folder.WEIGHTS, progress.state.params)

    def end(self, ending: Ending) -> None:
        if ending != "failed":
            draw_curves(self.folder)


def draw_curves(folder: Path) -> None:
    """Draws the metrics in a run folder into its picture, once it has an epoch."""
    from flax_mnist.show import figures

    rows = read_metrics(folder) if (folder / run_folder.METRICS).exists() else []
    if rows:
        figures.save(figures.draw_curves({folder.name: rows}), folder / run_folder.CURVES)


class TensorBoard(Observer):
    """Writes TensorBoard's event files into the run folder's `tensorboard`."""

    def begin(self, start: Start) -> None:
        from tensorboardX import SummaryWriter

        self.writer: SummaryWriter = SummaryWriter(str(start.folder / "tensorboard"))

    def advance(self, step: int, progress: Progress, metrics: Metrics | None) -> None:
        if metrics:
            self.writer.add_scalar("loss/training", metrics.train_loss, step)
            self.writer.add_scalar("loss/test", metrics.test_loss, step)
            self.writer.add_scalar("accuracy/test", metrics.test_accuracy, step)
            if metrics.validation_loss is not None:
                self.writer.add_scalar("loss/validation", metrics.validation_loss, step)
                self.writer.add_scalar("accuracy/validation", metrics.validation_accuracy, step)
            self.writer.add_scalar("images_per_second", metrics.images_per_second, step)

    def end(self, ending: Ending) -> None:
        self.writer.close()


class WeightsGif(Observer):
    """Draws the first layer's weights before and after each epoch into one moving picture."""

    def begin(self, start: Start) -> None:
        self.path = start.folder / "weights.gif"
        self.kernels: dict[int, NDArray[Any]] = {}
        self.keep(start.progress)

    def keep(self, progress: Progress) -> None:
        """A copy: the memory is used again."""
        self.kernels[progress.epoch] = np.array(progress.state.params["Dense_0"]["kernel"])

    def advance(self, step: int, progress: Progress, metrics: Metrics | None) -> None:
        if metrics:
            self.keep(progress)

    def end(self, ending: Ending) -> None:
        if ending == "done":
            from flax_mnist.show.kernels import save_weights_gif

            save_weights_gif(self.kernels, self.path)


class Profile(Observer):
    """Writes a trace of JAX's profiler, of one epoch: the second one if there is a second."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.trace = contextlib.ExitStack()

    def begin(self, start: Start) -> None:
        first, last = start.progress.epoch, start.config.epochs
        self.before = min(first + 1, last - 1)
        self.begin_after(first)

    def begin_after(self, epoch: int) -> None:
        """Begins the trace if this is the epoch."""
        if epoch == self.before:
            self.trace.enter_context(jax.profiler.trace(str(self.path)))

    def advance(self, step: int, progress: Progress, metrics: Metrics | None) -> None:
        if metrics:
            self.trace.close()
            self.begin_after(progress.epoch)

    def end(self, ending: Ending) -> None:
        self.trace.close()
