"""Flax NNX, by the loop of its official MNIST example: `nnx.jit`, `nnx.Optimizer`, metrics.

https://flax.readthedocs.io/en/latest/mnist_tutorial.html; what makes it faster, by
https://flax.readthedocs.io/en/latest/guides/performance.html.
"""

import functools
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np
import optax
from flax import nnx
from jax import Array

from benchmarks.harness.program import Settings, Weights, batches, named
from benchmarks.loops.peers.on_jax import OnJax, scanned
from flax_mnist.data.dataset import Dataset


def loss_of(model: nnx.Sequential, images: Array, labels: Array) -> Array:
    logits = model(images)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


def train_step(
    model: nnx.Sequential,
    optimizer: nnx.Optimizer[Any],
    metrics: nnx.MultiMetric,
    images: Array,
    labels: Array,
) -> None:
    loss, gradients = nnx.value_and_grad(loss_of)(model, images, labels)
    metrics.update(loss=loss)
    optimizer.update(model, gradients)


class Loop(OnJax):
    """A jitted step a call; with its modules traversed once; or the epoch as a scan of states."""

    def __init__(
        self, dataset: Dataset, settings: Settings, how: Literal["jit", "cached", "scan"]
    ) -> None:
        super().__init__(dataset, settings)
        parts: list[Any] = []
        rngs = nnx.Rngs(self.config.seed)
        for (fan_in, fan_out), (kernel, bias) in zip(self.config.layers, self.layers, strict=True):
            linear = nnx.Linear(fan_in, fan_out, rngs=rngs)
            nnx.update(linear, {"kernel": jnp.asarray(kernel), "bias": jnp.asarray(bias)})
            parts += [linear, nnx.relu]
        model = nnx.Sequential(*parts[:-1])
        average = nnx.metrics.Average("loss")
        metrics = nnx.MultiMetric(loss=average)  # type: ignore[no-untyped-call]
        self.parts = (model, nnx.Optimizer(model, self.optimizer, wrt=nnx.Param), metrics)
        self.how = how
        if how == "scan":
            self.prepare_scan()
        else:
            step = nnx.jit(train_step)
            bind: Any = nnx.cached_partial if how == "cached" else functools.partial
            self.step = bind(step, *self.parts)

    def prepare_scan(self) -> None:
        definition, self.state = nnx.split(self.parts)
        self.data = jax.device_put((self.inputs, self.labels))

        @functools.partial(jax.jit, donate_argnums=0)
        def run(state: Any, inputs: Array, labels: Array, order: Array) -> Any:
            def step(state: Any, rows: Array) -> Any:
                parts = nnx.merge(definition, state)
                train_step(*parts, inputs[rows], labels[rows])
                return nnx.state(parts)

            return scanned(step, state, order, self.config.batch_size)

        self.run = run

    def epoch(self) -> None:
        order = self.order()
        if self.how == "scan":
            self.state = self.run(self.state, *self.data, order)
            return
        for rows in batches(order, self.config.batch_size):
            self.step(self.inputs[rows], self.labels[rows])

    def wait(self) -> None:
        jax.block_until_ready(self.state if self.how == "scan" else nnx.state(self.parts))

    def weights(self) -> list[Weights]:
        if self.how == "scan":
            # Copies: the next call is given the memory of the state.
            nnx.update(self.parts, jax.tree.map(jnp.copy, self.state))
        linears: Any = (part for part in self.parts[0].layers if isinstance(part, nnx.Linear))
        return [named((np.array(each.kernel[...]), np.array(each.bias[...])) for each in linears)]
