"""From a picture file to what the network was trained on."""

from __future__ import annotations

import warnings
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from flax_mnist.errors import RequestError

MAX_PIXELS = 50_000_000


def read_image(path: Path) -> NDArray[np.uint8]:
    """Reads a picture of one digit as MNIST would show it: uint8 `[28, 28]`, bright on black.

    A 28x28 picture is taken as it is. Any other is prepared as MNIST's digits were: the ink is cut
    out, fitted into 20x20 pixels and placed with its centre of mass in the middle of 28x28
    (http://yann.lecun.com/exdb/mnist/). Dark ink on a bright ground is inverted; which of the two
    it is, the picture's border tells.

    Raises:
        RequestError: there is no such file, it is no picture, or it is over 50 megapixels.
    """
    try:
        with warnings.catch_warnings():
            # Pillow warns of large pictures; ours are refused below, by their header.
            warnings.simplefilter("ignore", Image.DecompressionBombWarning)
            with Image.open(path) as picture:
                if picture.width * picture.height > MAX_PIXELS:
                    raise RequestError(
                        f"{path}: {picture.width}x{picture.height} pixels; scale it to at most "
                        f"{MAX_PIXELS // 10**6} megapixels."
                    )
                grey = _grey(picture)
    except FileNotFoundError as error:
        raise RequestError(f"{path}: there is no such file.") from error
    except UnidentifiedImageError as error:
        raise RequestError(f"{path}: is not a picture that Pillow can read.") from error
    except (OSError, SyntaxError, ValueError, Image.DecompressionBombError) as error:
        raise RequestError(f"{path}: cannot be read as a picture ({error}).") from error
    if _border_mean(np.asarray(grey)) > 127:
        grey = ImageOps.invert(grey)
    return np.asarray(grey if grey.size == (28, 28) else _as_mnist(grey))


def _grey(picture: Image.Image) -> Image.Image:
    """8-bit grey: upright by its EXIF tag, transparency on white, 16 bits scaled to 8."""
    picture = ImageOps.exif_transpose(picture)
    if picture.mode.startswith("I"):
        return Image.fromarray(
            (np.asarray(picture).astype(np.float64) / 257).clip(0, 255).astype(np.uint8)
        )
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        white = Image.new("RGBA", picture.size, "white")
        picture = Image.alpha_composite(white, picture)
    return picture.convert("L")


def _border_mean(pixels: NDArray[np.uint8]) -> float:
    border = np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])
    return float(border.mean())


def _as_mnist(grey: Image.Image) -> Image.Image:
    pixels = np.asarray(grey).astype(np.float64)
    ground = np.median(pixels)
    ink = Image.fromarray(np.clip(pixels - ground, 0, 255).astype(np.uint8))
    # Paper is never quite even: what is fainter than a quarter of the strongest ink is ground.
    strongest = int(np.asarray(ink).max())
    box = ink.point([255 * (4 * value > strongest) for value in range(256)]).getbbox()
    if box is None:  # a blank picture has no ink to cut out
        return Image.new("L", (28, 28))
    digit = ink.crop(box)
    scale = 20 / max(digit.size)
    width, height = (max(1, round(side * scale)) for side in digit.size)
    digit = digit.resize((width, height), Image.Resampling.LANCZOS)
    mass = np.asarray(digit).astype(np.float64)
    digit = Image.fromarray(np.rint(mass * (255 / mass.max())).astype(np.uint8))
    rows, columns = np.indices(mass.shape)
    top = round(14 - ((rows + 0.5) * mass).sum() / mass.sum())
    left = round(14 - ((columns + 0.5) * mass).sum() / mass.sum())
    frame = Image.new("L", (28, 28))
    frame.paste(digit, (left, top))
    return frame
