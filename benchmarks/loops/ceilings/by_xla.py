"""The ceilings by XLA, whose products this project's loops use."""

import functools
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
from jax import Array

from benchmarks.harness.program import Program, Settings, require
from flax_mnist.config import PIXELS
from flax_mnist.data.dataset import Dataset
from flax_mnist.devices import runtime

dot = functools.partial(jnp.dot, precision=jax.lax.Precision.HIGHEST)  #: In full float32.


class OnXla(Program):
    """What XLA has compiled: `run`, called with `arguments`."""

    run: Callable[..., Any]
    arguments: tuple[Any, ...]

    def __init__(self, settings: Settings) -> None:
        place = runtime.start(settings.device, settings.config, settings.compilation_cache)
        self.device = place.device_kind
        self.out: Any = ()

    def epoch(self) -> None:
        self.out = self.run(*self.arguments)

    def wait(self) -> None:
        jax.block_until_ready(self.out)


class XlaProducts(OnXla):
    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        super().__init__(settings)
        require(settings.config.precision == "float32", "it is float32")
        config = settings.config
        full, tail = divmod(len(dataset.train.labels), config.batch_size)
        kernels = [jnp.full(shape, 1 / shape[0]) for shape in config.layers]
        self.arguments = kernels, jnp.ones((config.batch_size, PIXELS))

        def epoch(kernels: list[Array], images: Array) -> Any:
            def body(_: Array, carry: Any) -> Any:
                # Otherwise the products, the same in every round, would be computed once.
                kernels, images, _ = jax.lax.optimization_barrier(carry)
                return kernels, images, multiply(kernels, images)

            carry = kernels, images, [jnp.zeros_like(kernel) for kernel in kernels]
            *_, gradients = jax.lax.fori_loop(0, full, body, carry)
            if not tail:
                return gradients
            return jax.tree.map(jnp.add, gradients, multiply(kernels, images[:tail]))

        self.run = jax.jit(epoch).lower(*self.arguments).compile()


def multiply(kernels: list[Array], images: Array) -> list[Array]:
    """A step's products, each from those before it; those that nothing here needs are returned."""
    activations = [images]
    for kernel in kernels:
        activations.append(dot(activations[-1], kernel))
    d, gradients = activations.pop(), []
    for kernel, activation in zip(reversed(kernels), reversed(activations), strict=True):
        gradients.append(dot(activation.T, d))
        if activation is not images:
            d = dot(d, kernel.T)
    return gradients[::-1]


class XlaLargeProduct(OnXla):
    def __init__(self, dataset: Dataset, settings: Settings, size: int) -> None:
        super().__init__(settings)
        self.arguments = (jnp.ones((size, size)),)
        self.run = jax.jit(lambda a: dot(a, a))


class XlaCopy(OnXla):
    """One pass over `size` float32 numbers that writes as many."""

    def __init__(self, dataset: Dataset, settings: Settings, size: int) -> None:
        super().__init__(settings)
        self.out = jnp.ones(size)
        self.run = jax.jit(lambda a: a + 1, donate_argnums=0)

    def epoch(self) -> None:
        self.out = self.run(self.out)
