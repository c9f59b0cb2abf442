"""What every row of the table is: a program that trains an epoch each time it is asked to."""

import dataclasses
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Literal, Self

import numpy as np
from numpy.typing import NDArray

from flax_mnist.config import Config, DatasetName

#: By PyTorch's names and layouts: `0.weight` [128, 784], `0.bias` [128], `2.weight`, ...
Weights = dict[str, NDArray[Any]]


class UnavailableError(Exception):
    """The row cannot run here; the message says why."""


def require(holds: bool, otherwise: str) -> None:
    """Raises `UnavailableError` with the reason `otherwise`, unless that holds."""
    if not holds:
        raise UnavailableError(otherwise)


def require_plain(config: Config) -> None:
    """Raises `UnavailableError` unless it is plain SGD in float32."""
    require(config.momentum == 0, "it is plain SGD")
    require(config.precision == "float32", "it is float32")


@dataclasses.dataclass(frozen=True)
class Settings:
    """What all rows of a run have in common."""

    config: Config = dataclasses.field(default_factory=Config)
    dataset: DatasetName = "synthetic"
    data_dir: str | None = None
    device: Literal["cpu", "gpu", "tpu"] = "cpu"
    models: int = 8  #: Networks that the rows of many models train at once.
    threads: int | None = None  #: Cores that all rows may use at most; None is all there are.
    compilation_cache: bool = False  #: Whether JAX may load what an earlier process compiled.

    @classmethod
    def from_json(cls, fields: Mapping[str, Any]) -> Self:
        """The reverse of `dataclasses.asdict`, after a passage through JSON."""
        return cls(**{**fields, "config": Config(**fields["config"])})


class Program:
    """One way to train. A subclass prepares all it needs in its constructor, which takes
    `(dataset, settings, **options)` and raises `UnavailableError` where it cannot run.
    """

    models: int = 1  #: Networks trained at once.
    epochs_per_call: int = 1  #: Epochs that one call of `epoch` trains.
    #: Spent in the constructor on compiling. What the first call costs is measured from outside.
    compile_seconds: float = 0.0
    device: str = "cpu"  #: What it runs on, as its framework calls it.

    def epoch(self) -> None:
        """Shuffles, then shows every training image once; may return before the device is done."""
        raise NotImplementedError

    def wait(self) -> None:
        """Returns when all that `epoch` has begun is done."""

    def weights(self) -> list[Weights]:
        """Of each model; empty where nothing is trained."""
        return []

    def device_memory(self) -> int | None:
        """The most bytes ever held on an accelerator; None on the host."""
        return None


class Calls(Program):
    """An epoch is some calls of work that has been set out in memory before."""

    calls: Sequence[Callable[[], Any]]

    def epoch(self) -> None:
        for call in self.calls:
            call()


def epoch_flops(config: Config, n: int) -> int:
    """Floating-point operations in the matrix products of an epoch of `n` images.

    For each layer one product forward, one for the kernel's gradient and one for that of its
    inputs, which the first layer does not need: the images are not trained.
    """
    fan_in, fan_out = config.layers[0]
    return 2 * n * (3 * config.weights - fan_in * fan_out)


def initial_layers(
    config: Config, rng: np.random.Generator
) -> list[tuple[NDArray[np.float32], NDArray[np.float32]]]:
    """Kernel [fan_in, fan_out] and bias [fan_out] of each layer, by the rule of torch.nn.Linear."""
    layers = []
    for fan_in, fan_out in config.layers:
        bound = fan_in**-0.5
        kernel, bias = (rng.uniform(-bound, bound, shape) for shape in ((fan_in, fan_out), fan_out))
        layers.append((kernel.astype(np.float32), bias.astype(np.float32)))
    return layers


def named(layers: Iterable[tuple[NDArray[Any], NDArray[Any]]]) -> Weights:
    """Copies of the kernels [fan_in, fan_out] and biases, by PyTorch's names in its layouts."""
    weights: Weights = {}
    for i, (kernel, bias) in enumerate(layers):
        weights |= {f"{2 * i}.weight": kernel.T.copy(), f"{2 * i}.bias": bias.copy()}
    return weights


def normalize(images: NDArray[np.uint8]) -> NDArray[np.float32]:
    """Pixels [n, 28, 28] as inputs [n, 784] from -1 to 1, in no more memory than those take."""
    inputs = images.reshape(len(images), -1).astype(np.float32)
    inputs /= 255
    inputs -= 0.5
    inputs /= 0.5
    return inputs


def batch_sizes(config: Config, n: int) -> set[int]:
    """Those of an epoch of `n` images: the full batches', and the short last one's."""
    return {min(config.batch_size, n), n % config.batch_size} - {0}


def batches(order: NDArray[np.int32], size: int) -> list[NDArray[np.int32]]:
    """The order cut into batches, the short last one kept."""
    return [order[start : start + size] for start in range(0, len(order), size)]
