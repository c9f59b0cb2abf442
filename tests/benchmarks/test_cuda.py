"""The rows that need an NVIDIA GPU, on a stand-in: the order of calls, and what they compute."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.harness.program import Settings
from benchmarks.harness.worker import time_call
from benchmarks.loops import pytorch
from benchmarks.loops.ceilings.by_pytorch import TorchProducts
from benchmarks.rows import Variant
from flax_mnist.data.dataset import Dataset
from tests.benchmarks.some_rows import row
from tests.benchmarks.test_loops import start
from tests.helpers.cuda import Cuda, OnTheCpu

#: https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
RECORDED = [
    "side waits for main", "on side", "off side", "main waits for side", "capture", "captured",
]  # fmt: skip


@pytest.fixture
def cuda(monkeypatch: pytest.MonkeyPatch) -> Iterator[Cuda]:
    stand_in = Cuda()
    stand_in.install(monkeypatch)
    with OnTheCpu():
        yield stand_in


@pytest.fixture
def gpu(settings: Settings) -> Settings:
    return dataclasses.replace(settings, device="gpu")


def test_a_graph_is_recorded_and_replayed_as_pytorch_asks(
    dataset: Dataset, settings: Settings, gpu: Settings, cuda: Cuda
) -> None:
    program = pytorch.CudaGraph(dataset, gpu)
    assert cuda.events == 2 * RECORDED  # of the full batches, and of the short one
    cuda.events.clear()
    time_call(program)
    assert cuda.events == ["synchronize", *["replay"] * 16, "synchronize"]
    eager = pytorch.Eager(dataset, settings)
    eager.epoch()
    assert program.loss == eager.loss
    for ours, theirs in zip(program.weights(), eager.weights(), strict=True):
        for name, value in theirs.items():
            np.testing.assert_array_equal(ours[name], value)


def test_the_products_are_recorded_too(dataset: Dataset, gpu: Settings, cuda: Cuda) -> None:
    program = TorchProducts(dataset, gpu)
    time_call(program)
    assert cuda.events == [*RECORDED, "synchronize", *["replay"] * 15, "synchronize"]


@pytest.mark.filterwarnings("ignore:'pin_memory'")
@pytest.mark.parametrize("name", ["P1", "P2", "P3", "P4", "P5", "P8", "P9"])
def test_on_a_gpu_a_row_trains_as_on_the_cpu(
    name: str,
    dataset: Dataset,
    settings: Settings,
    gpu: Settings,
    cuda: Cuda,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    variant: Variant = row(name).variants[0]
    there = start(variant, dataset, gpu)
    time_call(there)
    assert cuda.events == ["synchronize"] * 2
    assert torch.get_float32_matmul_precision() == ("high" if name == "P9" else "highest")
    same = dataclasses.replace(variant, options={**variant.options, "tf32": False})
    here = start(same if name == "P9" else variant, dataset, settings)
    here.epoch()
    for ours, theirs in zip(there.weights(), here.weights(), strict=True):
        for key, value in theirs.items():
            np.testing.assert_array_equal(ours[key], value)
