"""What a run is: every choice that decides its result, with the tutorial's values as defaults."""

import dataclasses
import math
import re
from itertools import pairwise
from typing import Any, Literal, get_args

from flax_mnist.errors import RequestError

#: What a dataset is asked for by.
DatasetName = Literal["auto", "mnist", "fashion_mnist", "kmnist", "synthetic"]
Init = Literal["torch", "flax"]  #: Rules for initial weights.
Precision = Literal["float32", "bfloat16", "float64"]  #: Number formats.
Optimizer = Literal["sgd", "adam", "adamw"]  #: What a gradient becomes a step by.
Schedule = Literal["constant", "cosine", "linear"]  #: How the rate falls.

PIXELS, CLASSES = 28 * 28, 10
WEIGHT_DECAY = 0.01  #: That of `torch.optim.AdamW`; optax's own is 0.0001.


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
    """Step size; with a schedule the largest one. PyTorch's default for adam is 0.001."""
    momentum: float = 0.0
    """Momentum of SGD, in [0, 1)."""
    optimizer: Optimizer = "sgd"
    """As in torch.optim, with its betas 0.9 and 0.999 and its eps 1e-8."""
    weight_decay: float | None = None
    """Of adamw alone, 0.01 if not given: each step shrinks all weights by it times the rate."""
    schedule: Schedule = "constant"
    """How the learning rate falls, step by step, to 0 at the end of the last epoch."""
    warmup: float = 0.0
    """Epochs, 0.5 for half of one, in which the learning rate first rises from 0, step by step."""
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
    """Decides the initial weights, the order of the images, and which are held out."""
    validation: int = 0
    """Training images to hold out. The weights that are kept are then those of the epoch with the
    lowest loss on them."""
    patience: int = 0
    """End when the validation loss has not fallen for so many epochs; 0 is never."""
    until_accuracy: float = 0.0
    """End once the test accuracy reaches it, 0.97 for 97 %, and say how long that took; 0 is never.
    The epochs are then the most, and a run that has not reached it by then has failed."""

    def __post_init__(self) -> None:
        object.__setattr__(self, "hidden_sizes", tuple(self.hidden_sizes))
        rate, sizes = self.learning_rate, self.hidden_sizes
        for field in ("epochs", "batch_size", "seed", "validation", "patience"):
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
        kinds = {"init": Init, "precision": Precision, "optimizer": Optimizer, "schedule": Schedule}
        for field, kind in kinds.items():
            choices = get_args(kind)
            _require(self, field, getattr(self, field) in choices, " or ".join(choices))
        _require(self, "deterministic", type(self.deterministic) is bool, "a bool")
        _require(self, "seed", 0 <= self.seed < 2**32, "from 0 to 2**32 - 1")
        decay, share = self.weight_decay, "above 0 and at most 1, as 0.97 for 97 %"
        _require(self, "weight_decay", decay is None or 0 <= decay < 1e38, "at least 0 and finite")
        _require(self, "validation", self.validation >= 0, "at least 0")
        _require(self, "patience", self.patience >= 0, "at least 0")
        _require(self, "until_accuracy", 0 <= self.until_accuracy <= 1, share)
        self.require_fit()

    def require_fit(self) -> None:
        """Raises RequestError if a setting has no meaning beside the others."""
        with_sgd = self.optimizer == "sgd" or self.momentum == 0
        _require(self, "momentum", with_sgd, f"left out with {self.optimizer}, which has its own")
        with_adamw = self.weight_decay is None or self.optimizer == "adamw"
        _require(self, "weight_decay", with_adamw, "left out: adamw alone has one")
        fewer = f"from 0 to below the epochs, which are {self.epochs}"
        _require(self, "warmup", 0 <= self.warmup < self.epochs, fewer)
        watched = self.validation > 0 or self.patience == 0
        _require(self, "patience", watched, "left out without validation, whose loss it watches")

    def lasting(self) -> dict[str, Any]:
        """The settings that a run keeps when it goes on: all but those that say when it ends.

        A schedule is spread over the epochs, and so keeps their number.
        """
        ending = [
            "patience",
            "until_accuracy",
            *(["epochs"] if self.schedule == "constant" else []),
        ]
        return {k: v for k, v in dataclasses.asdict(self).items() if k not in ending}

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
