"""From a picture file to what the network was trained on."""

import warnings
from pathlib import Path
from typing import Literal

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray
from PIL import Image, ImageOps, UnidentifiedImageError

from flax_mnist.errors import RequestError

Invert = Literal["auto", "yes", "no"]
#: The others are rare, and for one, EPS, Pillow would start Ghostscript.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM")
MAX_PIXELS = 50_000_000
LARGE = 1000  #: Pixels a side; a larger picture is made smaller first. Of a digit 20 are kept.
FAINTEST_INK = 16  #: Grey levels of 255; what differs less from its ground is taken for ground.


def read_image(path: Path, invert: Invert = "auto") -> UInt8[np.ndarray, "28 28"]:
    """Reads a picture of one digit as MNIST would show it, bright on black.

    A 28x28 picture on plain black or white is taken as it is, inverted if it is dark on white. Any
    other is prepared as MNIST's digits were: the ink is cut out, fitted into 20x20 pixels, its
    proportions kept, and placed with its centre of mass in the middle of 28x28
    (http://yann.lecun.com/exdb/mnist/). What is ground, be it unevenly lit, the picture's border
    tells. Of an animation the first frame is read; a rotation noted by a camera is made.

    The file is in one of the `FORMATS`, whatever its name ends in. Its ink is darker than the
    ground if `invert` is `yes`; `auto` sees for itself.

    Raises:
        RequestError: there is no such file, it is no picture or over 50 megapixels, or no digit can
            be seen on it.
    """
    try:
        pixels = _decode(path, invert)
    except RequestError:
        raise
    except FileNotFoundError as error:
        raise RequestError(f"{path}: there is no such file.") from error
    except Image.DecompressionBombError as error:
        most = MAX_PIXELS // 10**6
        raise RequestError(f"{path}: has more than {most} megapixels. Scale it down.") from error
    except UnidentifiedImageError as error:
        raise RequestError(f"{path}: is none of {', '.join(FORMATS)}.") from error
    except Exception as error:  # Pillow's readers raise whatever they meet
        raise RequestError(f"{path}: cannot be read as a picture ({error}).") from error
    border = np.median(_border(pixels))
    if pixels.shape == (28, 28) and border in (0, 255):
        dark = border == 255 if invert == "auto" else invert == "yes"
        return np.rint(255 - pixels if dark else pixels).astype(np.uint8)
    digit = _as_mnist(_ink(pixels, invert))
    if digit is None:
        raise RequestError(f"{path}: no digit can be seen on it.")
    return digit


def _decode(path: Path, invert: Invert) -> NDArray[np.float64]:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise RequestError(f"{path}: is no ordinary file.")
    with warnings.catch_warnings():
        # Of large pictures, which are refused here, and of oddities that can be read all the same.
        warnings.simplefilter("ignore")
        with Image.open(path, formats=FORMATS) as picture:
            # Nothing but its header has been read. Pillow's own limit is 179 megapixels.
            if picture.width * picture.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return _grey(ImageOps.exif_transpose(picture), invert)


def _grey(picture: Image.Image, invert: Invert) -> NDArray[np.float64]:
    """Grey levels 0 to 255; 16 bits scaled to 8, what is transparent filled with a ground."""
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _scaled(picture)
    picture.thumbnail((LARGE, LARGE))
    if picture.has_transparency_data:
        picture = picture.convert("RGBA")
        ink = np.asarray(picture.convert("L"))[np.asarray(picture)[..., 3] > 127]
        bright = ink.size > 0 and ink.mean() > 127 if invert == "auto" else invert == "no"
        ground = Image.new("RGBA", picture.size, "black" if bright else "white")
        picture = Image.alpha_composite(ground, picture)
    grey = picture if picture.mode == "F" else picture.convert("L")
    return np.asarray(grey).astype(np.float64)


def _scaled(picture: Image.Image) -> Image.Image:
    """16 or 32 bits as floats from 0 to 255, where Pillow would clip them."""
    levels: NDArray[np.float64] = np.asarray(picture).astype(np.float64)
    if not np.isfinite(levels).all():
        raise ValueError("some of its pixels are not numbers")
    least, most = 0.0, 65_535.0
    if not picture.mode.startswith("I;16"):
        # 32 bits have no stated range: what the picture has is taken for all of it.
        least, most = float(levels.min()), float(levels.max())
    levels = (levels - least) * (255 / max(most - least, 1e-9))
    return Image.fromarray(levels.astype(np.float32))


def _border(pixels: NDArray[np.float64]) -> NDArray[np.float64]:
    return np.concatenate([pixels[0], pixels[-1], pixels[1:-1, 0], pixels[1:-1, -1]])


def _ink(pixels: NDArray[np.float64], invert: Invert) -> NDArray[np.float64]:
    """How far each pixel is from the ground, to the side on which the ink is; faint ones are 0."""
    rows, columns = np.indices(pixels.shape) / np.array(pixels.shape)[:, None, None]
    plane = np.stack([np.ones_like(pixels), rows, columns], axis=-1)
    # Light falls from somewhere: the ground is the plane that fits the border best.
    fit, *_ = np.linalg.lstsq(_border(plane), _border(pixels), rcond=None)
    above = pixels - plane @ fit
    dark = above.max() <= -above.min() if invert == "auto" else invert == "yes"
    ink: NDArray[np.float64] = np.maximum(-above if dark else above, 0)
    # Paper is never quite even: what is fainter than a third of the strongest ink is ground.
    ink[ink < max(ink.max() / 3, FAINTEST_INK)] = 0
    return ink


def _as_mnist(ink: NDArray[np.float64]) -> NDArray[np.uint8] | None:
    """The ink fitted into 20x20 and centred in 28x28; None if there is none to see."""
    image = Image.fromarray(np.rint(np.minimum(ink, 255)).astype(np.uint8))
    box = image.getbbox()
    if box is None:
        return None
    digit = image.crop(box)
    scale = 20 / max(digit.size)
    size = (max(1, round(digit.width * scale)), max(1, round(digit.height * scale)))
    mass = np.asarray(digit.resize(size, Image.Resampling.LANCZOS)).astype(np.float64)
    if mass.max() < FAINTEST_INK:  # a few specks far apart
        return None
    rows, columns = np.indices(mass.shape)
    top = round(14 - ((rows + 0.5) * mass).sum() / mass.sum())
    left = round(14 - ((columns + 0.5) * mass).sum() / mass.sum())
    frame = Image.new("L", (28, 28))
    frame.paste(Image.fromarray(np.rint(mass * (255 / mass.max())).astype(np.uint8)), (left, top))
    return np.asarray(frame)
