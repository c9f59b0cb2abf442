"""Strictness for every test, and the data that several need."""

from __future__ import annotations

import gzip
import os
import struct
from collections.abc import Iterator
from pathlib import Path

# The tests compare bits and tolerances that hold on a CPU; subprocesses inherit it.
os.environ["JAX_PLATFORMS"] = "cpu"

import jax
import numpy as np
import pytest

from flax_mnist import synthetic
from flax_mnist.data import Dataset, load_dataset

# An array that is silently broadcast to another rank is a bug in a program of fixed shapes.
jax.config.update("jax_numpy_rank_promotion", "raise")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """The user's cache folder is neither read nor written, by subprocesses neither."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(tmp_path_factory.mktemp("cache")))
        patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("tfds")))
        yield


def idx(array: np.ndarray) -> bytes:
    """A uint8 array in the IDX format."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


@pytest.fixture(scope="session")
def digits() -> dict[str, np.ndarray]:
    """A small set of drawn digits: 1,000 for training, 200 for testing."""
    return synthetic.generate(seed=1, n_train=1000, n_test=200)


def write_idx_dir(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Writes the arrays as the four gzipped IDX files."""
    folder.mkdir()
    for prefix, split in (("train", "train"), ("t10k", "test")):
        for kind, n in (("images", 3), ("labels", 1)):
            data = gzip.compress(idx(arrays[f"{split}_{kind}"]), mtime=0)
            (folder / f"{prefix}-{kind}-idx{n}-ubyte.gz").write_bytes(data)
    return folder


@pytest.fixture
def idx_dir(tmp_path: Path, digits: dict[str, np.ndarray]) -> Path:
    """The small set as four gzipped IDX files."""
    return write_idx_dir(tmp_path / "idx", digits)


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder with the original MNIST files."""
    folder = os.environ.get("FLAX_MNIST_DATA_DIR")
    if not folder:
        pytest.skip("FLAX_MNIST_DATA_DIR names no folder with MNIST's four files")
    return Path(folder).resolve()


@pytest.fixture(scope="session")
def full_dataset() -> Dataset:
    """Real MNIST where it is at hand, otherwise the built-in digits: 60,000 and 10,000."""
    folder = os.environ.get("FLAX_MNIST_DATA_DIR")
    return load_dataset("mnist", folder) if folder else load_dataset("synthetic")
