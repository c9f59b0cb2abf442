"""The training step and the epoch: pure functions of a state, images and labels.

All the mathematics of a step is here and in `model.py`, nowhere else.
"""

import functools
import math
from typing import Any, NamedTuple

import flax
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import NamedSharding, PartitionSpec
from jaxtyping import Array, Float, Int, Int32, Key, UInt8

from flax_mnist.checks import require_batches, require_labelled, values_checked
from flax_mnist.config import PIXELS, WEIGHT_DECAY, Config, Schedule
from flax_mnist.errors import RequestError
from flax_mnist.model import MLP, Params, log_probs, make_model, nll_losses

#: Images that are gathered at once, for as many batches as they make: seven of the tutorial's, 0.35
#: MB, which a core's cache holds.
GATHERED = 448
UNROLLED = 16  #: Losses that are added up, one after the other, without a loop's bookkeeping.


class State(NamedTuple):
    """All that a step changes: a pytree of arrays."""

    params: Params
    opt_state: Any
    """optax's: the learning rate, counts of steps, velocity or running means if it has any."""


class Losses(NamedTuple):
    """What is kept of the losses of an epoch's batches so far."""

    total: Float[Array | np.ndarray, ""]  #: Their sum, nats.
    #: After how many of them the sum was finite. Once it is not, it never is again.
    finite: Int32[Array | np.ndarray, ""]


Carry = tuple[State, Losses]  #: What one step hands to the next.


@functools.cache  # jit knows an optimizer by identity: the same numbers must be the same object
def sgd(learning_rate: float, momentum: float = 0.0) -> optax.GradientTransformation:
    """`torch.optim.SGD(lr, momentum)`: v <- momentum v + g, then p <- p - lr v.

    The learning rate lives in the optimizer's state, so that `vmap` can vary it: a step takes the
    one that was there when the state was made, whatever the optimizer it is called with says.
    """
    # Momentum 0 must be None: a velocity that is always the gradient is a copy of all weights.
    return optax.inject_hyperparams(optax.sgd)(learning_rate, momentum=momentum or None)


# Numbers that stay such, and out of the state.
_NO_SETTINGS = ("b1", "b2", "eps", "eps_root")


@functools.cache
def adam(learning_rate: float) -> optax.GradientTransformation:
    """`torch.optim.Adam(lr)`: betas 0.9 and 0.999, and eps 1e-8 outside of the root.

    Both divide the means of gradients and of their squares by 1 - beta^t before the root; the
    learning rate is in the state, as `sgd`'s.
    """
    return _promoting(optax.inject_hyperparams(optax.adam, _NO_SETTINGS)(learning_rate))


@functools.cache
def adamw(learning_rate: float, weight_decay: float) -> optax.GradientTransformation:
    """`torch.optim.AdamW(lr, weight_decay=...)`: `adam`, then p <- p - lr decay p of the old p.

    The decay is decoupled, of weights and of biases, and follows the learning rate's schedule.
    """
    make = optax.inject_hyperparams(optax.adamw, (*_NO_SETTINGS, "weight_decay"))
    return _promoting(make(learning_rate, weight_decay=weight_decay))


def _promoting(optimizer: optax.GradientTransformation) -> optax.GradientTransformation:
    """optax raises a float to the power of an int32, which JAX may be told to refuse."""

    def update(updates: Any, state: Any, params: Any = None) -> tuple[Any, Any]:
        with jax.numpy_dtype_promotion("standard"):
            updates, state = optimizer.update(updates, state, params)
        return updates, state

    return optax.GradientTransformation(optimizer.init, update)


def rate_schedule(kind: Schedule, warmup: int, total: int) -> optax.Schedule:
    """What a step multiplies the learning rate by, given how many were done before it.

    t/warmup in the first `warmup` steps, so that the very first one changes nothing. Then, for u
    from 0 to 1 over the steps from there to the `total`, 1 - u if linear, (1 + cos(pi u))/2 if
    cosine, or 1. It is `optax.warmup_cosine_decay_schedule`, and in `torch.optim.lr_scheduler` a
    `LambdaLR`, `LinearLR` or `CosineAnnealingLR` whose `step` is called after each batch.
    """
    after = {
        "constant": optax.constant_schedule(1.0),
        "linear": optax.linear_schedule(1.0, 0.0, total - warmup),
        "cosine": optax.cosine_decay_schedule(1.0, total - warmup),
    }[kind]
    rise = [optax.linear_schedule(0.0, 1.0, warmup)] if warmup else []
    factor = optax.join_schedules([*rise, after], [warmup] if warmup else [])
    # optax computes with the dtype of the count, and an int32's quotients are float32.
    return lambda count: factor(jnp.asarray(count, float))


@functools.cache
def scheduled(
    optimizer: optax.GradientTransformation, kind: Schedule, warmup: int, total: int
) -> optax.GradientTransformation:
    """The optimizer with its steps scaled by `rate_schedule`; its own state stays the first."""
    return optax.chain(optimizer, optax.scale_by_schedule(rate_schedule(kind, warmup, total)))


def make_optimizer(
    config: Config, steps_per_epoch: int | None = None
) -> optax.GradientTransformation:
    """The optimizer that `config` describes: the same object for the same settings.

    Raises:
        RequestError: the learning rate changes over the steps, and they are not given.
    """
    decay = WEIGHT_DECAY if config.weight_decay is None else config.weight_decay
    if config.optimizer == "sgd":
        optimizer = sgd(config.learning_rate, config.momentum)
    elif config.optimizer == "adam":
        optimizer = adam(config.learning_rate)
    else:
        optimizer = adamw(config.learning_rate, decay)
    if config.schedule == "constant" and not config.warmup:
        return optimizer
    if steps_per_epoch is None:
        raise RequestError("A schedule or a warm-up: make_optimizer needs the steps_per_epoch.")
    total = config.epochs * steps_per_epoch
    warmup = min(round(config.warmup * steps_per_epoch), total - 1)
    return scheduled(optimizer, config.schedule, warmup, total)


def init_state(config: Config, optimizer: optax.GradientTransformation | None = None) -> State:
    """The state before the first step; the same for the same config.

    `optimizer` is any of optax's, for which `train_step` and `train_epoch` must be given the same
    one; None is the config's.
    """
    # `jax.random.key` and what is drawn from it follow several of JAX's settings, and Flax's one:
    # the same config shall give the same bits whatever the environment says.
    words = jnp.asarray(np.array([0, config.seed], np.uint32))
    key = jax.random.wrap_key_data(words, impl="threefry2x32")
    with jax.threefry_partitionable(True), flax.config.temp_flip_flag("fix_rng_separator", False):
        optimizer = optimizer or make_optimizer(config)
        state: State = _init(key, model=make_model(config), optimizer=optimizer)
    return state


def state_shapes(config: Config, optimizer: optax.GradientTransformation | None = None) -> State:
    """What `init_state` returns, without its numbers: each leaf is a `jax.ShapeDtypeStruct`."""
    key = jax.eval_shape(jax.random.key, config.seed)
    optimizer = optimizer or make_optimizer(config)
    state: State = _init.eval_shape(key, model=make_model(config), optimizer=optimizer)
    return state


@functools.partial(
    jax.jit,  # one program, not dozens
    static_argnames=("model", "optimizer"),
    # It runs once, in a millisecond, and compiles in half the time.
    compiler_options={"xla_backend_optimization_level": 1},
)
def _init(key: Key[Array, ""], *, model: MLP, optimizer: optax.GradientTransformation) -> State:
    params = model.init(key, jnp.zeros((1, PIXELS)))["params"]
    return State(params, optimizer.init(params))


@functools.partial(jax.jit, static_argnames=("model", "optimizer"), donate_argnames="state")
def train_step(
    state: State,
    images: UInt8[Array | np.ndarray, "batch 28 28"],
    labels: Int[Array | np.ndarray, " batch"],
    *,
    model: MLP,
    optimizer: optax.GradientTransformation,
) -> tuple[State, Float[Array, ""]]:
    """One step of gradient descent on the mean loss of a batch.

    Args:
        state: donated when compiled; use the one returned.
        images, labels: the batch's; labels are in [0, 10).
        model, optimizer: static; see `make_model` and `make_optimizer`. An optimizer of one's own
            is the one that `init_state` was given: the same object, since `jit` knows it by that.

    Returns:
        The next state and the loss before the step.

    Raises:
        ArgumentError: images or labels are of another type or shape.
    """
    require_labelled(images, labels)
    state, losses = descend(state, images, labels, model, optimizer)
    return state, losses.mean()


@jax.named_scope("train_step")
def descend(
    state: State,
    images: UInt8[Array | np.ndarray, "batch 28 28"],
    labels: Int[Array | np.ndarray, " batch"],
    model: MLP,
    optimizer: optax.GradientTransformation,
) -> tuple[State, Float[Array, " batch"]]:
    """`train_step` as it is traced: the next state, and each image's loss before the step."""

    def loss(params: Params) -> tuple[Float[Array, ""], Float[Array, " batch"]]:
        losses = nll_losses(log_probs(params, images, model), labels)
        return losses.mean(), losses

    gradients, losses = jax.grad(loss, has_aux=True)(state.params)
    updates, opt_state = optimizer.update(gradients, state.opt_state, state.params)
    return State(optax.apply_updates(state.params, updates), opt_state), losses


@functools.partial(
    jax.jit,
    static_argnames=("model", "optimizer", "batch_size", "batch_sharding"),
    donate_argnames="state",
)
def train_steps(
    state: State,
    losses: Losses,
    images: UInt8[Array | np.ndarray, "n 28 28"],
    labels: Int[Array | np.ndarray, " n"],
    order: Int32[Array | np.ndarray, " rows"],
    *,
    model: MLP,
    optimizer: optax.GradientTransformation,
    batch_size: int,
    batch_sharding: NamedSharding | None = None,
) -> tuple[State, Losses]:
    """One step for each batch of `batch_size` images in the given order, the ragged last one too.

    An epoch is one call or several. Each adds its losses, one after the other, to those of the
    calls before it, so that the sum is the same wherever the epoch was cut.

    Args:
        state, model, optimizer: as for `train_step`.
        losses: of the epoch's batches before these; `no_losses` at its beginning.
        images, labels, order: all images there are, and which rows to visit, in that order.
        batch_size, batch_sharding: static; over which devices rows [batches, batch] are spread.

    Returns:
        The next state, and the losses with those of these batches.

    Raises:
        ArgumentError: images, labels, order or batch_size are of another type or shape.
    """
    require_labelled(images, labels)
    require_batches(order, batch_size)

    # In one piece an image is gathered in one piece on a TPU too; elsewhere it lies so anyway.
    flat = jnp.reshape(images, (len(images), PIXELS))
    step = functools.partial(
        _step, model=model, optimizer=optimizer, devices=_devices_apart(model, batch_sharding)
    )

    def block(carry: Carry, rows: Int32[Array, "batches batch"]) -> tuple[Carry, Array | None]:
        if batch_sharding is not None:
            rows = jax.lax.with_sharding_constraint(rows, batch_sharding)
        return jax.lax.scan(step, carry, (flat[rows], labels[rows]))

    for blocks in _cut(order, batch_size, batch_sharding):
        (state, losses), sums = jax.lax.scan(block, (state, losses), blocks)
        if sums is not None:
            losses = _with_losses(losses, sums.sum(axis=-1) / blocks.shape[-1])
    return state, losses


def _devices_apart(model: MLP, batch_sharding: NamedSharding | None) -> int | None:
    """How many devices keep sums of the losses to themselves until all steps are done; or None.

    They add up the gradients and the loss together, but not if these are of two types.
    """
    is_one_type = jnp.dtype(model.dtype) == model.param_dtype
    return None if batch_sharding is None or is_one_type else batch_sharding.mesh.size


def _step(
    carry: Carry,
    batch: tuple[Array, Array],
    *,
    model: MLP,
    optimizer: optax.GradientTransformation,
    devices: int | None,
) -> tuple[Carry, Float[Array, " groups"] | None]:
    (state, losses), (pixels, labels) = carry, batch
    state, each = descend(state, pixels.reshape(-1, 28, 28), labels, model, optimizer)
    if devices is None:
        return (state, _with_loss(losses, each.mean())), None
    # Of each device's share, or of larger ones where the devices do not divide the batch.
    sums = each.reshape(math.gcd(len(each), devices), -1).sum(axis=-1)
    return (state, losses), sums


def _with_loss(losses: Losses, loss: Float[Array, ""]) -> Losses:
    total = losses.total + loss
    return Losses(total, losses.finite + jnp.isfinite(total).astype(np.int32))


def _with_losses(losses: Losses, batches: Float[Array, "blocks batches"]) -> Losses:
    """One after the other, as `_with_loss` has them."""
    return jax.lax.scan(
        lambda losses, loss: (_with_loss(losses, loss), None),
        losses, batches.ravel(), unroll=UNROLLED,
    )[0]  # fmt: skip


def block_length(batch_size: int) -> int:
    """Of how many batches the images are gathered at once."""
    return max(1, GATHERED // batch_size)


def _cut(
    order: Int32[Array | np.ndarray, " rows"],
    batch_size: int,
    batch_sharding: NamedSharding | None,
) -> list[Int32[Array, "blocks batches batch"]]:
    """The order as blocks of batches: full ones, the batches left over, the ragged last batch.

    Each device has all of them; if they were spread, devices would pass on rows to each other.
    """
    batches, ragged = divmod(len(order), batch_size)
    length = block_length(batch_size)
    full, left = divmod(batches, length)
    shapes = (full, length, batch_size), (1, left, batch_size), (1, 1, ragged)
    pieces = jnp.split(order, np.cumsum([math.prod(shape) for shape in shapes])[:-1])
    blocks = [
        jnp.reshape(piece, shape) for piece, shape in zip(pieces, shapes, strict=True) if piece.size
    ]
    if batch_sharding is None:
        return blocks
    whole = NamedSharding(batch_sharding.mesh, PartitionSpec())
    return [jax.lax.with_sharding_constraint(rows, whole) for rows in blocks]


def no_losses(model: MLP) -> Losses:
    """Those before an epoch's first step."""
    # NumPy's: outside of `jit` each of JAX's would be a program to compile.
    return Losses(np.zeros((), model.param_dtype), np.zeros((), np.int32))


@values_checked
@functools.partial(
    jax.jit, static_argnames=("model", "optimizer", "batch_size"), donate_argnames="state"
)
def train_epoch(
    state: State,
    images: UInt8[Array | np.ndarray, "n 28 28"],
    labels: Int[Array | np.ndarray, " n"],
    order: Int32[Array | np.ndarray, " rows"],
    *,
    model: MLP,
    optimizer: optax.GradientTransformation,
    batch_size: int,
) -> tuple[State, Float[Array, ""]]:
    """An epoch in one call; for the arguments see `train_steps`.

    Returns:
        The next state, and the mean of the batches' losses. Each batch counts the same, as in the
        tutorial's `running_loss / len(trainloader)`.

    Raises:
        ArgumentError: as `train_steps`; or labels or rows that are NumPy's are out of range.
    """
    none = no_losses(model)
    state, losses = train_steps(
        state, none, images, labels, order, model=model, optimizer=optimizer, batch_size=batch_size
    )
    return state, losses.total / math.ceil(len(order) / batch_size)
