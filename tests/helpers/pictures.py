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


def like_mnist(images: np.ndarray) -> list[int]:
    """Which images have ink of 19 or 20 pixels and their centre of mass in the middle."""
    rows, columns = np.indices((28, 28)) - 13.5
    found = []
    for i, image in enumerate(images):
        mass = image / image.sum()
        off = max(abs((rows * mass).sum()), abs((columns * mass).sum()))
        sides = [np.flatnonzero(image.any(axis=axis)) for axis in (0, 1)]
        if off <= 1 and max(side[-1] - side[0] for side in sides) in (18, 19):
            found.append(i)
    return found


def fitted(path: Path) -> np.ndarray:
    """What is drawn on an even ground, fitted by Pillow into 20x20 and by its mass into 28x28."""
    with Image.open(path) as picture:
        grey = np.asarray(picture.convert("L")).astype(float)
    ink = np.abs(grey - grey[0, 0])
    ink[ink < max(ink.max() / 3, 16)] = 0
    image = Image.fromarray(np.rint(ink).astype(np.uint8))
    digit = image.crop(image.getbbox())
    scale = 20 / max(digit.size)
    size = (max(1, round(digit.width * scale)), max(1, round(digit.height * scale)))
    mass = np.asarray(digit.resize(size, Image.Resampling.LANCZOS)).astype(float)
    rows, columns = np.indices(mass.shape) + 0.5
    corner = [round(14 - (axis * mass).sum() / mass.sum()) for axis in (columns, rows)]
    frame = Image.new("L", (28, 28))
    frame.paste(Image.fromarray(np.rint(mass * (255 / mass.max())).astype(np.uint8)), corner)
    return np.asarray(frame)
