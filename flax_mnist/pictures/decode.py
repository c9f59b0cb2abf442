"""From a picture file to grey levels or colours."""

import contextlib
import warnings
from pathlib import Path

import numpy as np
from jaxtyping import Float
from PIL import Image, ImageOps, UnidentifiedImageError

from flax_mnist.errors import RequestError
from flax_mnist.pictures.ink import Invert

#: The others are rare, and for one, EPS, Pillow would start Ghostscript.
FORMATS = ("PNG", "JPEG", "GIF", "BMP", "TIFF", "WEBP", "PPM", "AVIF", "HEIF")
MAX_PIXELS = 50_000_000
LARGE = 800  #: Pixels a side; a larger picture is made smaller first. Of a digit 20 are kept.
BRANDS = {b"avif": "AVIF", b"avis": "AVIF", b"heic": "HEIC", b"heix": "HEIC", b"mif1": "HEIC"}


def decode(path: Path, invert: Invert) -> Float[np.ndarray, "height width channel"]:
    """A picture's levels, 0 to 255, of grey or of red, green and blue; at most 800 pixels a side.

    The file is in one of the `FORMATS` that Pillow reads here, whatever its name ends in. Of an
    animation it is the first frame; a rotation noted by a camera is made. What is transparent is
    filled with a ground: white, unless what is opaque is bright, or `invert` is `no`.

    Raises:
        RequestError: there is no such file, it is no picture, or it has over 50 megapixels.
    """
    try:
        return _decode(path, invert)
    except RequestError:
        raise
    except FileNotFoundError as error:
        raise RequestError(f"{path}: there is no such file.") from error
    except Image.DecompressionBombError as error:
        most = MAX_PIXELS // 10**6
        raise RequestError(f"{path}: has more than {most} megapixels. Scale it down.") from error
    except UnidentifiedImageError as error:
        raise RequestError(f"{path}: {_unknown(path)}") from error
    except Exception as error:  # Pillow's readers raise whatever they meet
        raise RequestError(f"{path}: cannot be read as a picture ({error}).") from error


def picture_files(path: Path) -> list[Path]:
    """The file; of a folder the pictures in it, by what their names end in, sorted by name.

    Raises:
        RequestError: the folder holds none, or cannot be read.
    """
    if not path.is_dir():
        return [path]
    formats = _formats()  # registers endings
    endings = {end for end, name in Image.registered_extensions().items() if name in formats}
    try:
        inside = sorted(path.iterdir())
    except OSError as error:
        raise RequestError(f"{path}: cannot be read ({error.strerror}).") from error
    found = [file for file in inside if file.suffix.lower() in endings and file.name[0] != "."]
    if not found:
        raise RequestError(f"{path}: holds no pictures ({', '.join(formats)}).")
    return found


def _formats() -> list[str]:
    """Those of the `FORMATS` that can be read here."""
    with contextlib.suppress(ImportError):
        import pillow_heif

        pillow_heif.register_heif_opener()
    Image.init()
    return [name for name in FORMATS if name in Image.OPEN]


def _unknown(path: Path) -> str:
    """What a file is that Pillow does not know."""
    with path.open("rb") as file:
        start = file.read(12)
    brand = BRANDS.get(start[8:12]) if start[4:8] == b"ftyp" else None
    if brand == "HEIC":
        return "is HEIC. Install flax-mnist[heif], or save it as JPEG."
    if brand:
        return f"is {brand}, which this Pillow cannot read. Upgrade it, or save the picture as PNG."
    return f"is none of {', '.join(_formats())}."


def _decode(path: Path, invert: Invert) -> Float[np.ndarray, "height width channel"]:
    if path.exists() and not path.is_file():  # a pipe would be waited for
        raise RequestError(f"{path}: is no ordinary file.")
    with warnings.catch_warnings():
        # Of large pictures, which are refused here, and of oddities that can be read all the same.
        warnings.simplefilter("ignore")
        with Image.open(path, formats=_formats()) as picture:
            # Nothing but its header has been read. Pillow's own limit is 179 megapixels.
            if picture.width * picture.height > MAX_PIXELS:
                raise Image.DecompressionBombError
            return _levels(ImageOps.exif_transpose(picture), invert)


def _levels(picture: Image.Image, invert: Invert) -> Float[np.ndarray, "height width channel"]:
    if picture.mode.startswith("I") or picture.mode == "F":
        picture = _scaled(picture)
    elif picture.has_transparency_data:
        picture = _on_a_ground(picture.convert("RGBA"), invert)
    else:
        picture = picture.convert("L" if picture.mode in ("1", "L") else "RGB")
    picture.thumbnail((LARGE, LARGE))
    levels = np.asarray(picture).astype(np.float64)
    levels = levels.reshape(*levels.shape[:2], -1)
    is_grey = (levels == levels[..., :1]).all()
    return levels[..., :1] if is_grey else levels


def _on_a_ground(picture: Image.Image, invert: Invert) -> Image.Image:
    ink = np.asarray(picture.convert("L"))[np.asarray(picture)[..., 3] > 127]
    bright = ink.size > 0 and ink.mean() > 127 if invert == "auto" else invert == "no"
    ground = Image.new("RGBA", picture.size, "black" if bright else "white")
    return Image.alpha_composite(ground, picture).convert("RGB")


def _scaled(picture: Image.Image) -> Image.Image:
    """16 or 32 bits as floats from 0 to 255, where Pillow would clip them."""
    levels = np.asarray(picture).astype(np.float64)
    if not np.isfinite(levels).all():
        raise ValueError("some of its pixels are not numbers")
    least, most = 0.0, 65_535.0
    if not picture.mode.startswith("I;16"):
        # 32 bits have no stated range: what the picture has is taken for all of it.
        least, most = float(levels.min()), float(levels.max())
    levels = (levels - least) * (255 / max(most - least, 1e-9))
    return Image.fromarray(levels.astype(np.float32))
