"""What a run is: every choice that decides its result, with the tutorial's values as defaults."""

import dataclasses
import math
import re
from itertools import pairwise
from typing import Literal, get_args

from flax_mnist.errors import RequestError

#: What a dataset is asked for by.
DatasetName = Literal["auto", "mnist", "fashion_mnist", "kmnist", "synthetic"]
Init = Literal["torch", "flax"]  #: Rules for initial weights.
Precision = Literal["float32", "bfloat16", "float64"]  #: Number formats.

PIXELS, CLASSES = 28 * 28, 10


@dataclasses.dataclass(frozen=True)
class Config:
    """The network, the optimizer and the order of the images.

    Raises:
        RequestError: a value is out of its range; the message names the field.
    """

    epochs: int = 5
    """Passes over the training images."""
    batch_size: int = 64
    """Images a step. The last batch of an epoch is what is left, as with PyTorch's DataLoader."""
    learning_rate: float = 0.003
    """Step size of SGD."""
    momentum: float = 0.0
    """Momentum of SGD, in [0, 1)."""
    hidden_sizes: tuple[int, ...] = (128, 64)
    """Units of each hidden layer, from the input to the output."""
    init: Init = "torch"
    """Initial weights: torch is nn.Linear's uniform rule, flax is nn.Dense's LeCun normal."""
    precision: Precision = "float32"
    """Number format. bfloat16 computes in bfloat16 and keeps the weights in float32."""
    deterministic: bool = False
    """Sum every float32 product in float64, so that the weights have the same bits on any number of
    devices, and make a GPU repeat itself, which a CPU does anyway."""
    seed: int = 0
    """Decides the initial weights and the order of the images."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_sizes", tuple(self.hidden_sizes))
        rate, sizes = self.learning_rate, self.hidden_sizes
        for field in ("epochs", "batch_size", "seed"):
            _require(self, field, type(getattr(self, field)) is int, "a whole number")
        _require(self, "hidden_sizes", all(type(size) is int for size in sizes), "whole numbers")
        _require(self, "epochs", self.epochs >= 1, "at least 1")
        _require(self, "batch_size", 1 <= self.batch_size < 2**31, "from 1 to 2,147,483,647")
        # Beyond these float32 has only 0 and infinity.
        _require(self, "learning_rate", 1e-37 < rate < 1e38, "above 0 and finite")
        _require(self, "momentum", 0 <= self.momentum < 1, "in [0, 1)")
        fit = len(sizes) > 0 and min(sizes) > 0 and self.weights <= MAX_WEIGHTS
        allowed = f"one or more sizes above 0, with at most {MAX_WEIGHTS:,} weights in all"
        _require(self, "hidden_sizes", fit, allowed)
        for field, choices in (("init", get_args(Init)), ("precision", get_args(Precision))):
            _require(self, field, getattr(self, field) in choices, " or ".join(choices))
        _require(self, "deterministic", type(self.deterministic) is bool, "a bool")
        _require(self, "seed", 0 <= self.seed < 2**32, "from 0 to 2**32 - 1")

    @property
    def sums_in_float64(self) -> bool:
        """Whether products are float64: then `jax_enable_x64` must be on."""
        return self.precision == "float64" or (self.precision == "float32" and self.deterministic)

    @property
    def layers(self) -> list[tuple[int, int]]:
        """Inputs and outputs of each layer, from the first to the last."""
        return list(pairwise((PIXELS, *self.hidden_sizes, CLASSES)))

    @property
    def weights(self) -> int:
        """How many there are in all layers, biases left out."""
        return sum(fan_in * fan_out for fan_in, fan_out in self.layers)


@dataclasses.dataclass(frozen=True)
class CheckpointPolicy:
    """How often a run is saved, and for how long that is kept.

    Raises:
        RequestError: a value is out of its range; the message names the flag.
    """

    every: str = "1"
    """At most so many epochs, or steps as in `100steps`, from one to the next; 0 is only when the
    run is stopped and at its end."""
    keep: int = 3
    """How many remain, the newest ones."""

    def __post_init__(self) -> None:
        self.steps(1)
        _require(self, "keep", type(self.keep) is int and self.keep >= 1, "at least 1")

    def steps(self, steps_per_epoch: int) -> float:
        """At most, between two checkpoints; infinite, if there are to be none."""
        match = re.fullmatch(r"(\d{1,9})( ?(step|epoch)s?)?", self.every)
        if match is None:
            raise RequestError(
                f"checkpoint-every is {self.every!r}; it must be a number of epochs, "
                "such as 2, or of steps, such as 100steps."
            )
        unit = 1 if match[3] == "step" else steps_per_epoch
        return int(match[1]) * unit or math.inf


#: More than this is taken for a slip: they are 4 GB, and three times that in training.
MAX_WEIGHTS = 10**9


def _require(settings: Config | CheckpointPolicy, field: str, holds: bool, allowed: str) -> None:
    if not holds:
        value = getattr(settings, field)
        if isinstance(value, tuple):
            value = " ".join(map(str, value)) or "empty"
        raise RequestError(f"{field.replace('_', '-')} is {value}; it must be {allowed}.")
