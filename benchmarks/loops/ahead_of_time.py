"""PyTorch's step, exported and compiled ahead of time: a package that is loaded and called."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch.fx.experimental.proxy_tensor import make_fx

from benchmarks.harness.program import Settings, batch_sizes, require
from benchmarks.loops.pytorch import NO_AUTOCAST, Eager, plain_step
from flax_mnist.data.dataset import Dataset


class AheadOfTime(Eager):
    """The whole step, gather and update included, by `torch.export` and AOTInductor."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        require(settings.config.momentum == 0, "it is plain SGD")
        require(settings.config.precision != "bfloat16", NO_AUTOCAST)
        require(bool(shutil.which("c++") or shutil.which("g++")), "it needs a C++ compiler")
        super().__init__(dataset, settings)
        self.params = {name: value.detach() for name, value in self.model.named_parameters()}
        start = time.perf_counter()
        # A package for each size of a batch: a symbolic one would slow both.
        sizes = batch_sizes(self.config, len(self.labels))
        self.packages = {size: self.package(size) for size in sizes}
        self.compile_seconds = time.perf_counter() - start

    def package(self, size: int) -> Any:
        """The step for batches of this size, compiled and loaded."""
        index = torch.zeros(size, dtype=torch.int64, device=self.place)
        arguments = (self.params, self.inputs, self.labels, index)
        step = plain_step(self.model, self.criterion, self.config.learning_rate)
        # The gradients become operations like others, since an exported program has no backward
        # pass; of fake tensors, as nothing is to be trained yet.
        traced = make_fx(step, tracing_mode="fake")(*arguments)
        exported = torch.export.export(traced, arguments)
        with tempfile.TemporaryDirectory() as folder:
            path = torch._inductor.aoti_compile_and_package(  # noqa: SLF001  -- its documented name
                exported, package_path=str(Path(folder) / "step.pt2")
            )
            return torch._inductor.aoti_load_package(path)  # noqa: SLF001

    def step(self, index: torch.Tensor) -> Any:
        return self.packages[len(index)](self.params, self.inputs, self.labels, index)
