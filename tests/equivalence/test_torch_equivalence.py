"""The ladder: the JAX program computes what the PyTorch tutorial computes, rung by rung.

`benchmarks/equivalence/` measures the differences of rungs 2 to 7 and 9 to 13 and states their
tolerances; `python -m benchmarks.equivalence` prints them. A rung asserts them on real MNIST, or on
the built-in digits where that is not at hand. `test_negative_controls.py` puts mistakes into the
program and shows that the rung's own check notices.
"""

from __future__ import annotations

import pytest

pytest.importorskip("torch")

from benchmarks.equivalence import stored_runs
from benchmarks.equivalence.recipes import RECIPES
from tests.equivalence import checks


def test_rung_01_initialisation(full_dataset):
    checks.check_initialisation(full_dataset)


def test_rung_02_pixels_to_inputs(full_dataset):
    checks.check_inputs(full_dataset)


def test_rung_03_forward(full_dataset):
    checks.check_forward(full_dataset)


def test_rung_04_loss(full_dataset):
    checks.check_loss(full_dataset)


def test_rung_05_gradients(full_dataset):
    checks.check_gradients(full_dataset)


def test_rung_06_sgd_step(full_dataset):
    checks.check_step(full_dataset)


def test_rung_07_ragged_batch(full_dataset):
    checks.check_ragged_batch(full_dataset)


def test_rung_08_batches_of_the_dataloader(full_dataset):
    checks.check_batches(full_dataset)


@pytest.mark.long
def test_rung_09_five_epochs_in_float64(runs):
    assert len(runs.jax64.losses) == 5
    assert runs.jax64.losses[4] < 0.4 < 1 < runs.jax64.losses[0], "it did not train"
    checks.check_float64_training(runs)


@pytest.mark.long
def test_rung_10_five_epochs_in_float32(runs):
    checks.check_float32_training(runs)


@pytest.mark.long
def test_rung_11_independent_runs(full_dataset, scores):
    assert len(stored_runs.runs_on(full_dataset)) >= 20
    assert len(checks.JAX_SEEDS) >= 20
    checks.check_independent_runs(full_dataset, scores[-1])


@pytest.mark.long
def test_control_an_epoch_too_few_is_caught_by_rung_11(full_dataset, scores):
    """Here, not beside the other controls, so that a worker has made the runs already."""
    with pytest.raises(AssertionError, match="independent runs, test loss"):
        checks.check_independent_runs(full_dataset, scores[-2])


@pytest.mark.parametrize("recipe", RECIPES)
def test_rung_12_steps_of_other_optimizers_and_schedules(full_dataset, recipe):
    checks.check_recipe_steps(full_dataset, recipe)


@pytest.mark.long
@pytest.mark.parametrize("recipe", RECIPES)
def test_rung_13_an_epoch_of_other_optimizers_and_schedules_in_float64(full_dataset, recipe):
    checks.check_recipe_epoch(full_dataset, recipe)
