"""Keras 3 on whichever back end: `Model.fit`, as its documentation shows it."""

import keras

from benchmarks.harness.program import Program, Settings, Weights, named, normalize, require
from flax_mnist.config import PIXELS
from flax_mnist.data.dataset import Dataset


class Fit(Program):
    """All images normalised beforehand, shuffled by `fit`; so many steps in one compiled call."""

    def __init__(self, dataset: Dataset, settings: Settings, steps_per_execution: int = 1) -> None:
        config = settings.config
        require(config.precision == "float32", "it is float32")
        self.device = self.place(settings)
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

    def place(self, settings: Settings) -> str:
        """Settles where it runs; what that is called."""
        raise NotImplementedError

    def epoch(self) -> None:
        history = self.model.fit(self.inputs, self.labels, self.batch_size, epochs=1, verbose=0)
        self.loss = history.history["loss"][0]

    def weights(self) -> list[Weights]:
        arrays = self.model.get_weights()
        return [named(zip(arrays[::2], arrays[1::2], strict=True))]
