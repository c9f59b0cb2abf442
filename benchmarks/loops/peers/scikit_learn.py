"""scikit-learn's `MLPClassifier`, an epoch a `partial_fit`."""

import numpy as np
from sklearn.neural_network import MLPClassifier

from benchmarks.harness import program
from benchmarks.loops.numpy_backprop import OnCpu
from flax_mnist.config import CLASSES
from flax_mnist.data.dataset import Dataset


class PartialFit(OnCpu):
    """Plain SGD without regularisation, in float32; initial weights by torch.nn.Linear's rule."""

    def __init__(self, dataset: Dataset, settings: program.Settings) -> None:
        super().__init__(settings)
        config = settings.config
        program.require_plain(config)
        self.inputs, self.labels = program.normalize(dataset.train.images), dataset.train.labels
        self.random = np.random.RandomState(config.seed)  #: Shuffles, an epoch a time.
        self.network = MLPClassifier(
            config.hidden_sizes,
            solver="sgd",
            alpha=0,
            batch_size=min(config.batch_size, len(self.labels)),
            learning_rate_init=config.learning_rate,
            momentum=0,
            random_state=self.random,
        )
        # It makes its arrays when it first sees images, and they are then overwritten.
        one = slice(0, self.network.batch_size)
        self.network.partial_fit(self.inputs[one], self.labels[one], classes=np.arange(CLASSES))
        layers = program.initial_layers(config, np.random.default_rng(config.seed))
        for i, (kernel, bias) in enumerate(layers):
            self.network.coefs_[i][...] = kernel
            self.network.intercepts_[i][...] = bias

    def epoch(self) -> None:
        self.network.partial_fit(self.inputs, self.labels)

    def weights(self) -> list[program.Weights]:
        return [program.named(zip(self.network.coefs_, self.network.intercepts_, strict=True))]
