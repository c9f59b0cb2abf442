"""Does each peer train the epoch that the tutorial trains? Those that are installed are asked."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.equivalence.torch_reference import dataloader_order
from benchmarks.harness.program import Program, Settings
from benchmarks.rows import Variant
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import epoch_order
from tests.benchmarks.some_rows import row
from tests.benchmarks.test_loops import EXACT, SEED, distance, replay, start

Order = Callable[[Any, int], np.ndarray]


def ours(_program: Program, n: int) -> np.ndarray:
    return epoch_order(SEED, 0, n)


def collated(_program: Program, n: int) -> np.ndarray:
    return dataloader_order(n, torch.Generator().manual_seed(SEED))


def of_torch(_program: Program, n: int) -> np.ndarray:
    return torch.randperm(n, generator=torch.Generator().manual_seed(SEED)).numpy()


def of_numpy(program: Any, n: int) -> np.ndarray:
    """What the generator of scikit-learn's network will shuffle to."""
    order, ahead = np.arange(n), np.random.RandomState()
    ahead.set_state(program.random.get_state())
    ahead.shuffle(order)
    return order


def require(variant: Variant) -> None:
    for package in variant.needs:
        pytest.importorskip(package, reason=f"{package} comes with the extra peers")


@pytest.mark.parametrize(
    ("name", "number", "order_of"),
    [
        ("F1", 0, ours),
        ("F1", 1, ours),
        ("F1", 2, ours),
        ("E1", 0, ours),
        ("E1", 1, ours),
        ("L1", 0, collated),
        ("L1", 1, of_torch),
        ("S1", 0, of_numpy),
        pytest.param("C1", 0, of_torch, marks=pytest.mark.long),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of the peers'
def test_an_epoch_is_the_tutorials(
    name: str, number: int, order_of: Order, dataset: Dataset, settings: Settings
) -> None:
    variant = row(name).variants[number]
    require(variant)
    program = start(variant, dataset, settings)
    program.wait()
    (before,) = program.weights()
    order = order_of(program, len(dataset.train.labels))
    program.epoch()
    program.wait()
    (after,) = program.weights()
    assert distance(after, replay(before, dataset, order, settings.config), before) < EXACT
    # The sharpness of the test: one image of the thousand shown twice, another one never.
    order[0] = order[-1]
    assert distance(after, replay(before, dataset, order, settings.config), before) > EXACT
    # Another epoch is another order.
    program.epoch()
    program.wait()
    (later,) = program.weights()
    assert distance(later, replay(after, dataset, order, settings.config), after) > EXACT


@pytest.mark.parametrize("name", ["F1", "E1", "K1"])
def test_peers_on_jax_multiply_in_float32_on_any_device(
    name: str, dataset: Dataset, settings: Settings
) -> None:
    """A GPU would take TF32, a TPU bfloat16, if it were not told."""
    variant = row(name).variants[0]
    require(variant)
    start(variant, dataset, settings)
    product = jax.jit(jnp.dot).lower(np.ones((2, 2), np.float32), np.ones((2, 2), np.float32))
    assert "precision = [HIGHEST, HIGHEST]" in product.as_text()
