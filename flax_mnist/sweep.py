"""Many networks at once: each member of a sweep is what the single run of its config would be.

Members differ in learning rate, momentum and seed alone, so that one compiled program trains them
all: the first two are leaves of the optimizer's state, the seed is in the weights and the order.

In float64 a member equals its single run within 1e-12. In float32 they had the same bits on a CPU,
which trains one after the other; under `vmap` they round otherwise: up to 1e-5 after 32 steps.
"""

import dataclasses
import itertools
import math
import statistics
from collections.abc import Callable, Iterable, Sequence
from typing import Any

import jax
import numpy as np
import optax
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from flax_mnist.config import Config
from flax_mnist.errors import RequestError
from flax_mnist.model import Params, make_model
from flax_mnist.train import State, init_state, make_optimizer, train_epoch

MAX_SEEDS = 100_000  #: More than this is taken for a slip: they would train for a day.


def combinations(
    config: Config, learning_rates: Sequence[float], momenta: Sequence[float], seeds: int
) -> list[Config]:
    """The members: each learning rate with each momentum and each seed, from `config.seed` on.

    Raises:
        RequestError: there are none, a value is out of its range, or members would not all be
            trained on all images for all epochs.
    """
    for name in ("validation", "patience", "until_accuracy"):
        if getattr(config, name):
            raise RequestError(f"{name.replace('_', '-')}: not in a sweep. Leave it out.")
    counts = {"learning-rates": len(learning_rates), "momenta": len(momenta), "seeds": seeds}
    for name, count in counts.items():
        if count < 1:
            raise RequestError(f"{name}: there must be at least 1.")
    if seeds > MAX_SEEDS:
        raise RequestError(f"seeds is {seeds:,}; it must be at most {MAX_SEEDS:,}.")
    settings = itertools.product(dict.fromkeys(learning_rates), dict.fromkeys(momenta))
    return [
        dataclasses.replace(config, learning_rate=rate, momentum=momentum, seed=config.seed + i)
        for rate, momentum in settings
        for i in range(seeds)
    ]


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


def train_member(
    member: tuple[State, Array], images: Array, labels: Array, *, template: Config
) -> tuple[State, Array]:
    """`train_epoch` of a member: its state and the order in which it sees the images."""
    state, order = member
    size = template.batch_size
    model, optimizer = make_model(template), make_optimizer(template, math.ceil(len(order) / size))
    after: tuple[State, Array] = train_epoch(
        state, images, labels, order, model=model, optimizer=optimizer, batch_size=size
    )
    return after


def for_each(function: Callable[..., Any], mesh: Mesh, together: bool) -> Any:
    """`function(member, *shared)` for many members, compiled.

    Args:
        function: of one member and what all have in common.
        mesh: the devices over which the members, `[members, ...]`, are spread.
        together: a device takes each step for all its members at once, by `vmap`. Otherwise it
            trains one after the other, which suits the core of a CPU.
    """

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


@dataclasses.dataclass
class Outcome:
    """What has become of a setting: of its members, which differ in their seeds alone."""

    learning_rate: float
    momentum: float
    diverged: int = 0  #: Members that did. All else is of the others.
    test_losses: list[float] = dataclasses.field(default_factory=list)
    test_accuracies: list[float] = dataclasses.field(default_factory=list)
    #: The sum of theirs, of the test images' classes: `[n, 10]`.
    probabilities: NDArray[np.floating] | float = 0.0
    best: tuple[Config, Params] | None = None  #: The one with the lowest test loss.

    def add(
        self,
        config: Config,
        test_loss: float,
        test_accuracy: float,
        params: Params,
        probabilities: NDArray[np.floating],
    ) -> None:
        """Adds a member, which diverged if its loss is NaN.

        Its parameters are on the host, and copied where they are kept; its probabilities are of
        the classes of the test images, `[n, 10]`.
        """
        if math.isnan(test_loss):
            self.diverged += 1
            return
        if test_loss < min(self.test_losses, default=math.inf):
            # A copy: a view would keep the whole group in memory.
            self.best = config, jax.tree.map(np.array, params)
        self.test_losses.append(test_loss)
        self.test_accuracies.append(test_accuracy)
        self.probabilities = self.probabilities + probabilities

    @property
    def rank(self) -> tuple[int, float]:
        """The lower the better: first how many diverged, then the mean test loss."""
        return self.diverged, statistics.fmean(self.test_losses or [math.inf])

    def ensemble_accuracy(self, labels: NDArray[np.int32]) -> float:
        """Share of the test images that the mean of the probabilities classifies rightly."""
        return float(np.mean(np.argmax(self.probabilities, axis=-1) == labels))


def outcomes_of(members: Iterable[Config]) -> dict[tuple[float, float], Outcome]:
    """One for each learning rate and momentum, with nothing in it yet."""
    settings = dict.fromkeys((config.learning_rate, config.momentum) for config in members)
    return {setting: Outcome(*setting) for setting in settings}
