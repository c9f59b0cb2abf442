"""Datasets made of arrays."""

from __future__ import annotations

import numpy as np

from flax_mnist.data.dataset import DIGITS, Dataset, Split


def dataset_of(arrays: dict[str, np.ndarray], n: int | None = None) -> Dataset:
    """Digits as the generator draws them, the first `n` of each split where that is given."""
    train, test = (
        Split(arrays[f"{split}_images"][:n], arrays[f"{split}_labels"][:n].astype(np.int32))
        for split in ("train", "test")
    )
    return Dataset("synthetic", "a test", DIGITS, train, test)
