"""Backpropagation by hand in NumPy, as fast as its BLAS allows.

The formulas are those of `flax_mnist.backprop`. Every product writes to memory set aside before,
and -learning_rate / n is put on the gradient of the logits, where there are 640 numbers and not
109,386: what comes out for a weight is then what has to be added to it.
"""

import numpy as np
from numpy.typing import NDArray

from benchmarks.harness import program
from flax_mnist.config import CLASSES, PIXELS, Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import epoch_order


class OnCpu(program.Program):
    def __init__(self, settings: program.Settings) -> None:
        program.require(settings.device == "cpu", "NumPy runs on the CPU only")


class Backpropagation(OnCpu):
    """Float32, in place; orders as this project makes them."""

    def __init__(self, dataset: Dataset, settings: program.Settings) -> None:
        super().__init__(settings)
        self.config = config = settings.config
        program.require_plain(config)
        self.inputs, self.labels = program.normalize(dataset.train.images), dataset.train.labels
        self.layers = program.initial_layers(config, np.random.default_rng(config.seed))
        sizes = program.batch_sizes(config, len(self.labels))
        self.workspaces = {size: Workspace(size, config) for size in sizes}
        self.epochs_done = 0

    def epoch(self) -> None:
        order = epoch_order(self.config.seed, self.epochs_done, len(self.labels))
        self.epochs_done += 1
        losses = [self.step(rows) for rows in program.batches(order, self.config.batch_size)]
        self.loss = sum(losses) / len(losses)

    def step(self, rows: NDArray[np.int32]) -> float:
        """One step of gradient descent; the loss before it."""
        work = self.workspaces[len(rows)]
        S, dS, last = work.activations, work.gradients, len(self.layers) - 1  # noqa: N806
        # Without mode= NumPy would gather into a buffer of its own and copy that.
        np.take(self.inputs, rows, axis=0, out=S[0], mode="clip")
        labels = self.labels[rows]
        for k, (kernel, bias) in enumerate(self.layers):
            np.dot(S[k], kernel, out=S[k + 1])
            S[k + 1] += bias
            if k < last:
                np.maximum(S[k + 1], 0, out=S[k + 1])

        probabilities = S[-1]
        probabilities -= probabilities.max(axis=1, keepdims=True)
        shifted_label_logits = probabilities[work.range, labels]
        np.exp(probabilities, out=probabilities)
        sums = probabilities.sum(axis=1, keepdims=True)
        probabilities /= sums
        probabilities[work.range, labels] -= 1
        np.multiply(probabilities, -self.config.learning_rate / len(rows), out=dS[-1])

        for k in range(last, -1, -1):
            kernel, bias = self.layers[k]
            if k > 0:
                np.dot(dS[k + 1], kernel.T, out=dS[k])
                dS[k] *= S[k] > 0
            np.dot(S[k].T, dS[k + 1], out=work.kernels[k])
            kernel += work.kernels[k]
            bias += np.dot(work.ones, dS[k + 1])
        return float((np.log(sums[:, 0]) - shifted_label_logits).mean())

    def weights(self) -> list[program.Weights]:
        return [program.named(self.layers)]


class Workspace:
    """The memory of a step for one batch size."""

    def __init__(self, batch: int, config: Config) -> None:
        shapes = [(batch, size) for size in (PIXELS, *config.hidden_sizes, CLASSES)]
        self.activations = [np.empty(shape, np.float32) for shape in shapes]
        self.gradients = [np.empty(shape, np.float32) for shape in shapes]
        self.kernels = [np.empty(shape, np.float32) for shape in config.layers]
        self.range = np.arange(batch)
        self.ones = np.ones(batch, np.float32)
