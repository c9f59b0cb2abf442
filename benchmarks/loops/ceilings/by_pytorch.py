"""The ceilings by PyTorch and its BLAS; on a GPU the step's products are one CUDA graph."""

from __future__ import annotations

import torch

from benchmarks.loops.pytorch import choose_device
from benchmarks.program import PIXELS, Program, Settings, layer_shapes
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset


class _OnTorch(Program):
    def __init__(self, dataset: Dataset, settings: Settings, **options: int) -> None:
        self.place = choose_device(settings)
        self.device = torch.cuda.get_device_name() if self.place.type == "cuda" else "cpu"
        self.prepare(dataset, settings, **options)

    def prepare(self, dataset: Dataset, settings: Settings, **options: int) -> None:
        raise NotImplementedError

    def wait(self) -> None:
        if self.place.type == "cuda":
            torch.cuda.synchronize()

    def device_memory(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.place.type == "cuda" else None


class StepProducts(_OnTorch):
    """An epoch of the matrix products of a step, each with what it needs from those before."""

    def prepare(self, dataset: Dataset, settings: Settings, **options: int) -> None:
        config = settings.config
        self.full, tail = divmod(len(dataset.train.labels), config.batch_size)
        self.step = _Products(config, config.batch_size, self.place)
        self.tail = _Products(config, tail, self.place)
        self.graph = None
        if self.place.type == "cuda":
            self.step.run()
            torch.cuda.synchronize()
            self.graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(self.graph):
                self.step.run()

    def epoch(self) -> None:
        for _ in range(self.full):
            if self.graph:
                self.graph.replay()
            else:
                self.step.run()
        if self.tail.batch:
            self.tail.run()


class _Products:
    def __init__(self, config: Config, batch: int, place: torch.device) -> None:
        self.batch, layers = batch, layer_shapes(config)
        sizes = [PIXELS, *(fan_out for _, fan_out in layers)]
        self.kernels = [torch.randn(shape, device=place) / shape[0] ** 0.5 for shape in layers]
        self.kernel_gradients = [torch.empty_like(kernel) for kernel in self.kernels]
        self.activations = [torch.ones(batch, size, device=place) for size in sizes]
        self.gradients = [torch.empty(batch, size, device=place) for size in sizes]

    def run(self) -> None:
        S, last = self.activations, len(self.kernels) - 1  # noqa: N806
        for k, kernel in enumerate(self.kernels):
            torch.mm(S[k], kernel, out=S[k + 1])
        d = S[-1]
        for k in range(last, -1, -1):
            torch.mm(S[k].t(), d, out=self.kernel_gradients[k])
            if k > 0:
                d = torch.mm(d, self.kernels[k].t(), out=self.gradients[k])


class LargeProduct(_OnTorch):
    """One product of two `size` x `size` matrices."""

    def prepare(self, dataset: Dataset, settings: Settings, **options: int) -> None:
        self.a = torch.ones(options["size"], options["size"], device=self.place)
        self.out = torch.empty_like(self.a)

    def epoch(self) -> None:
        torch.mm(self.a, self.a, out=self.out)


class Copy(_OnTorch):
    """One copy of `size` float32 numbers."""

    def prepare(self, dataset: Dataset, settings: Settings, **options: int) -> None:
        self.a = torch.ones(options["size"], device=self.place)
        self.out = torch.ones_like(self.a)

    def epoch(self) -> None:
        self.out.copy_(self.a)
