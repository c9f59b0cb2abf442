"""Pictures to be read, and what was made of them."""

from __future__ import annotations

from pathlib import Path

import numpy as np
from PIL import Image


def save(path: Path, array: np.ndarray, mode: str | None = None, **options: object) -> Path:
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def ink_box(image: np.ndarray) -> tuple[int, int]:
    """Rows and columns of the box around what is bright."""
    rows, columns = np.nonzero(image > 30)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1
