"""Keras 3 on its PyTorch back end."""

import os

os.environ["KERAS_BACKEND"] = "torch"  # Keras reads it once, on import

import torch

from benchmarks.harness.program import Settings, require
from benchmarks.loops.peers import keras_fit


class Fit(keras_fit.Fit):
    """Where Keras puts it: on a GPU if PyTorch finds one."""

    def place(self, settings: Settings) -> str:
        has_gpu = torch.cuda.is_available()
        require(settings.device == ("gpu" if has_gpu else "cpu"), "it takes what PyTorch finds")
        return "cuda" if has_gpu else "cpu"

    def wait(self) -> None:
        if self.device == "cuda":
            torch.cuda.synchronize()
