"""What programs in JAX's other libraries have in common: data, orders, and an epoch as a scan."""

import itertools
from collections.abc import Callable
from typing import Any

import jax
import numpy as np
import optax
from jax import Array

from benchmarks.harness.program import Program, Settings, initial_layers, normalize, require
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import epoch_order
from flax_mnist.devices import runtime


def start(settings: Settings) -> str:
    """Starts JAX on the device that the settings name; what that is called."""
    place = runtime.start(settings.device, settings.config, settings.compilation_cache)
    # By itself JAX multiplies float32 in TF32 on NVIDIA's GPUs, and in bfloat16 on TPUs.
    jax.config.update("jax_default_matmul_precision", "highest")
    return str(place.device_kind)


class OnJax(Program):
    """Images normalised beforehand; weights by torch.nn.Linear's rule; orders as this project's."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        self.config = config = settings.config
        require(config.precision == "float32", "it is float32")
        self.device = start(settings)
        self.inputs, self.labels = normalize(dataset.train.images), dataset.train.labels
        self.layers = initial_layers(config, np.random.default_rng(config.seed))
        self.optimizer = optax.sgd(config.learning_rate, config.momentum or None)
        self.numbers = itertools.count()  #: Of the epochs to come.

    def order(self) -> Any:
        return epoch_order(self.config.seed, next(self.numbers), len(self.labels))


def scanned(step: Callable[[Any, Array], Any], carry: Any, order: Array, size: int) -> Any:
    """`step(carry, rows)` over the batches of an order [n], the short last one included."""
    full = len(order) // size * size

    def body(carry: Any, rows: Array) -> tuple[Any, None]:
        return step(carry, rows), None

    carry, _ = jax.lax.scan(body, carry, order[:full].reshape(-1, size))
    return step(carry, order[full:]) if full < len(order) else carry
