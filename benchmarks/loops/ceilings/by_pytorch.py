"""The ceilings by PyTorch and its BLAS; on a GPU the step's products are one CUDA graph."""

import torch

from benchmarks.harness.program import PIXELS, Settings, layer_shapes
from benchmarks.loops.pytorch import OnTorch
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset


class TorchProducts(OnTorch):
    """An epoch of the matrix products of a step, each with what it needs from those before."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        super().__init__(settings)
        config = settings.config
        self.full, tail = divmod(len(dataset.train.labels), config.batch_size)
        self.step = _TorchStep(config, config.batch_size, self.place)
        self.tail = _TorchStep(config, tail, self.place) if tail else None
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
        if self.tail:
            self.tail.run()


class _TorchStep:
    def __init__(self, config: Config, batch: int, place: torch.device) -> None:
        layers = layer_shapes(config)
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


class TorchLargeProduct(OnTorch):
    """One product of two `size` x `size` matrices."""

    def __init__(self, dataset: Dataset, settings: Settings, size: int) -> None:
        super().__init__(settings)
        self.a = torch.ones(size, size, device=self.place)
        self.out = torch.empty_like(self.a)

    def epoch(self) -> None:
        torch.mm(self.a, self.a, out=self.out)


class TorchCopy(OnTorch):
    """One copy of `size` float32 numbers."""

    def __init__(self, dataset: Dataset, settings: Settings, size: int) -> None:
        super().__init__(settings)
        self.a = torch.ones(size, device=self.place)
        self.out = torch.ones_like(self.a)

    def epoch(self) -> None:
        self.out.copy_(self.a)
