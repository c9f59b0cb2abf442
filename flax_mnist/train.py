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


RunEpoch = Callable[[State, ArrayLike, ArrayLike, ArrayLike], tuple[State, Array]]
"""`train_epoch` of one model and optimizer: state, images, labels and order to state and loss."""


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
    """One step for each batch of `batch_size` images in the given order, the ragged last one too.

    Args:
        state: donated when compiled; use the one returned.
        images: uint8 `[n, 28, 28]`.
        labels: integer `[n]` in [0, 10).
        order: int32, the rows to visit, in that order.
        model: static.
        optimizer: static; see `sgd`.
        batch_size: static.

    Returns:
        The next state and the mean of the batches' losses, each batch counting the same: the
        tutorial's `running_loss / len(trainloader)`. A scalar.
    """

    def step(carry: tuple[State, Array], rows: Array) -> tuple[tuple[State, Array], None]:
        state, total = carry
        state, loss = train_step(
            state, images[rows], labels[rows], model=model, optimizer=optimizer
        )
        return (state, total + loss), None

    full, rest = divmod(len(order), batch_size)
    carry = (state, jnp.zeros((), model.param_dtype))
    carry, _ = jax.lax.scan(step, carry, order[: full * batch_size].reshape(full, batch_size))
    if rest:
        carry, _ = step(carry, order[full * batch_size :])
    state, total = carry
    return state, total / (full + bool(rest))


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


def compile_epoch(config: Config, state: State, train: Split) -> RunEpoch:
    """`train_epoch` for these shapes, compiled before it is first called.

    So the first epoch takes as long as any other, and the compilation can be timed on its own.
    """
    lowered = train_epoch.lower(
        state,
        *train,
        jax.ShapeDtypeStruct(train.labels.shape, jnp.int32),
        model=make_model(config),
        optimizer=make_optimizer(config),
        batch_size=config.batch_size,
    )
    return lowered.compile(compiler_options=compiler_options())


def fit(
    config: Config, dataset: Dataset, state: State, run_epoch: RunEpoch
) -> Iterator[tuple[State, Metrics]]:
    """Trains epoch by epoch.

    Args:
        config: how.
        dataset: on what.
        state: from `init_state`; donated.
        run_epoch: from `compile_epoch`.

    Yields:
        After each epoch the state, good until the next one is asked for, and the metrics.

    Raises:
        FlaxMnistError: a loss is not finite.
    """
    model = make_model(config)
    images, labels = jax.device_put(dataset.train)
    test_images, test_labels = jax.device_put(dataset.test)
    n = len(dataset.train.labels)
    for epoch in range(config.epochs):
        order = epoch_order(config.seed, epoch, n)
        start = time.perf_counter()
        state, loss = run_epoch(state, images, labels, order)
        train_loss = float(loss)  # waits for the device
        seconds = time.perf_counter() - start
        score = evaluate(state.params, test_images, test_labels, model=model)
        for what, value in (("training", train_loss), ("test", float(score.loss))):
            if not math.isfinite(value):
                raise FlaxMnistError(
                    f"The {what} loss is {value} in epoch {epoch + 1}: the steps are too large. "
                    f"Try a --learning-rate below {config.learning_rate:g}."
                )
        yield (
            state,
            Metrics(
                epoch=epoch + 1,
                step=(epoch + 1) * math.ceil(n / config.batch_size),
                train_loss=train_loss,
                test_loss=float(score.loss),
                test_accuracy=round(float(score.accuracy), 6),
                seconds=round(seconds, 6),
                images_per_second=round(n / seconds, 1),
            ),
        )
