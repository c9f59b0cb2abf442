"""Does each peer train the epoch that the tutorial trains? Those that are installed are asked."""

from __future__ import annotations

import copy
import dataclasses
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from importlib.util import find_spec
from multiprocessing import get_context
from typing import Any, NamedTuple
from warnings import filterwarnings

import jax
import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from torch.utils.data import DataLoader

from benchmarks.equivalence.torch_reference import dataloader_order
from benchmarks.harness.program import Program, Settings, UnavailableError, Weights
from benchmarks.rows import Variant
from flax_mnist.config import Config
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


def of_tinygrad(program: Any, n: int) -> np.ndarray:
    """What the row's own generator will shuffle to."""
    return copy.deepcopy(program.rng).permutation(n)  # type: ignore[no-any-return]


def of_keras_on_jax(_program: Program, n: int) -> np.ndarray:
    """What NumPy's global generator will shuffle to."""
    ahead = np.random.RandomState()
    ahead.set_state(np.random.get_state())  # noqa: NPY002
    return ahead.permutation(n)


def of_keras_on_torch(_program: Program, n: int) -> np.ndarray:
    """What a shuffling loader will draw by PyTorch's global generator."""
    with torch.random.fork_rng(devices=()):
        loader: Any = DataLoader(range(n), batch_size=None, shuffle=True)  # type: ignore[arg-type]
        return np.array(list(loader))


def require(variant: Variant) -> None:
    for package in variant.needs:
        # Without importing Keras, which would take its default back end.
        if find_spec(package) is None:
            pytest.skip(f"{package} comes with the extra peers")


class Run(NamedTuple):
    """The order of an epoch, told before it; the weights before it, after it, and after another."""

    order: np.ndarray
    before: Weights
    after: Weights
    later: Weights


def two_epochs(
    variant: Variant, order_of: Order, dataset: Dataset, settings: Settings, earlier: int = 0
) -> Run:
    """Trains after some `earlier` epochs."""
    program = start(variant, dataset, settings)

    def weights_after(epochs: int) -> Weights:
        for _ in range(epochs):
            program.epoch()
        program.wait()
        (weights,) = program.weights()
        return weights

    before = weights_after(earlier)
    order = order_of(program, len(dataset.train.labels))
    return Run(order, before, weights_after(1), weights_after(1))


def require_exact(run: Run, dataset: Dataset, config: Config) -> None:
    """Asserts that the epoch is the tutorial's, and that the next one is in another order."""
    order, before, after, later = run
    assert distance(after, replay(before, dataset, order, config), before) < EXACT
    # The sharpness of the test: one image of the thousand shown twice, another one never.
    order[0] = order[-1]
    assert distance(after, replay(before, dataset, order, config), before) > EXACT
    # Another epoch is another order.
    assert distance(later, replay(after, dataset, order, config), after) > EXACT


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
        pytest.param("T1", 0, of_tinygrad, marks=pytest.mark.long),
        pytest.param("C1", 0, of_torch, marks=pytest.mark.long),
        pytest.param("A1", 0, of_torch, marks=pytest.mark.long),
    ],
)
@pytest.mark.filterwarnings("ignore")  # of the peers'
def test_an_epoch_is_the_tutorials(
    name: str, number: int, order_of: Order, dataset: Dataset, settings: Settings
) -> None:
    variant = row(name).variants[number]
    require(variant)
    try:
        run = two_epochs(variant, order_of, dataset, settings)
    except UnavailableError as reason:
        pytest.skip(str(reason))
    require_exact(run, dataset, settings.config)


@pytest.mark.long
@pytest.mark.parametrize(
    ("name", "number", "order_of"),
    [("K1", 0, of_keras_on_jax), ("K1", 1, of_keras_on_jax), ("K2", 0, of_keras_on_torch)],
)
def test_an_epoch_of_keras_is_the_tutorials(
    name: str, number: int, order_of: Order, dataset: Dataset, settings: Settings
) -> None:
    variant = row(name).variants[number]
    require(variant)
    # 63 steps, more than the 32 of a call, the last of eight images.
    settings = dataclasses.replace(
        settings, config=dataclasses.replace(settings.config, batch_size=16)
    )
    # In a process of its own, as Keras takes one back end for good when it is imported; after an
    # epoch, as its first `fit` draws an order of which it only looks at the first batch.
    with ProcessPoolExecutor(1, get_context("spawn"), filterwarnings, ("ignore",)) as process:
        run = process.submit(two_epochs, variant, order_of, dataset, settings, 1).result()
    require_exact(run, dataset, settings.config)


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
