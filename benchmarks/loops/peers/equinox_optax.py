"""Equinox and optax, as Equinox's own examples write a training step.

https://docs.kidger.site/equinox/examples/mnist/; the scan carries the arrays of a model apart from
what is none, as https://docs.kidger.site/equinox/tricks/ has it.
"""

from typing import Any, Literal

import equinox as eqx
import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array

from benchmarks.harness.program import Settings, Weights, batches
from benchmarks.loops.peers.on_jax import OnJax, scanned
from flax_mnist.data.dataset import Dataset


def loss_of(model: Any, images: Array, labels: Array) -> Array:
    logits = jax.vmap(model)(images)
    return jnp.mean(optax.softmax_cross_entropy_with_integer_labels(logits, labels))


class Loop(OnJax):
    """A jitted step a call, or the epoch as a scan of steps."""

    def __init__(self, dataset: Dataset, settings: Settings, how: Literal["jit", "scan"]) -> None:
        super().__init__(dataset, settings)
        parts: list[Any] = []
        for (fan_in, fan_out), (kernel, bias) in zip(self.config.layers, self.layers, strict=True):
            linear = eqx.nn.Linear(fan_in, fan_out, key=jax.random.key(0))
            initial = jnp.asarray(kernel.T), jnp.asarray(bias)
            linear = eqx.tree_at(lambda each: (each.weight, each.bias), linear, initial)
            parts += [linear, eqx.nn.Lambda(jax.nn.relu)]
        self.model: Any = eqx.nn.Sequential(parts[:-1])
        self.state = self.optimizer.init(eqx.filter(self.model, eqx.is_array))
        self.how = how
        self.step = eqx.filter_jit(self.make_step)
        if how == "scan":
            self.data = jax.device_put((self.inputs, self.labels))
            self.run = eqx.filter_jit(self.scan, donate="all-except-first")

    def make_step(self, model: Any, state: Any, images: Array, labels: Array) -> Any:
        loss, gradients = eqx.filter_value_and_grad(loss_of)(model, images, labels)
        updates, state = self.optimizer.update(gradients, state)
        return eqx.apply_updates(model, updates), state, loss

    def scan(self, data: tuple[Array, Array], model: Any, state: Any, order: Array) -> Any:
        arrays, static = eqx.partition(model, eqx.is_array)

        def step(carry: Any, rows: Array) -> Any:
            model = eqx.combine(carry[0], static)
            model, state, loss = self.make_step(model, carry[1], data[0][rows], data[1][rows])
            return eqx.filter(model, eqx.is_array), state, carry[2] + loss

        carry = arrays, state, jnp.zeros(())
        arrays, state, loss = scanned(step, carry, order, self.config.batch_size)
        return eqx.combine(arrays, static), state, loss

    def epoch(self) -> None:
        order = self.order()
        if self.how == "scan":
            # The data comes first: it is not given away.
            self.model, self.state, self.loss = self.run(self.data, self.model, self.state, order)
            return
        for rows in batches(order, self.config.batch_size):
            self.model, self.state, self.loss = self.step(
                self.model, self.state, self.inputs[rows], self.labels[rows]
            )

    def wait(self) -> None:
        jax.block_until_ready(eqx.filter(self.model, eqx.is_array))

    def weights(self) -> list[Weights]:
        linears = [part for part in self.model.layers if isinstance(part, eqx.nn.Linear)]
        return [
            {f"{2 * i}.weight": np.array(each.weight) for i, each in enumerate(linears)}
            | {f"{2 * i}.bias": np.array(each.bias) for i, each in enumerate(linears)}
        ]
