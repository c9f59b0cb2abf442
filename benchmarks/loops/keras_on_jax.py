"""Keras 3 on its JAX back end: `Model.fit`, as its documentation shows it."""

import os

os.environ["KERAS_BACKEND"] = "jax"  # Keras reads it once, on import

import jax
import keras

from benchmarks.harness.program import Program, Settings, Weights, named, normalize, require
from flax_mnist.config import PIXELS
from flax_mnist.data.dataset import Dataset
from flax_mnist.devices import runtime


class Fit(Program):
    """All images normalised beforehand, shuffled by `fit`; so many steps in one compiled call."""

    def __init__(self, dataset: Dataset, settings: Settings, steps_per_execution: int = 1) -> None:
        config = settings.config
        require(config.precision == "float32", "it is float32")
        place = runtime.start(settings.device, config, settings.compilation_cache)
        self.device = place.device_kind
        self.batch_size = config.batch_size
        keras.utils.set_random_seed(config.seed)
        layers = [keras.layers.Input((PIXELS,))]
        for i, (fan_in, size) in enumerate(config.layers):
            # torch.nn.Linear's rule.
            rule = keras.initializers.RandomUniform(-(fan_in**-0.5), fan_in**-0.5)
            initial = {"kernel_initializer": rule, "bias_initializer": rule}
            activation = "relu" if i < len(config.hidden_sizes) else None
            layers.append(keras.layers.Dense(size, activation, **initial))
        self.model = keras.Sequential(layers)
        self.model.compile(
            optimizer=keras.optimizers.SGD(config.learning_rate, config.momentum),
            loss=keras.losses.SparseCategoricalCrossentropy(from_logits=True),
            steps_per_execution=steps_per_execution,
        )
        self.inputs, self.labels = normalize(dataset.train.images), dataset.train.labels

    def epoch(self) -> None:
        history = self.model.fit(self.inputs, self.labels, self.batch_size, epochs=1, verbose=0)
        self.loss = history.history["loss"][0]

    def wait(self) -> None:
        jax.block_until_ready([variable.value for variable in self.model.variables])

    def weights(self) -> list[Weights]:
        arrays = self.model.get_weights()
        return [named(zip(arrays[::2], arrays[1::2], strict=True))]
