"""The training of a group of members, which are one compiled program's worth, epoch by epoch."""

import functools
import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from jax.stages import Lowered
from jaxtyping import Bool, Float, Float64, Int32

from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset, Split
from flax_mnist.data.order import epoch_order, steps_per_epoch
from flax_mnist.data.validation import held_out
from flax_mnist.devices import processes
from flax_mnist.devices.runtime import compiler_options
from flax_mnist.evaluation import evaluate, predict
from flax_mnist.model import MLP, Params, make_model
from flax_mnist.runs import loop
from flax_mnist.store.checkpoint import Progress
from flax_mnist.store.metrics import Metrics
from flax_mnist.sweep import Stacked, for_each, shardings, spread_out, stacked_states
from flax_mnist.sweeps.plan import Group, Plan
from flax_mnist.train import Losses, State, make_optimizer, train_steps

#: What is known of a member at the end: of the epoch whose weights are kept.
COLUMNS = ("test_loss", "test_accuracy", "validation_loss", "validation_accuracy")
VALIDATION_LOSS = COLUMNS.index("validation_loss")
MemberRows = list[tuple[Config, Metrics]]  #: Members, each with what is known of it after an epoch.


class Images(NamedTuple):
    """What all members see, on every device."""

    train: Split
    test: Split


class Standing(NamedTuple):
    """Where a group stands: all that is needed to go on from there as if it had never stopped."""

    progress: Progress  #: Each leaf `[lanes, ...]`, spread over the devices.
    #: `[lanes, ...]`: of the epoch with the lowest validation loss. None where none is known.
    kept: Params | None
    healthy: Bool[np.ndarray, " members"]  #: Those that have not diverged.
    #: `COLUMNS` of the epoch that is kept, the last one or the best; NaN is not known.
    results: Float64[np.ndarray, "members 4"]
    best_epochs: Int32[np.ndarray, " members"]  #: Those epochs, from 1; 0 before there is one.


class Programs(NamedTuple):
    """What trains and scores the groups of one template: arrays are `[lanes, ...]`."""

    #: By the number of images in a chunk: of state, losses and order, and of the images.
    train: Mapping[int, Callable[..., tuple[State, Losses]]]
    score: Callable[..., tuple[Array, ...]]
    keep: Callable[..., Params]
    predict: Callable[..., Array]
    chunk: int  #: Steps in a call.
    images: int  #: In an epoch.


def place_images(plan: Plan, dataset: Dataset) -> Images:
    """The images on every device of this process."""
    _, common = shardings(plan.mesh)
    put = functools.partial(jax.make_array_from_process_local_data, common)
    images = jax.tree.map(put, Images(dataset.train, dataset.test))
    return Images(*jax.block_until_ready(images))


def compile_programs(
    plan: Plan,
    group: Group,
    images: Images,
    at_most: int | float = math.inf,
    standing: Standing | None = None,
) -> Programs:
    """What trains any group of this one's template, in chunks of `at_most` so many steps.

    One that is gone on with in an epoch may need a program of its own.
    """
    template = group.template
    n = len(images.train.labels) - template.validation
    each = plan.lanes(group) // plan.mesh.size
    chunk = loop.chunk_steps(template, n, at_most, networks=each)
    first = standing.progress.step if standing else 0
    lengths = sorted(loop.chunk_lengths(template, n, chunk, first))
    model, options = make_model(template), _options(plan, group)
    many = functools.partial(for_each, mesh=plan.mesh, options=options)
    return Programs(
        {rows: lower_chunk(plan, group, images.train, rows).compile() for rows in lengths},
        # One member's test is work enough for a device, and takes much memory.
        many(functools.partial(score, model=model), together=False, own=2),
        many(_keep_better, together=False, own=3, donated=[2]),
        many(functools.partial(predict, model=model), together=False),
        chunk,
        n,
    )


def lower_chunk(plan: Plan, group: Group, train: Split, rows: int) -> Lowered:
    """`train_steps` for a chunk of so many images, of all the group's members.

    Of the images only shapes, dtypes and devices count.
    """
    template, (own, _) = group.template, shardings(plan.mesh)
    optimizer = _optimizer(template, len(train.labels) - template.validation)
    static = {"model": make_model(template), "optimizer": optimizer}
    program = for_each(
        functools.partial(train_member, **static, batch_size=template.batch_size),
        plan.mesh,
        plan.together,
        own=3,
        options=_options(plan, group),
        donated=[0],
    )
    one = stacked_states(group.members[:1], template, optimizer), _no_losses(template, 1)
    members = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(
            (plan.lanes(group), *leaf.shape[1:]), leaf.dtype, sharding=own
        ),
        (*one, np.zeros((1, rows), np.int32)),
    )
    lowered: Lowered = program.lower(*members, *train)
    return lowered


def _options(plan: Plan, group: Group) -> dict[str, str | bool]:
    return compiler_options(group.template.deterministic, plan.mesh.devices[0].platform)


def train_member(
    state: State, losses: Losses, order: Array, images: Array, labels: Array, **static: Any
) -> tuple[State, Losses]:
    """`train_steps`, with what a member has of its own before what all see."""
    after: tuple[State, Losses] = train_steps(state, losses, images, labels, order, **static)
    return after


def score(
    params: Params, held: Int32[Array, " held"], train: Split, test: Split, *, model: MLP
) -> tuple[Float[Array, ""], ...]:
    """Test loss and accuracy, and validation loss and accuracy where rows are held out."""
    scores = evaluate(params, *test, model=model)
    if not len(held):
        return tuple(scores)
    images, labels = (array[held] for array in train)
    return (*scores, *evaluate(params, images, labels, model=model))


def _keep_better(is_better: Bool[Array, ""], params: Params, kept: Params) -> Params:
    better: Params = jax.tree.map(lambda a, b: jnp.where(is_better, a, b), params, kept)
    return better


def _optimizer(template: Config, n: int) -> optax.GradientTransformation:
    return make_optimizer(template, steps_per_epoch(template, n))


def _no_losses(template: Config, count: int) -> Losses:
    return Losses(np.zeros(count, make_model(template).param_dtype), np.zeros(count, np.int32))


def begin(plan: Plan, group: Group, images: Images) -> Standing:
    """Before the first step."""
    template, count = group.template, len(group.members)
    optimizer = _optimizer(template, len(images.train.labels) - template.validation)

    def states(numbers: Sequence[int]) -> tuple[State, Losses]:
        stacked = stacked_states([group.members[i] for i in numbers], template, optimizer)
        return stacked, _no_losses(template, len(numbers))

    state, losses = on_lanes(plan, group, states)
    kept = on_lanes(plan, group, lambda i: states(i)[0].params) if template.validation else None
    unknown = np.full((count, len(COLUMNS)), np.nan)
    return Standing(
        Progress(state, losses), kept, np.ones(count, bool), unknown, np.zeros(count, np.int32)
    )


def on_lanes(plan: Plan, group: Group, make: Callable[[Sequence[int]], Stacked]) -> Stacked:
    """What is made of the members of some numbers, `[lanes, ...]`, on the devices that train them.

    A process makes its own lanes alone; the last member fills those that are over.
    """
    lanes, last, (own, _) = plan.lanes(group), len(group.members) - 1, shardings(plan.mesh)
    return spread_out(lambda part: make([min(i, last) for i in range(lanes)[part]]), lanes, own)


def fit(
    plan: Plan, group: Group, images: Images, standing: Standing, programs: Programs
) -> Iterator[tuple[Standing, MemberRows | None]]:
    """Trains the members of a group chunk by chunk until they have all their epochs.

    Where a single run would stop, because its loss is not finite, no other member is concerned.

    Yields:
        After each chunk where the group stands, good until the next one; with the members' metrics
        where an epoch ended. Losses and accuracies are NaN from the epoch on in which a loss is not
        finite; the seconds are a member's share of the group's.
    """
    template, n = group.template, programs.images
    steps, count = steps_per_epoch(template, n), len(group.members)
    orders = _Orders(plan, group, len(images.train.labels))
    held = orders.on_devices(orders.held)

    def run(state: State, losses: Losses, order: Int32[np.ndarray, "seeds rows"]) -> Any:
        rows = orders.on_devices(order)
        return programs.train[order.shape[-1]](state, losses, rows, *images.train)

    while (epoch := standing.progress.epoch) < template.epochs:
        order = orders.of_epoch(epoch)
        rest = loop.rest_of_epoch(template, standing.progress, order, run, programs.chunk)
        for progress in rest:
            standing = standing._replace(progress=progress)
            if progress.step < steps:
                yield standing, None
        losses = whole(progress.losses, plan.mesh)
        params = progress.state.params
        scores = whole(programs.score(params, held, *images), plan.mesh)
        values = np.array([losses.total.astype(np.float64) / steps, *scores], np.float64)[:, :count]
        none = on_lanes(plan, group, lambda numbers: _no_losses(template, len(numbers)))
        standing = standing._replace(progress=Progress(progress.state, none, epoch + 1))
        standing, is_better = _noted(standing, values, losses.finite[:count] == steps)
        if standing.kept is not None:
            chosen = on_lanes(plan, group, lambda numbers: is_better[numbers])  # noqa: B023
            kept = programs.keep(chosen, params, standing.kept)
            standing = standing._replace(kept=kept)
        values[:, ~standing.healthy] = np.nan
        yield standing, _rows(group, n, standing, values, progress.seconds / count)


def _noted(
    standing: Standing, values: Float64[np.ndarray, "scores members"], finite: Any
) -> tuple[Standing, Bool[np.ndarray, " members"]]:
    """With what an epoch came to, and of which members it is the best one so far."""
    healthy = standing.healthy & finite & np.isfinite(values).all(axis=0)
    now = np.full_like(standing.results, np.nan)
    now[:, : len(values) - 1] = values[1:].T
    before = standing.results[:, VALIDATION_LOSS]
    # Where nothing is held out, the last one is kept.
    is_better = healthy & ~(now[:, VALIDATION_LOSS] >= before)
    epochs = np.where(is_better, standing.progress.epoch, standing.best_epochs).astype(np.int32)
    results = np.where(is_better[:, None], now, standing.results)
    results[~healthy] = np.nan
    noted = standing._replace(healthy=healthy, results=results, best_epochs=epochs)
    return noted, is_better


def _rows(
    group: Group,
    n: int,
    standing: Standing,
    values: Float64[np.ndarray, "scores members"],
    seconds: float,
) -> MemberRows:
    rows = []
    for i, (config, scores) in enumerate(zip(group.members, values.T.tolist(), strict=True)):
        metrics = loop.metrics_of(config, n, standing.progress.epoch, seconds, scores)
        if config.validation:
            metrics = metrics._replace(best_epoch=int(standing.best_epochs[i]))
        rows.append((config, metrics))
    return rows


class _Orders:
    """Which images the members on this process's devices see, seed by seed: `[seeds, rows]`."""

    def __init__(self, plan: Plan, group: Group, n: int) -> None:
        self.plan, self.group = plan, group
        lanes, (own, _) = plan.lanes(group), shardings(plan.mesh)
        parts = own.addressable_devices_indices_map((lanes,)).values()
        here = {
            min(i, len(group.members) - 1) for part in parts if part for i in range(lanes)[part[0]]
        }
        self.seeds = sorted({group.members[i].seed for i in here})
        validation = group.template.validation
        masks = [
            held_out(n, validation, seed) if validation else np.zeros(n, bool)
            for seed in self.seeds
        ]
        self.trained = np.stack([np.flatnonzero(~mask) for mask in masks]).astype(np.int32)
        self.held = np.stack([np.flatnonzero(mask) for mask in masks]).astype(np.int32)

    def of_epoch(self, epoch: int) -> Int32[np.ndarray, "seeds rows"]:
        """The orders of an epoch, of the images that are not held out."""
        orders = (
            rows[epoch_order(seed, epoch, len(rows))]
            for seed, rows in zip(self.seeds, self.trained, strict=True)
        )
        return np.stack([*orders])

    def on_devices(self, rows: Int32[np.ndarray, "seeds rows"]) -> Any:
        """Those of each member, `[lanes, rows]`."""
        by_seed = {seed: i for i, seed in enumerate(self.seeds)}

        def of(numbers: Sequence[int]) -> np.ndarray:
            return rows[[by_seed[self.group.members[i].seed] for i in numbers]]

        return on_lanes(self.plan, self.group, of)


def kept_params(standing: Standing) -> Params:
    """Those of the epoch that is kept: the last one, or the best."""
    return standing.progress.state.params if standing.kept is None else standing.kept


def whole(tree: Stacked, mesh: Mesh) -> Stacked:
    """A pytree of arrays that are spread over the devices: on the host, in every process."""
    if not processes.are_many():
        on_host: Stacked = jax.device_get(tree)
        return on_host

    def gathered(leaf: Array) -> np.ndarray:
        # One after the other, since each is for a moment whole on every device.
        everywhere = NamedSharding(mesh, PartitionSpec())
        return np.asarray(jax.jit(jnp.copy, out_shardings=everywhere)(leaf).addressable_data(0))

    of_all: Stacked = jax.tree.map(gathered, tree)
    return of_all
