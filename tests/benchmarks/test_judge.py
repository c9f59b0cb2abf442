"""Who has learned what the tutorial learns, and who has not."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest

from benchmarks.harness import judge
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset


def test_the_score_agrees_with_pytorch(
    torch: ModuleType, tutorial: ModuleType, dataset: Dataset
) -> None:
    torch.manual_seed(0)
    model = tutorial.build_model()
    inputs = tutorial.normalize(dataset.test.images)
    expected = tutorial.evaluate(model, inputs, torch.tensor(dataset.test.labels).long())
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    np.testing.assert_allclose(judge.score(weights, dataset.test), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "accuracy", "valid"),
    [(0.357, 0.898, True), (0.37, 0.905, True), (0.45, 0.898, False), (0.357, 0.88, False),
     (float("nan"), 0.898, False)],
)  # fmt: skip
def test_validity(loss: float, accuracy: float, valid: bool) -> None:
    reference = judge.Reference(0.357, 0.898, "")
    assert judge.is_valid([(loss, accuracy)], reference) is valid
    # One wrong model among many is enough.
    assert judge.is_valid([(0.357, 0.898), (loss, accuracy)], reference) is valid
    assert judge.is_valid([(loss, accuracy)], None) is None


def test_the_stored_runs_are_the_reference_for_the_tutorials_settings_only() -> None:
    reference = judge.stored_reference("mnist", Config())
    assert reference
    assert reference.accuracy == pytest.approx(0.898, abs=0.002)
    assert judge.stored_reference("mnist", Config(batch_size=128)) is None
    assert judge.stored_reference("kmnist", Config()) is None
