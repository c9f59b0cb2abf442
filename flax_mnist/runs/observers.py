"""Who looks on while a network is trained: each is called after every epoch."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import jax
import numpy as np
from numpy.typing import NDArray

from flax_mnist.config import Config
from flax_mnist.show import terminal, text
from flax_mnist.store import run_folder
from flax_mnist.store.checkpoint import Progress
from flax_mnist.store.metrics import Metrics, append_metrics, metrics_line

Observer = Callable[[Progress, Metrics], None]


def folder(path: Path, dataset_name: str) -> Observer:
    """Keeps metrics and weights in the run folder."""
    from flax_mnist.store.weights import save_weights

    def observe(progress: Progress, metrics: Metrics) -> None:
        append_metrics(path, metrics, dataset_name)
        save_weights(path / run_folder.WEIGHTS, progress.state.params)

    return observe


def lines(config: Config) -> Observer:
    """Prints the tutorial's line."""
    return lambda _, metrics: terminal.say(text.epoch_line(metrics, config.epochs))


def json_lines(dataset_name: str) -> Observer:
    """Prints what `metrics.jsonl` has."""
    return lambda _, metrics: terminal.say(metrics_line(metrics, dataset_name))


@contextlib.contextmanager
def tensorboard(path: Path) -> Iterator[Observer]:
    """Writes TensorBoard's event files into a folder."""
    from tensorboardX import SummaryWriter

    with SummaryWriter(str(path)) as writer:

        def observe(_: Progress, metrics: Metrics) -> None:
            writer.add_scalar("loss/training", metrics.train_loss, metrics.step)
            writer.add_scalar("loss/test", metrics.test_loss, metrics.step)
            writer.add_scalar("accuracy/test", metrics.test_accuracy, metrics.step)
            writer.add_scalar("images_per_second", metrics.images_per_second, metrics.step)

        yield observe


@contextlib.contextmanager
def weights_gif(path: Path, before: Progress) -> Iterator[Observer]:
    """Draws the first layer's weights after each epoch, and at the end one moving picture."""
    from flax_mnist.show.kernels import save_weights_gif

    kernels: dict[int, NDArray[Any]] = {}

    def observe(progress: Progress, _: Metrics | None) -> None:
        kernels[progress.epoch] = np.array(progress.state.params["Dense_0"]["kernel"])

    observe(before, None)
    yield observe
    save_weights_gif(kernels, path)


@contextlib.contextmanager
def profile(path: Path, first: int, last: int) -> Iterator[Observer]:
    """Writes a trace of JAX's profiler, of one epoch: the second one if there is a second.

    Args:
        path: folder to write to.
        first: epochs finished before.
        last: epochs finished in the end.
    """
    before = min(first + 1, last - 1)
    with contextlib.ExitStack() as trace:

        def observe(_: Progress, metrics: Metrics) -> None:
            trace.close()
            if metrics.epoch == before:
                trace.enter_context(jax.profiler.trace(str(path)))

        if first == before:
            trace.enter_context(jax.profiler.trace(str(path)))
        yield observe
