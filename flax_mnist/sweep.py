"""Many networks at once: each member of a sweep is what the single run of its config would be.

Members differ in learning rate, momentum and seed alone, so that one compiled program trains them
all: the first two are leaves of the optimizer's state, the seed is in the weights and the order.

In float64 a member equals its single run within 1e-12. In float32 they had the same bits on a CPU,
which trains one after the other; under `vmap` they round otherwise: up to 1e-5 after 32 steps.
"""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math
import os
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from flax_mnist.config import Config
from flax_mnist.data import Dataset
from flax_mnist.errors import RequestError
from flax_mnist.evaluation import Evaluation, evaluate, predict
from flax_mnist.model import CLASSES, PIXELS, Params, make_model
from flax_mnist.train import (
    Metrics,
    State,
    compiler_options,
    epoch_order,
    init_state,
    make_optimizer,
    steps_per_epoch,
    train_epoch,
)


def combinations(
    config: Config, learning_rates: Sequence[float], momenta: Sequence[float], seeds: int
) -> list[Config]:
    """The members: each learning rate with each momentum and each seed, from `config.seed` on.

    Raises:
        RequestError: there are none, or a value is out of its range.
    """
    counts = {"learning-rates": len(learning_rates), "momenta": len(momenta), "seeds": seeds}
    for name, count in counts.items():
        if count < 1:
            raise RequestError(f"{name}: there must be at least 1.")
    settings = itertools.product(dict.fromkeys(learning_rates), dict.fromkeys(momenta))
    return [
        dataclasses.replace(config, learning_rate=rate, momentum=momentum, seed=config.seed + i)
        for rate, momentum in settings
        for i in range(seeds)
    ]


# ---- How many fit ---------------------------------------------------------------------------


def cpu_devices(members: int) -> int:
    """Into how many devices to divide a CPU.

    One for each core: two that share a step gain little, but each can train a member by itself.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, members)


MEMORY_SHARE = 0.5
"""Of a device's memory, what a sweep may fill: it is only estimated, and not all of it is free."""


def memory(device: jax.Device) -> float:
    """Bytes that a sweep may fill on the device; infinite where the system does not say."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is None and hasattr(os, "sysconf"):  # CPU devices share the machine's
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        limit = pages * size / jax.local_device_count(device.platform)
    return math.inf if limit is None else MEMORY_SHARE * limit


def member_bytes(config: Config, dataset: Dataset) -> int:
    """Estimate of what a device needs for a member while it is trained."""
    units = PIXELS + sum(config.hidden_sizes) + CLASSES
    weights = config.weights + units
    # The state before an epoch, after it, and in it beside the gradients.
    states = 3 * weights * (2 if config.momentum else 1) + weights
    # The inputs need no gradients.
    activations = config.batch_size * (2 * units - PIXELS)
    probabilities = CLASSES * len(dataset.test.labels)
    order = 4 * len(dataset.train.labels)
    return _width(config) * (states + activations + probabilities) + order


def shared_bytes(config: Config, dataset: Dataset) -> int:
    """Estimate of what a device needs besides its members: the images, and one member's test."""
    units = PIXELS + sum(config.hidden_sizes) + CLASSES
    arrays = (*dataset.train, *dataset.test)
    return sum(a.nbytes for a in arrays) + _width(config) * len(dataset.test.labels) * units


def _width(config: Config) -> int:
    return 8 if config.sums_in_float64 else 4


class Plan(NamedTuple):
    """Which members are trained together, and where."""

    groups: list[Sequence[Config]]
    """One after the other; only the last may be smaller than the first."""
    template: Config
    """Stands for every member: it has a momentum, and so a velocity, if any of them has."""
    mesh: Mesh
    """The devices over which each group is spread."""
    bytes: int
    """Estimate of the memory that is needed on all of them together."""


def make_plan(
    members: Sequence[Config], dataset: Dataset, devices: Sequence[jax.Device], free: float
) -> Plan:
    """All members in one group, or where they do not fit, in groups of much the same size.

    Args:
        members: of the sweep.
        dataset: what they are trained on.
        devices: what they are spread over.
        free: bytes that may be filled on each device; see `memory`.
    """
    template = dataclasses.replace(members[0], momentum=max(c.momentum for c in members))
    shared, own = shared_bytes(template, dataset), member_bytes(template, dataset)
    on_a_device = max(1, math.floor(min(len(members), (free - shared) / own)))
    size = math.ceil(len(members) / math.ceil(len(members) / (on_a_device * len(devices))))
    groups = [members[start : start + size] for start in range(0, len(members), size)]
    mesh = Mesh(np.array(devices[:size]), "members")
    return Plan(groups, template, mesh, mesh.size * (shared + math.ceil(size / mesh.size) * own))


# ---- The program ----------------------------------------------------------------------------


class Programs(NamedTuple):
    """`train_epoch`, `evaluate` and `predict` of a whole group: arrays are `[members, ...]`."""

    train: Callable[..., tuple[State, Array]]
    evaluate: Callable[..., Evaluation]
    predict: Callable[..., Array]


def compile_programs(plan: Plan, dataset: Dataset, together: bool) -> Programs:
    """What trains any group of the plan.

    Args:
        plan: the groups.
        dataset: what they are trained on.
        together: a device takes each step for all its members at once, by `vmap`. Otherwise it
            trains one after the other, which suits the core of a CPU.
    """
    template, mesh = plan.template, plan.mesh
    own, common = shardings(mesh)
    model = make_model(template)

    def train(member: tuple[State, Array], images: Array, labels: Array) -> tuple[State, Array]:
        state, order = member
        after: tuple[State, Array] = train_epoch(
            state,
            images,
            labels,
            order,
            model=model,
            optimizer=make_optimizer(template),
            batch_size=template.batch_size,
        )
        return after

    def stacked(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((_lanes(plan), *leaf.shape), leaf.dtype, sharding=own)

    order = jax.ShapeDtypeStruct(dataset.train.labels.shape, jnp.int32)
    members = jax.tree.map(stacked, (init_state(template), order))
    images, labels = (
        jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=common) for array in dataset.train
    )
    lowered = _for_each(train, mesh, together).lower(members, images, labels)
    return Programs(
        lowered.compile(compiler_options=compiler_options()),
        # One member's test is work enough for a device, and takes much memory.
        _for_each(functools.partial(evaluate, model=model), mesh, together=False),
        _for_each(functools.partial(predict, model=model), mesh, together=False),
    )


def _for_each(function: Callable[..., Any], mesh: Mesh, together: bool) -> Any:
    """`function(member, *shared)` for many members, stacked and spread over the devices."""

    def on_a_device(members: Any, *shared: Array) -> Any:
        def one(member: Any) -> Any:
            return function(member, *shared)

        return jax.vmap(one)(members) if together else jax.lax.map(one, members)

    def spread(members: Any, *shared: Array) -> Any:
        own, common = PartitionSpec("members"), PartitionSpec()
        return jax.shard_map(
            on_a_device,
            mesh=mesh,
            in_specs=(own, *[common] * len(shared)),
            out_specs=own,
            check_vma=False,  # it would have every loop say that devices do not share its values
        )(members, *shared)

    return jax.jit(spread)


def shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """Of what each member has of its own, and of what is common to all."""
    return NamedSharding(mesh, PartitionSpec("members")), NamedSharding(mesh, PartitionSpec())


def _lanes(plan: Plan) -> int:
    """How many train at a time: the members of a group, and some again to fill up the devices."""
    devices = plan.mesh.size
    return devices * math.ceil(len(plan.groups[0]) / devices)


# ---- The loop -------------------------------------------------------------------------------


Rows = list[tuple[Config, Metrics]]
"""Members, each with what is known of it after an epoch."""


class Trained(NamedTuple):
    """A group at its end, on the host."""

    params: Params
    """Each leaf `[members, ...]`."""
    probabilities: NDArray[np.floating]
    """Of the classes of the test images: `[members, n, 10]`."""


class Epoch(NamedTuple):
    """What is known of a group after an epoch."""

    group: int
    """From 0."""
    rows: Rows
    """Of each member. Losses and accuracy are NaN from the epoch on in which a loss is not finite;
    the seconds are the member's share of the group's."""
    trained: Trained | None
    """After the last epoch."""


def fit(plan: Plan, dataset: Dataset, programs: Programs) -> Iterator[Epoch]:
    """Trains one group of members after the other; yields after each of its epochs.

    Where a single run would stop, because its loss is not finite, no other member is concerned.
    """
    template = plan.template
    own, common = shardings(plan.mesh)
    train, test = jax.device_put((dataset.train, dataset.test), common)
    for number, group in enumerate(plan.groups):
        lanes = [*group, *[group[-1]] * (_lanes(plan) - len(group))]
        state: Any = jax.device_put(_stacked_states(lanes, template), own)
        healthy = np.ones(len(group), bool)
        for epoch in range(1, template.epochs + 1):
            order = jax.device_put(_stacked_orders(lanes, epoch - 1, len(train.labels)), own)
            began = time.perf_counter()
            state, losses = jax.block_until_ready(programs.train((state, order), *train))
            seconds = time.perf_counter() - began
            scores = jax.device_get((losses, *programs.evaluate(state.params, *test)))
            values = np.array(scores, np.float64)[:, : len(group)]
            healthy &= np.isfinite(values).all(axis=0)
            values[:, ~healthy] = np.nan
            metrics = _metrics(values, epoch, seconds, len(train.labels), template)
            trained = None
            if epoch == template.epochs:
                probabilities = programs.predict(state.params, test.images)
                trained = Trained(*jax.device_get((state.params, probabilities)))
            yield Epoch(number, list(zip(group, metrics, strict=True)), trained)


def _stacked_states(members: Sequence[Config], template: Config) -> State:
    """The members' states before the first step, on the host: each leaf `[members, ...]`."""
    seeds = {config.seed for config in members}
    by_seed = {s: jax.device_get(init_state(dataclasses.replace(template, seed=s))) for s in seeds}

    def state(config: Config) -> State:
        params, opt_state = by_seed[config.seed]
        hyperparams = {
            name: np.full_like(value, getattr(config, name))
            for name, value in opt_state.hyperparams.items()
        }
        return State(params, opt_state._replace(hyperparams=hyperparams))

    stacked: State = jax.tree.map(lambda *leaves: np.stack(leaves), *map(state, members))
    return stacked


def _stacked_orders(members: Sequence[Config], epoch: int, n: int) -> NDArray[np.int32]:
    """The members' orders of an epoch, `[members, n]`."""
    by_seed = {seed: epoch_order(seed, epoch, n) for seed in {config.seed for config in members}}
    return np.stack([by_seed[config.seed] for config in members])


def _metrics(
    values: NDArray[np.float64], epoch: int, seconds: float, n: int, config: Config
) -> list[Metrics]:
    """Of each member, from its training loss, test loss and test accuracy: `[3, members]`."""
    share = seconds / values.shape[1]
    return [
        Metrics(
            epoch=epoch,
            step=epoch * steps_per_epoch(config, n),
            train_loss=train_loss,
            test_loss=test_loss,
            test_accuracy=round(test_accuracy, 6),
            seconds=round(share, 6),
            images_per_second=round(n / share, 1),
        )
        for train_loss, test_loss, test_accuracy in values.T.tolist()
    ]


# ---- What came of it ------------------------------------------------------------------------


@dataclasses.dataclass
class Outcome:
    """What has become of a setting: of its members, which differ in their seeds alone."""

    learning_rate: float
    momentum: float
    diverged: int = 0
    """Members that did. All else is of the others."""
    test_losses: list[float] = dataclasses.field(default_factory=list)
    test_accuracies: list[float] = dataclasses.field(default_factory=list)
    probabilities: NDArray[np.floating] | float = 0.0
    """The sum of theirs, of the test images' classes: `[n, 10]`."""
    best: tuple[Config, Params] | None = None
    """The one with the lowest test loss."""

    def add(self, config: Config, last: Metrics, trained: Trained, i: int) -> None:
        """Adds a member: the one at `i` in its group."""
        if math.isnan(last.test_loss):
            self.diverged += 1
            return
        if last.test_loss < min(self.test_losses, default=math.inf):
            # A copy: a view would keep the whole group in memory.
            self.best = config, jax.tree.map(lambda leaf: leaf[i].copy(), trained.params)
        self.test_losses.append(last.test_loss)
        self.test_accuracies.append(last.test_accuracy)
        self.probabilities = self.probabilities + trained.probabilities[i]

    @property
    def rank(self) -> tuple[int, float]:
        """The lower the better: first how many diverged, then the mean test loss."""
        return self.diverged, statistics.fmean(self.test_losses or [math.inf])

    def ensemble_accuracy(self, labels: NDArray[np.int32]) -> float:
        """Share of the test images that the mean of the probabilities classifies rightly."""
        return float(np.mean(np.argmax(self.probabilities, axis=-1) == labels))


def outcomes_of(members: Sequence[Config]) -> dict[tuple[float, float], Outcome]:
    """One for each learning rate and momentum, with nothing in it yet."""
    settings = dict.fromkeys((config.learning_rate, config.momentum) for config in members)
    return {setting: Outcome(*setting) for setting in settings}


def collect(outcomes: dict[tuple[float, float], Outcome], epoch: Epoch) -> None:
    """Adds a group's members to the outcomes of their settings, once they are trained."""
    if epoch.trained is not None:
        for i, (config, last) in enumerate(epoch.rows):
            setting = config.learning_rate, config.momentum
            outcomes[setting].add(config, last, epoch.trained, i)
