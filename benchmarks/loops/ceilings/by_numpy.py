"""The ceilings by NumPy and its BLAS, and the step's products for PyTorch's too."""

import functools
from collections.abc import Callable
from typing import Any

import numpy as np

from benchmarks.harness.program import Calls, Settings, initial_layers, require
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
    memory = work.activations, work.gradients, work.kernels
    S, dS, kernel_gradients = ([array(a) for a in arrays] for arrays in memory)  # noqa: N806

    def step() -> None:
        for k, kernel in enumerate(kernels):
            dot(S[k], kernel, out=S[k + 1])
        d = S[-1]
        for k in range(len(kernels) - 1, -1, -1):
            dot(S[k].T, d, out=kernel_gradients[k])
            if k > 0:
                d = dot(d, kernels[k].T, out=dS[k])

    return step


class NumpyProducts(Calls, OnCpu):
    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        super().__init__(settings)
        require(settings.config.precision == "float32", "it is float32")
        size, n = settings.config.batch_size, len(dataset.train.labels)
        full, tail = (products(settings.config, b, np.dot, np.asarray) for b in (size, n % size))
        self.calls = [full] * (n // size) + ([tail] if n % size else [])


class NumpyLargeProduct(Calls, OnCpu):
    def __init__(self, dataset: Dataset, settings: Settings, size: int) -> None:
        super().__init__(settings)
        a = np.ones((size, size), np.float32)
        self.calls = [functools.partial(np.dot, a, a, out=np.empty_like(a))]


class NumpyCopy(Calls, OnCpu):
    def __init__(self, dataset: Dataset, settings: Settings, size: int) -> None:
        super().__init__(settings)
        a = np.ones(size, np.float32)
        self.calls = [functools.partial(np.copyto, np.ones_like(a), a)]
