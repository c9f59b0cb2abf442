"""The ceilings by PyTorch and its BLAS; on a GPU the step's products are one CUDA graph."""

import functools

import torch

from benchmarks.harness.program import Calls, Settings, require
from benchmarks.loops.ceilings.by_numpy import products
from benchmarks.loops.pytorch import OnTorch, record
from flax_mnist.data.dataset import Dataset


class TorchProducts(Calls, OnTorch):
    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        super().__init__(settings)
        require(settings.config.precision == "float32", "it is float32")
        size, n = settings.config.batch_size, len(dataset.train.labels)
        array = functools.partial(torch.tensor, device=self.place)
        full, tail = (products(settings.config, b, torch.mm, array) for b in (size, n % size))
        if self.place.type == "cuda":
            graph, _ = record(full)
            self.memory, full = full, graph.replay  # what a graph works on, it does not keep
        self.calls = [full] * (n // size) + ([tail] if n % size else [])


class TorchLargeProduct(Calls, OnTorch):
    def __init__(self, dataset: Dataset, settings: Settings, size: int) -> None:
        super().__init__(settings)
        a = torch.ones(size, size, device=self.place)
        self.calls = [functools.partial(torch.mm, a, a, out=torch.empty_like(a))]


class TorchCopy(Calls, OnTorch):
    def __init__(self, dataset: Dataset, settings: Settings, size: int) -> None:
        super().__init__(settings)
        a = torch.ones(size, device=self.place)
        self.calls = [functools.partial(torch.ones_like(a).copy_, a)]
