"""What the members of a sweep differ in."""

import dataclasses
import itertools
from collections.abc import Mapping
from typing import Any

from flax_mnist.config import Config
from flax_mnist.errors import RequestError

MAX_SEEDS = 100_000  #: More than this is taken for a slip: they would train for a day.


@dataclasses.dataclass(frozen=True)
class Axes:
    """What the members of a sweep differ in: each combination is a setting, trained with each seed.

    Raises:
        RequestError: there is none of something, or more seeds than `MAX_SEEDS`.
    """

    learning_rates: tuple[float, ...] = (0.001, 0.003, 0.01)
    """Step sizes; with a schedule the largest ones."""
    momenta: tuple[float, ...] = (0.0,)
    """Momenta of SGD, in [0, 1)."""
    batch_sizes: tuple[int, ...] = (Config.batch_size,)
    """Images a step."""
    networks: tuple[tuple[int, ...], ...] = (Config.hidden_sizes,)
    """The hidden sizes of each."""
    seeds: int = 8
    """How many, from the config's on."""

    def __post_init__(self) -> None:
        for name in ("learning_rates", "momenta", "batch_sizes"):
            object.__setattr__(self, name, tuple(dict.fromkeys(getattr(self, name))))
        networks = tuple(dict.fromkeys(map(tuple, self.networks)))
        object.__setattr__(self, "networks", networks)
        counts = {name: len(values) for name, values in self.settings().items()}
        for name, count in {**counts, "seeds": self.seeds}.items():
            if count < 1:
                raise RequestError(f"{name.replace('_', '-')}: there must be at least 1.")
        if self.seeds > MAX_SEEDS:
            raise RequestError(f"seeds is {self.seeds:,}; it must be at most {MAX_SEEDS:,}.")

    def settings(self) -> Mapping[str, tuple[Any, ...]]:
        """All but the seeds, each by its name; what is first varies slowest."""
        return {
            "networks": self.networks,
            "batch_sizes": self.batch_sizes,
            "learning_rates": self.learning_rates,
            "momenta": self.momenta,
        }

    def members(self, config: Config) -> list[Config]:
        """Setting by setting its seeds, from the config's on; all else is the config's.

        Raises:
            RequestError: a value is out of its range, or members would not all be trained for all
                epochs.
        """
        for name in ("patience", "until_accuracy"):
            if getattr(config, name):
                raise RequestError(f"{name.replace('_', '-')}: not in a sweep. Leave it out.")
        settings = itertools.product(*self.settings().values())
        return [
            dataclasses.replace(
                config,
                hidden_sizes=network,
                batch_size=batch_size,
                learning_rate=rate,
                momentum=momentum,
                seed=config.seed + i,
            )
            for network, batch_size, rate, momentum in settings
            for i in range(self.seeds)
        ]
