"""Do the rows compute the same, and would it be noticed if one did not?

Every loop is handed to an independent judge: `flax_mnist.backprop`, the formulas of the tutorial in
float64, replays the epoch from the loop's own first weights and order of images.
"""

from __future__ import annotations

import dataclasses
import importlib
from typing import Any

import numpy as np
import pytest

from benchmarks.harness.program import Program, Settings, Weights, epoch_flops
from benchmarks.harness.worker import time_call
from benchmarks.loops import this_project
from benchmarks.rows import Variant
from flax_mnist import backprop
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import epoch_order
from tests.benchmarks.some_rows import row

SEED = 3
"""That of the fixture `settings`."""


def replay(weights: Weights, dataset: Dataset, order: np.ndarray, config: Config) -> Weights:
    """One epoch from these weights in this order, in float64 by the tutorial's formulas."""
    layers = [
        (weights[f"{i}.weight"].T.astype(float), weights[f"{i}.bias"].astype(float))
        for i in range(0, len(weights), 2)
    ]
    images = dataset.train.images.reshape(len(dataset.train.images), -1)
    for start in range(0, len(order), config.batch_size):
        rows = order[start : start + config.batch_size]
        inputs = (images[rows] / 255 - 0.5) / 0.5
        _, gradients = backprop.mlp_gradients(layers, inputs, dataset.train.labels[rows])
        layers = list(backprop.gradient_descent(layers, gradients, config.learning_rate))
    return {f"{2 * i}.weight": np.asarray(kernel).T for i, (kernel, _) in enumerate(layers)} | {
        f"{2 * i}.bias": np.asarray(bias) for i, (_, bias) in enumerate(layers)
    }


def loader_orders(n: int, models: int) -> list[np.ndarray]:
    import torch

    from benchmarks.equivalence import torch_reference

    return [torch_reference.dataloader_order(n, torch.Generator().manual_seed(SEED))]


def torch_orders(n: int, models: int) -> list[np.ndarray]:
    import torch

    generator = torch.Generator().manual_seed(SEED)
    return [torch.randperm(n, generator=generator).numpy() for _ in range(models)]


def our_orders(n: int, models: int) -> list[np.ndarray]:
    return [epoch_order(SEED + i, 0, n) for i in range(models)]


EXACT = 2e-3
"""Rounding may put an activation on the other side of ReLU's kink: a thousandth of the way."""

LOOPS = [
    ("P1", loader_orders, EXACT),
    ("P2", loader_orders, EXACT),
    ("P3", torch_orders, EXACT),
    ("P4", torch_orders, EXACT),
    ("P5", torch_orders, EXACT),
    ("P8", torch_orders, EXACT),
    ("J1", our_orders, EXACT),
    ("J2", our_orders, EXACT),
    ("J4", our_orders, EXACT),
    ("J5", our_orders, 0.2),
    ("N1", our_orders, EXACT),
]


def start(variant: Variant, dataset: Dataset, settings: Settings) -> Program:
    module, _, name = variant.entry.partition(":")
    program_class = getattr(importlib.import_module(module), name)
    program: Program = program_class(dataset, settings, **variant.options)
    return program


@pytest.mark.parametrize(("name", "orders", "tolerance"), LOOPS, ids=[loop[0] for loop in LOOPS])
def test_an_epoch_is_the_tutorials(
    name: str,
    orders: Any,
    tolerance: float,
    dataset: Dataset,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    if name.startswith("P"):
        # What P5 and P6 compile, uncompiled: a minute less. The benchmark scores the compiled one.
        torch = pytest.importorskip("torch")
        monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    # Exact to rounding: no image is shown twice or left out, no batch cut short, no update missed.
    for variant in row(name).variants:
        if variant.options.get("workers"):
            continue  # it forks, which a process with JAX's threads in it may not survive
        program = start(variant, dataset, settings)
        before = program.weights()
        program.epoch()
        program.wait()
        after = program.weights()
        assert len(after) == program.models == (3 if name in ("P8", "J4") else 1)
        n = len(dataset.train.labels)
        for first, last, order in zip(before, after, orders(n, program.models), strict=True):
            expected = replay(first, dataset, order, settings.config)
            assert distance(last, expected, first) < tolerance
            # The sharpness of the test: one image of the thousand shown twice, another one never.
            order[0] = order[-1]
            wrong = replay(first, dataset, order, settings.config)
            assert distance(wrong, expected, first) > 2 * EXACT


def distance(a: Weights, b: Weights, start: Weights) -> float:
    """Between two ends of a way, as a part of the way."""
    assert a.keys() == b.keys()
    return max(
        float(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(b[name] - start[name]))
        for name in b
    )


def test_all_epochs_at_once_are_the_epochs(dataset: Dataset, settings: Settings) -> None:
    at_once = this_project.AllEpochs(dataset, settings)
    at_once.epoch()
    one_by_one = this_project.EpochScan(dataset, settings)
    for _ in range(settings.config.epochs):
        one_by_one.epoch()
    assert at_once.epochs_per_call == settings.config.epochs
    for a, b in zip(at_once.weights(), one_by_one.weights(), strict=True):
        for key in b:
            np.testing.assert_allclose(a[key], b[key], rtol=0, atol=1e-5)


@pytest.mark.usefixtures("torch")
def test_models_differ(dataset: Dataset, settings: Settings) -> None:
    for name in ("P8", "J4"):
        first, second, *_ = start(row(name).variants[0], dataset, settings).weights()
        assert np.abs(first["0.weight"] - second["0.weight"]).max() > 0.01


def test_the_ceiling_counts_the_steps_products() -> None:
    # 29.1 MFLOP for a batch of 64: three products of each layer, without the images' gradient.
    assert epoch_flops(Config(), 64) == 2 * 64 * (3 * (784 * 128 + 128 * 64 + 64 * 10) - 784 * 128)


@pytest.mark.usefixtures("torch")
def test_ceilings_run(dataset: Dataset, settings: Settings) -> None:
    for name in ("G1", "G2", "G3"):
        for variant in row(name).variants:
            small = dataclasses.replace(variant, options=dict.fromkeys(variant.options, 64))
            program = start(small, dataset, settings)
            assert min(time_call(program), time_call(program)) > 0
            assert program.weights() == []


@pytest.mark.parametrize(("precision", "tolerance"), [("float64", 1e-9), ("bfloat16", 0.2)])
@pytest.mark.parametrize(("name", "orders"), [("P3", torch_orders), ("J2", our_orders)])
def test_other_precisions_compute_the_same(
    name: str, orders: Any, precision: Any, tolerance: float, dataset: Dataset, settings: Settings
) -> None:
    config = dataclasses.replace(settings.config, precision=precision)
    program = start(row(name).variants[0], dataset, dataclasses.replace(settings, config=config))
    (before,) = program.weights()
    program.epoch()
    (after,) = program.weights()
    assert after["0.weight"].dtype == ("float64" if precision == "float64" else "float32")
    (order,) = orders(len(dataset.train.labels), 1)
    reached = distance(after, replay(before, dataset, order, config), before)
    assert reached < tolerance
    assert precision == "float64" or reached > EXACT  # it is no float32 under another name
