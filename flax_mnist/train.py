"""The step, the epoch and the loop around them.

A step's mathematics is here and in `model.py`, nowhere else.
"""

from __future__ import annotations

import functools
import math
import os
import time
from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.typing import ArrayLike
from numpy.typing import NDArray

from flax_mnist import sharding
from flax_mnist.config import Config
from flax_mnist.data import Dataset, Split
from flax_mnist.errors import FlaxMnistError
from flax_mnist.evaluation import evaluate
from flax_mnist.model import MLP, PIXELS, Params, log_probs, make_model, nll_loss


class State(NamedTuple):
    """All that a step changes: a pytree of arrays."""

    params: Params
    opt_state: Any
    """optax's: the learning rate, the count of steps, and the velocity where there is momentum."""


class Losses(NamedTuple):
    """What is kept of the losses of an epoch's batches so far; two scalars."""

    total: Array | NDArray[np.floating]
    """Their sum, nats."""
    finite: Array | NDArray[np.int32]
    """int32: after how many of them the sum was finite. Once it is not, it never is again."""


RunChunk = Callable[[State, Losses, ArrayLike, ArrayLike, NDArray[np.int32]], tuple[State, Losses]]
"""`train_chunk` of one model and optimizer: state, losses, images, labels and order."""


@functools.cache  # jit knows an optimizer by identity: the same numbers must be the same object
def sgd(learning_rate: float, momentum: float = 0.0) -> optax.GradientTransformation:
    """`torch.optim.SGD(lr, momentum)`: v <- momentum v + g, then p <- p - lr v.

    The learning rate lives in the optimizer's state, so that `vmap` can vary it: a step takes the
    one that was there when the state was made, whatever the optimizer it is called with says.
    """
    # Momentum 0 must be None: a velocity that is always the gradient is a copy of all weights.
    return optax.inject_hyperparams(optax.sgd)(learning_rate, momentum=momentum or None)


def make_optimizer(config: Config) -> optax.GradientTransformation:
    """The optimizer that `config` describes."""
    return sgd(config.learning_rate, config.momentum)


def init_state(config: Config) -> State:
    """The state before the first step; the same for the same config."""
    key = jax.random.key(config.seed)
    state: State = _init(key, model=make_model(config), optimizer=make_optimizer(config))
    return state


@functools.partial(
    jax.jit,  # one program, not dozens
    static_argnames=("model", "optimizer"),
    # It runs once, in a millisecond, and compiles in half the time.
    compiler_options={"xla_backend_optimization_level": 1},
)
def _init(key: Array, *, model: MLP, optimizer: optax.GradientTransformation) -> State:
    params = model.init(key, jnp.zeros((1, PIXELS)))["params"]
    return State(params, optimizer.init(params))


def epoch_order(seed: int, epoch: int, n: int) -> NDArray[np.int32]:
    """The order in which epoch `epoch` (from 0) shows the `n` training images: int32 `[n]`.

    Made on the host from the two numbers alone, so that any run, resumed or not and on any number
    of devices, sees the same batches.
    """
    return np.random.default_rng((seed, epoch)).permutation(n).astype(np.int32)


@functools.partial(jax.jit, static_argnames=("model", "optimizer"), donate_argnames="state")
def train_step(
    state: State,
    images: Array,
    labels: Array,
    *,
    model: MLP,
    optimizer: optax.GradientTransformation,
) -> tuple[State, Array]:
    """One step of gradient descent on the mean loss of a batch.

    Args:
        state: donated when compiled; use the one returned.
        images: uint8 `[batch, 28, 28]`.
        labels: integer `[batch]` in [0, 10).
        model: static.
        optimizer: static; see `sgd`.

    Returns:
        The next state and the loss before the step, a scalar.
    """

    def loss(params: Params) -> Array:
        return nll_loss(log_probs(params, images, model), labels)

    value, gradients = jax.value_and_grad(loss)(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    return State(optax.apply_updates(state.params, updates), opt_state), value


@functools.partial(
    jax.jit, static_argnames=("model", "optimizer", "batch_size"), donate_argnames="state"
)
def train_chunk(
    state: State,
    losses: Losses,
    images: Array,
    labels: Array,
    order: Array,
    *,
    model: MLP,
    optimizer: optax.GradientTransformation,
    batch_size: int,
) -> tuple[State, Losses]:
    """One step for each batch of `batch_size` images in the given order, the ragged last one too.

    An epoch is one chunk or several. Each adds its losses, one after the other, to those of the
    chunks before it, so that the sum is the same wherever the epoch was cut.

    Args:
        state: donated when compiled; use the one returned.
        losses: of the epoch's batches before these; `no_losses` at its beginning.
        images: uint8 `[n, 28, 28]`.
        labels: integer `[n]` in [0, 10).
        order: int32, the rows to visit, in that order.
        model: static.
        optimizer: static; see `sgd`.
        batch_size: static.

    Returns:
        The next state, and the losses with those of these batches.
    """

    def step(carry: tuple[State, Losses], rows: Array) -> tuple[tuple[State, Losses], None]:
        rows = sharding.spread(rows)
        state, losses = carry
        state, loss = train_step(
            state, images[rows], labels[rows], model=model, optimizer=optimizer
        )
        total = losses.total + loss
        return (state, Losses(total, losses.finite + jnp.isfinite(total))), None

    full, rest = divmod(len(order), batch_size)
    carry = (state, losses)
    carry, _ = jax.lax.scan(step, carry, order[: full * batch_size].reshape(full, batch_size))
    if rest:
        carry, _ = step(carry, order[full * batch_size :])
    return carry


def no_losses(model: MLP) -> Losses:
    """Those before an epoch's first step."""
    # NumPy's: outside of `jit` each of JAX's would be a program to compile.
    return Losses(np.zeros((), model.param_dtype), np.zeros((), np.int32))


@functools.partial(
    jax.jit, static_argnames=("model", "optimizer", "batch_size"), donate_argnames="state"
)
def train_epoch(
    state: State,
    images: Array,
    labels: Array,
    order: Array,
    *,
    model: MLP,
    optimizer: optax.GradientTransformation,
    batch_size: int,
) -> tuple[State, Array]:
    """An epoch in one chunk; for the arguments see `train_chunk`.

    Returns:
        The next state and the mean of the batches' losses, each batch counting the same: the
        tutorial's `running_loss / len(trainloader)`. A scalar.
    """
    state, losses = train_chunk(
        state,
        no_losses(model),
        images,
        labels,
        order,
        model=model,
        optimizer=optimizer,
        batch_size=batch_size,
    )
    return state, losses.total / math.ceil(len(order) / batch_size)


class Progress(NamedTuple):
    """Where a run stands: all that is needed to go on from there as if it had never stopped."""

    state: State
    losses: Losses
    """Of the unfinished epoch."""
    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps done in the unfinished epoch."""
    seconds: float = 0.0
    """Wall time of training in the unfinished epoch."""


def begin(config: Config) -> Progress:
    """Before the first step."""
    return Progress(init_state(config), no_losses(make_model(config)))


class Metrics(NamedTuple):
    """What is known after an epoch."""

    epoch: int
    """Counted from 1."""
    step: int
    """Steps done since the run began."""
    train_loss: float
    """Mean of the losses of the epoch's batches, nats."""
    test_loss: float
    """Mean over the test images, nats."""
    test_accuracy: float
    """Share of the test images that are classified rightly, 0 to 1."""
    seconds: float
    """Wall time of the epoch's training alone."""
    images_per_second: float


def compiler_options() -> dict[str, str | bool]:
    """What XLA is told besides `XLA_FLAGS`; a scheduler named there is left alone.

    By itself XLA orders a program for the CPU so that independent instructions can overlap. A step
    this small has no use for that: in the order that needs the least memory it is 1.2 to 1.35 times
    as fast (`benchmarks/NOTES.md`), and its results have the same bits.
    """
    if jax.default_backend() != "cpu" or "scheduler" in os.environ.get("XLA_FLAGS", ""):
        return {}
    return {"xla_cpu_scheduler_type": "CPU_SCHEDULER_TYPE_MEMORY_OPTIMIZED"}


CHUNK_STEPS = 20_000
CHUNK_FLOPS = {"cpu": 5e10, "gpu": 1e13, "tpu": 1e13}
"""About a second's work: for so long a run may have no ear for a signal."""
MANY_CPUS_STEPS = 32
"""Devices that share one process's threads may lock each other out after some hundred steps."""


def steps_per_epoch(config: Config, n: int) -> int:
    """Batches in an epoch of `n` images, the ragged one too."""
    return math.ceil(n / config.batch_size)


def chunk_steps(config: Config, n: int, at_most: float = math.inf) -> int:
    """How many steps run in one go; a whole epoch of the tutorial's network.

    Args:
        config: of the run.
        n: images in an epoch.
        at_most: so that something can be done after every so many steps.
    """
    # A product with each weight in the forward pass, two in the backward pass.
    flops = 6 * config.batch_size * config.weights
    backend = jax.default_backend()
    a_second = CHUNK_FLOPS[backend] / flops
    if backend == "cpu" and sharding.everywhere():
        at_most = min(at_most, MANY_CPUS_STEPS)
    return max(1, int(min(a_second, CHUNK_STEPS, steps_per_epoch(config, n), at_most)))


def _chunks(config: Config, n: int, chunk: int, first_step: int) -> list[slice]:
    """Where an epoch's order is cut, from a step on."""
    size = chunk * config.batch_size
    starts = range(first_step * config.batch_size, n, size)
    return [slice(start, min(start + size, n)) for start in starts]


def compile_chunks(config: Config, progress: Progress, train: Split, chunk: int) -> RunChunk:
    """`train_chunk` for chunks of so many steps, compiled before it is first called.

    So the first epoch takes as long as any other, and the compilation can be timed on its own.
    """
    n = len(train.labels)
    place = sharding.everywhere()
    images_and_labels = [
        jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=place) for array in train
    ]
    cuts = _chunks(config, n, chunk, progress.step) + _chunks(config, n, chunk, 0)
    programs = {
        length: train_chunk.lower(
            progress.state,
            progress.losses,
            *images_and_labels,
            jax.ShapeDtypeStruct((length,), jnp.int32, sharding=place),
            model=make_model(config),
            optimizer=make_optimizer(config),
            batch_size=config.batch_size,
        ).compile(compiler_options=compiler_options())
        for length in {cut.stop - cut.start for cut in cuts}
    }

    def run_chunk(
        state: State,
        losses: Losses,
        images: ArrayLike,
        labels: ArrayLike,
        order: NDArray[np.int32],
    ) -> tuple[State, Losses]:
        after: tuple[State, Losses] = programs[len(order)](state, losses, images, labels, order)
        return after

    return run_chunk


def fit(
    config: Config, dataset: Dataset, progress: Progress, run_chunk: RunChunk, chunk: int
) -> Iterator[tuple[Progress, Metrics | None]]:
    """Trains chunk by chunk until `config.epochs` epochs are finished.

    Args:
        config: how.
        dataset: on what.
        progress: from `begin`, or any that this function yielded; its state is donated.
        run_chunk: from `compile_chunks`.
        chunk: steps, as `run_chunk` was compiled for.

    Yields:
        After each chunk the progress, good until the next one is asked for, and the metrics where
        the chunk ended an epoch.

    Raises:
        FlaxMnistError: a loss is not finite.
    """
    model = make_model(config)
    images, labels = sharding.replicate(dataset.train)
    test_images, test_labels = sharding.replicate(dataset.test)
    n = len(dataset.train.labels)
    steps = steps_per_epoch(config, n)
    while progress.epoch < config.epochs:
        order = epoch_order(config.seed, progress.epoch, n)
        for cut in _chunks(config, n, chunk, progress.step):
            start = time.perf_counter()
            state, losses = run_chunk(progress.state, progress.losses, images, labels, order[cut])
            finite = int(losses.finite)  # waits for the device
            seconds = progress.seconds + time.perf_counter() - start
            done = math.ceil(cut.stop / config.batch_size)
            if finite < done:
                raise _not_finite(f"step {progress.epoch * steps + finite + 1:,}", config)
            if done < steps:
                progress = Progress(state, losses, progress.epoch, done, seconds)
                yield progress, None
        score = evaluate(state.params, test_images, test_labels, model=model)
        test_loss = float(score.loss)
        if not math.isfinite(test_loss):
            raise _not_finite(f"the test after epoch {progress.epoch + 1}", config)
        progress = Progress(state, no_losses(model), progress.epoch + 1)
        yield (
            progress,
            Metrics(
                epoch=progress.epoch,
                step=progress.epoch * steps,
                train_loss=float(losses.total) / steps,
                test_loss=test_loss,
                test_accuracy=round(float(score.accuracy), 6),
                seconds=round(seconds, 6),
                images_per_second=round(n / seconds, 1),
            ),
        )


def _not_finite(where: str, config: Config) -> FlaxMnistError:
    return FlaxMnistError(
        f"The loss is not finite in {where}: the steps are too large. "
        f"Try a --learning-rate below {config.learning_rate:g}."
    )
