"""tinygrad with `TinyJit`, as its own MNIST example does it."""

import os
import shutil
from typing import Any

import numpy as np
from tinygrad import Device, Tensor, TinyJit
from tinygrad.helpers import DEV

from benchmarks.harness import program
from flax_mnist.data.dataset import Dataset


class Jit(program.Program):
    """All images normalised beforehand on the device, gathered in the compiled step."""

    def __init__(self, dataset: Dataset, settings: program.Settings) -> None:
        program.require(settings.device != "tpu", "tinygrad has no TPU")
        compiles = settings.device != "cpu" or shutil.which("clang") is not None
        program.require(compiles, "tinygrad's CPU back end needs clang")
        if "DEV" not in os.environ:
            DEV.value = "CPU" if settings.device == "cpu" else "CUDA"
        self.device = Device.DEFAULT
        config = settings.config
        program.require_plain(config)
        self.batch_size, self.learning_rate = config.batch_size, config.learning_rate
        self.rng = np.random.default_rng(config.seed + 1)
        layers = program.initial_layers(config, np.random.default_rng(config.seed))
        self.params = [[Tensor(array).realize() for array in layer] for layer in layers]
        inputs, labels = program.normalize(dataset.train.images), dataset.train.labels
        self.inputs, self.labels = Tensor(inputs).realize(), Tensor(labels).realize()
        # A captured program has one batch size: the tail takes one of its own.
        sizes = program.batch_sizes(config, len(labels))
        self.steps: dict[int, Any] = {size: TinyJit(self.step) for size in sizes}

    def step(self, rows: Tensor) -> Tensor:
        x, labels = self.inputs[rows], self.labels[rows]
        for kernel, bias in self.params[:-1]:
            x = (x @ kernel + bias).relu()
        kernel, bias = self.params[-1]
        loss = (x @ kernel + bias).sparse_categorical_crossentropy(labels)
        leaves = [leaf for pair in self.params for leaf in pair]
        for leaf, gradient in zip(leaves, loss.gradient(*leaves), strict=True):
            leaf.assign(leaf.detach() - self.learning_rate * gradient)
        return loss.realize(*leaves)

    def epoch(self) -> None:
        order = self.rng.permutation(len(self.labels)).astype(np.int32)
        for rows in program.batches(order, self.batch_size):
            self.loss = self.steps[len(rows)](Tensor(rows).realize())

    def wait(self) -> None:
        Device[self.device].synchronize()

    def weights(self) -> list[program.Weights]:
        return [program.named((kernel.numpy(), bias.numpy()) for kernel, bias in self.params)]
