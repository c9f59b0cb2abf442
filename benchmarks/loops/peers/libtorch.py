"""A plain loop in C++ on PyTorch's library, compiled when it is prepared."""

import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import torch
from torch import nn

from benchmarks.harness.program import Settings, require, require_plain
from benchmarks.loops.pytorch import Eager
from flax_mnist.data.dataset import Dataset


class InCpp(Eager):
    """The eager loop, an epoch a call of C++."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        require_plain(settings.config)
        require(shutil.which("c++") is not None, "it needs a C++ compiler")
        require(shutil.which("ninja") is not None, "it needs ninja")
        super().__init__(dataset, settings)
        from torch.utils import cpp_extension

        start = time.perf_counter()
        source = Path(__file__).with_name("libtorch.cpp")
        with tempfile.TemporaryDirectory() as folder:
            self.library: Any = cpp_extension.load(
                "libtorch_loop", [str(source)], extra_cflags=["-O2"], build_directory=folder
            )
        self.compile_seconds = time.perf_counter() - start
        linears = [part for part in self.model if isinstance(part, nn.Linear)]
        self.layers = [each.weight for each in linears], [each.bias for each in linears]

    def epoch(self) -> None:
        size, rate = self.config.batch_size, self.config.learning_rate
        data = self.inputs, self.labels, self.order()
        self.loss = self.library.epoch(*self.layers, *data, size, rate)

    def step(self, index: torch.Tensor) -> torch.Tensor:
        raise NotImplementedError
