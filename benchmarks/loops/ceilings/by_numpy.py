"""The ceilings by NumPy and its BLAS."""

import numpy as np

from benchmarks.harness.program import Program, Settings, UnavailableError, initial_layers
from benchmarks.loops.numpy_backprop import Workspace
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset


class OnCpu(Program):
    """A program that there is for the CPU only."""

    def __init__(self, settings: Settings) -> None:
        if settings.device != "cpu":
            raise UnavailableError("NumPy runs on the CPU only")


class NumpyProducts(OnCpu):
    """An epoch of the matrix products of a step, each with what it needs from those before."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        super().__init__(settings)
        size = settings.config.batch_size
        self.full, tail = divmod(len(dataset.train.labels), size)
        self.step = _NumpyStep(settings.config, size)
        self.tail = _NumpyStep(settings.config, tail) if tail else None

    def epoch(self) -> None:
        for _ in range(self.full):
            self.step.run()
        if self.tail:
            self.tail.run()


class _NumpyStep:
    def __init__(self, config: Config, batch: int) -> None:
        self.kernels = [kernel for kernel, _ in initial_layers(config, np.random.default_rng(0))]
        self.work = Workspace(batch, config)
        self.work.activations[0].fill(1)

    def run(self) -> None:
        S, last = self.work.activations, len(self.kernels) - 1  # noqa: N806
        for k, kernel in enumerate(self.kernels):
            np.dot(S[k], kernel, out=S[k + 1])
        d = S[-1]
        for k in range(last, -1, -1):
            np.dot(S[k].T, d, out=self.work.kernels[k])
            if k > 0:
                d = np.dot(d, self.kernels[k].T, out=self.work.gradients[k])


class NumpyLargeProduct(OnCpu):
    """One product of two `size` x `size` matrices."""

    def __init__(self, dataset: Dataset, settings: Settings, size: int) -> None:
        super().__init__(settings)
        self.a = np.ones((size, size), np.float32)
        self.out = np.empty_like(self.a)

    def epoch(self) -> None:
        np.dot(self.a, self.a, out=self.out)


class NumpyCopy(OnCpu):
    """One copy of `size` float32 numbers."""

    def __init__(self, dataset: Dataset, settings: Settings, size: int) -> None:
        super().__init__(settings)
        self.a = np.ones(size, np.float32)
        self.out = np.ones_like(self.a)

    def epoch(self) -> None:
        np.copyto(self.out, self.a)
