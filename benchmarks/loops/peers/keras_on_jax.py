"""Keras 3 on its JAX back end."""

import os

os.environ["KERAS_BACKEND"] = "jax"  # Keras reads it once, on import

import jax

from benchmarks.harness.program import Settings
from benchmarks.loops.peers import keras_fit, on_jax


class Fit(keras_fit.Fit):
    """On the device that the settings name."""

    def place(self, settings: Settings) -> str:
        return on_jax.start(settings)

    def wait(self) -> None:
        jax.block_until_ready([variable.value for variable in self.model.variables])
