"""Trainings that the rungs and the negative controls judge."""

from __future__ import annotations

from types import ModuleType
from typing import TYPE_CHECKING

import pytest

from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.evaluation import Evaluation

if TYPE_CHECKING:
    from benchmarks.equivalence import trainings


@pytest.fixture(autouse=True)
def _on_one_thread(torch: ModuleType) -> None:
    """PyTorch, in all these tests."""


@pytest.fixture(scope="session")
def runs(full_dataset: Dataset) -> trainings.FourRuns:
    from benchmarks.equivalence import trainings

    return trainings.four_runs(full_dataset, Config())


@pytest.fixture(scope="session")
def scores(full_dataset: Dataset) -> list[Evaluation]:
    from benchmarks.equivalence import trainings
    from tests.equivalence.checks import JAX_SEEDS

    return trainings.jax_seeds(full_dataset, JAX_SEEDS, Config())
