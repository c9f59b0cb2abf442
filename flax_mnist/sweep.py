"""Many networks at once: each member of a sweep is what the single run of its config would be.

Members differ in learning rate, momentum and seed alone, so that one compiled program trains them
all: the first two are leaves of the optimizer's state, the seed is in the weights and the order.

In float64 a member equals its single run within 1e-12. In float32 they had the same bits on a CPU,
which trains one after the other; under `vmap` they round otherwise: up to 1e-5 after 32 steps.
"""

from __future__ import annotations

import dataclasses
import itertools
import math
import statistics
from collections.abc import Sequence

import jax
import numpy as np
from numpy.typing import NDArray

from flax_mnist.config import Config
from flax_mnist.errors import RequestError
from flax_mnist.model import Params
from flax_mnist.runs.sweeping import Epoch, Trained
from flax_mnist.store.metrics import Metrics


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
