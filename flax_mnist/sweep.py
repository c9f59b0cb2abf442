"""Many networks at once: each member of a sweep is what the single run of its config would be.

Members of one network and batch size differ in learning rate, momentum and seed alone, so that one
compiled program trains them all: the first two are leaves of the optimizer's state, the seed is in
the weights and the order. Other networks and batch sizes have a program of their own.

In float64 a member equals its single run within 1e-12. In float32 they had the same bits on a CPU,
which trains one after the other; under `vmap` they round otherwise: up to 1e-5 after 32 steps.
"""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any, TypeVar

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec

from flax_mnist.config import Config
from flax_mnist.train import State, init_state

Stacked = TypeVar("Stacked")  #: Any pytree of arrays.


def stacked_states(
    members: Sequence[Config],
    template: Config,
    optimizer: optax.GradientTransformation | None = None,
) -> State:
    """The members' states before the first step, on the host: each leaf `[members, ...]`.

    The optimizer is one of `make_optimizer`'s, by default the template's.
    """
    seeds = {config.seed for config in members}
    by_seed = {
        seed: jax.device_get(init_state(dataclasses.replace(template, seed=seed), optimizer))
        for seed in seeds
    }

    def state(config: Config) -> State:
        params, opt_state = by_seed[config.seed]
        hyperparams = {
            name: np.full_like(value, getattr(config, name))
            for name, value in optax.tree.get(opt_state, "hyperparams").items()
        }
        return State(params, optax.tree.set(opt_state, hyperparams=hyperparams))

    stacked: State = jax.tree.map(lambda *leaves: np.stack(leaves), *map(state, members))
    return stacked


def for_each(
    function: Callable[..., Any],
    mesh: Mesh,
    together: bool,
    own: int = 1,
    options: dict[str, Any] | None = None,
    donated: Sequence[int] = (),
) -> Any:
    """`function(*own, *shared)` for many members, compiled.

    Args:
        function: of what a member has of its own, and of what all have in common.
        mesh: the devices over which the members are spread. No device waits for another.
        together: a device takes each step for all its members at once, by `vmap`. Otherwise it
            trains one after the other, which suits the core of a CPU.
        own: how many of the arguments, the first ones, are the members': `[members, ...]`.
        options: what the compiler is told.
        donated: of which of them the memory may be used again.
    """

    def on_a_device(*arguments: Any) -> Any:
        members, shared = arguments[:own], arguments[own:]

        def one(member: Sequence[Any]) -> Any:
            return function(*member, *shared)

        return jax.vmap(one)(members) if together else jax.lax.map(one, members)

    def spread(*arguments: Any) -> Any:
        mine, common = PartitionSpec("members"), PartitionSpec()
        return jax.shard_map(
            on_a_device,
            mesh=mesh,
            in_specs=(*[mine] * own, *[common] * (len(arguments) - own)),
            out_specs=mine,
            check_vma=False,  # it would have every loop say that devices do not share its values
        )(*arguments)

    return jax.jit(spread, compiler_options=options, donate_argnums=donated)


def shardings(mesh: Mesh) -> tuple[NamedSharding, NamedSharding]:
    """Of what each member has of its own, and of what is common to all."""
    return NamedSharding(mesh, PartitionSpec("members")), NamedSharding(mesh, PartitionSpec())


def spread_out(make: Callable[[slice], Stacked], lanes: int, own: NamedSharding) -> Stacked:
    """A pytree of arrays `[lanes, ...]`, spread over the devices of all processes.

    Each process makes, on its host, the lanes of its own devices alone: `make` is given which.
    """
    parts = own.addressable_devices_indices_map((lanes,))
    made = [jax.device_put(make(part[0]), device) for device, part in parts.items() if part]

    def joined(*leaves: Array) -> Array:
        shape = (lanes, *leaves[0].shape[1:])
        return jax.make_array_from_single_device_arrays(shape, own, list(leaves))

    tree: Stacked = jax.tree.map(joined, *made)
    return tree
