"""PyTorch's side of the comparison of independent runs, as `benchmarks.torch_seeds` stored it.

To be read without PyTorch.
"""

import json
from pathlib import Path
from typing import Any

from flax_mnist.data.dataset import Dataset

FILE = Path(__file__).parents[1] / "results" / "torch_seeds.json"


def read() -> dict[str, Any]:
    """By dataset: a digest of its images, the config, versions, and the runs."""
    stored: dict[str, Any] = json.loads(FILE.read_text()) if FILE.exists() else {}
    return stored


def runs_on(dataset: Dataset) -> list[dict[str, Any]]:
    """The runs on this dataset: seed, training losses by epoch, test loss and test accuracy.

    Raises:
        LookupError: there are none on these very images and labels.
    """
    stored = read().get(dataset.name)
    if stored is None or stored["data"] != dataset.digest():
        raise LookupError(
            f"{FILE.name} holds no runs on this {dataset.name}: "
            f"python -m benchmarks.torch_seeds --dataset {dataset.name} adds them."
        )
    runs: list[dict[str, Any]] = stored["runs"]
    return runs
