"""A sweep from its beginning to its end."""

from __future__ import annotations

import dataclasses
import functools
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
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import epoch_order, steps_per_epoch
from flax_mnist.devices.memory import Plan, lanes
from flax_mnist.devices.runtime import compiler_options
from flax_mnist.evaluation import Evaluation, evaluate, predict
from flax_mnist.model import Params, make_model
from flax_mnist.store.metrics import Metrics
from flax_mnist.train import State, init_state, make_optimizer, train_epoch


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
        return jax.ShapeDtypeStruct((lanes(plan), *leaf.shape), leaf.dtype, sharding=own)

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
        padded = [*group, *[group[-1]] * (lanes(plan) - len(group))]
        state: Any = jax.device_put(_stacked_states(padded, template), own)
        healthy = np.ones(len(group), bool)
        for epoch in range(1, template.epochs + 1):
            order = jax.device_put(_stacked_orders(padded, epoch - 1, len(train.labels)), own)
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
