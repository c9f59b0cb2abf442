"""Datasets as the four IDX files."""

from __future__ import annotations

import gzip
import struct
from pathlib import Path

import numpy as np


def idx(array: np.ndarray) -> bytes:
    """A uint8 array in the IDX format."""
    return struct.pack(f">HBB{array.ndim}I", 0, 8, array.ndim, *array.shape) + array.tobytes()


def write_idx_dir(folder: Path, arrays: dict[str, np.ndarray]) -> Path:
    """Writes the arrays as the four gzipped IDX files."""
    folder.mkdir()
    for prefix, split in (("train", "train"), ("t10k", "test")):
        for kind, n in (("images", 3), ("labels", 1)):
            data = gzip.compress(idx(arrays[f"{split}_{kind}"]), mtime=0)
            (folder / f"{prefix}-{kind}-idx{n}-ubyte.gz").write_bytes(data)
    return folder
