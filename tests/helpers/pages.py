"""Pages of networks that were not trained."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from flax_mnist import Config, init_state, predict
from flax_mnist.config import DatasetName
from flax_mnist.data.dataset import DIGITS, Dataset, Split
from flax_mnist.model import make_model
from flax_mnist.show import page
from flax_mnist.show.results import Findings
from flax_mnist.store.metrics import Metrics
from flax_mnist.store.weights import to_torch_state_dict


def render(
    digits: dict[str, np.ndarray],
    config: Config | None = None,
    *,
    name: str = "a run",
    environment: Mapping[str, Any] | None = None,
    dataset_name: DatasetName = "mnist",
    class_names: Sequence[str] = DIGITS,
    probabilities: np.ndarray | None = None,
) -> str:
    """The page of a network that has learned nothing, or that is said to have, on the small set."""
    config = config or Config()
    params = init_state(config).params
    train, test = (
        Split(digits[f"{split}_images"], digits[f"{split}_labels"].astype(np.int32))
        for split in ("train", "test")
    )
    if probabilities is None:
        probabilities = np.asarray(predict(params, test.images, model=make_model(config)))
    metrics = [Metrics(1, 16, 2.3, 2.2, 0.1, 0.5, 2000.0)]
    dataset = Dataset(dataset_name, "somewhere", tuple(class_names), train, test)
    return page.render(
        page.History(name, config, environment or {"device": "cpu: cpu"}, metrics, "2026-11-27"),
        Findings(dataset, 2.2, probabilities),
        to_torch_state_dict(params),
    )
