"""The ceilings by NumPy and its BLAS, and the step's products for PyTorch's too."""

from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness.program import Settings, initial_layers
from benchmarks.loops.numpy_backprop import OnCpu, Workspace
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset


def products(config: Config, batch: int, dot: Any, array: Any) -> Callable[[], None]:
    """The matrix products of a step, each with what it needs from those before.

    `dot` is the library's product with `out=`, and `array` what makes its arrays of NumPy's.
    """
    work = Workspace(batch, config)
    work.activations[0].fill(1)
    kernels = [array(kernel) for kernel, _ in initial_layers(config, np.random.default_rng(0))]
    S, dS, kernel_gradients = (  # noqa: N806
        [array(a) for a in arrays] for arrays in (work.activations, work.gradients, work.kernels)
    )

    def step() -> None:
        for k, kernel in enumerate(kernels):
            dot(S[k], kernel, out=S[k + 1])
        d = S[-1]
        for k in range(len(kernels) - 1, -1, -1):
            dot(S[k].T, d, out=kernel_gradients[k])
            if k > 0:
                d = dot(d, kernels[k].T, out=dS[k])

    return step


class NumpyProducts(OnCpu):
    """An epoch of the products of a step."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        super().__init__(settings)
        config = settings.config
        full, tail = divmod(len(dataset.train.labels), config.batch_size)
        self.steps = [products(config, config.batch_size, np.dot, np.asarray)] * full
        if tail:
            self.steps.append(products(config, tail, np.dot, np.asarray))

    def epoch(self) -> None:
        for step in self.steps:
            step()


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
