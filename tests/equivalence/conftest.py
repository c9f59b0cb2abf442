"""Trainings that the rungs and the negative controls judge."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch

from benchmarks.equivalence import trainings
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.evaluation import Evaluation
from tests.equivalence.checks import JAX_SEEDS


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="session")
def runs(full_dataset: Dataset) -> trainings.FourRuns:
    return trainings.four_runs(full_dataset, Config())


@pytest.fixture(scope="session")
def scores(full_dataset: Dataset) -> list[Evaluation]:
    return trainings.jax_seeds(full_dataset, JAX_SEEDS, Config())
