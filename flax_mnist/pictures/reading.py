"""From a picture file to the digits on it, as the network was taught to see them."""

from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage

from flax_mnist.errors import RequestError
from flax_mnist.pictures.decode import LARGE, decode
from flax_mnist.pictures.digits import find_blot, find_digits
from flax_mnist.pictures.ink import Invert, find_ink
from flax_mnist.pictures.prepare import BOX, SIDE, as_mnist
from flax_mnist.pictures.shapes import Shape

FAINT = 30  #: Grey levels of 255 between ink and ground, below which a reading is doubted.
UNLIKE = "what is on it hardly looks like a digit"
THINNEST = 0.05  #: Stroke of a digit that fills its picture, of the longer side.


class Reading(NamedTuple):
    """A digit that was found on a picture."""

    image: UInt8[np.ndarray, "28 28"]  #: Bright on black.
    picture: UInt8[np.ndarray, "height width channel"]  #: As it was looked at.
    box: tuple[int, int, int, int]  #: Where it is on the picture: top, left, bottom, right.
    doubts: tuple[str, ...]  #: Why it may not be what was meant.

    @property
    def middle(self) -> float:
        """How far down it is, in rows of the picture."""
        return (self.box[0] + self.box[2]) / 2


def read_image(path: Path | str, invert: Invert = "auto") -> UInt8[np.ndarray, "28 28"]:
    """Reads the largest digit of a picture as MNIST would show it, bright on black.

    As `read_digit`, which also says where it is and what makes it doubtful.
    """
    return read_digit(path, invert).image


def read_digit(path: Path | str, invert: Invert = "auto") -> Reading:
    """Reads the largest digit on a picture.

    A 28x28 picture that looks like MNIST's own, its ink 20 pixels large, its centre of mass in the
    middle, is taken as it is, inverted if it is dark on white. On any other the digits are looked
    for, whatever paper, lines, frame or table they lie on, and each is prepared as MNIST's were.
    The ink is darker than the ground if `invert` is `yes`; `auto` sees for itself.

    Raises:
        RequestError: there is no such file, it is no picture or over 50 megapixels, or no digit can
            be seen on it.
    """
    largest, *others = _readings(path, invert)
    if others:
        several = f"{1 + len(others)} digits are on it, the largest is read; --all reads each"
        return largest._replace(doubts=(several, *largest.doubts))
    return largest


def read_digits(path: Path | str, invert: Invert = "auto") -> list[Reading]:
    """Reads each digit on a picture, row by row from the left. Otherwise as `read_digit`."""
    rows: list[list[Reading]] = []
    for reading in sorted(_readings(path, invert), key=lambda reading: reading.middle):
        if rows and reading.middle < rows[-1][0].box[2]:
            rows[-1].append(reading)
        else:
            rows.append([reading])
    return [reading for row in rows for reading in sorted(row, key=lambda reading: reading.box[1])]


def _readings(path: Path | str, invert: Invert) -> list[Reading]:
    """The digits on a picture, the largest first."""
    levels = decode(Path(path), invert)
    if is_prepared(levels):
        image = _inverted(levels, invert)
        return [Reading(image, levels.astype(np.uint8), (0, 0, SIDE, SIDE), ())]
    picture = _enlarged(levels)
    wide, digits = _with_margin(picture, invert)
    if digits:
        picture = wide
    else:
        inks = find_ink(picture, invert)
        digits = find_digits(inks)
    seen = np.rint(picture).astype(np.uint8)
    if digits:
        return [Reading(as_mnist(digit), seen, digit.box, _doubts(digit)) for digit in digits]
    blot = find_blot(inks)
    if blot is None:
        raise RequestError(f"{path}: no digit can be seen on it.")
    return [Reading(as_mnist(blot), seen, blot.box, (UNLIKE, *_doubts(blot)))]


def read_whole(path: Path | str, invert: Invert = "auto") -> Reading:
    """A picture of something that is no digit, fitted into 28x28 whole, its proportions kept.

    So Fashion-MNIST's were made (https://arxiv.org/abs/1708.07747, figure 1). Raises RequestError
    as `read_digit`.
    """
    levels = decode(Path(path), invert)
    grey = Image.fromarray(_inverted(levels, invert))
    scale = SIDE / max(grey.size)
    size = (max(1, round(grey.width * scale)), max(1, round(grey.height * scale)))
    frame = Image.new("L", (SIDE, SIDE))
    corner = ((SIDE - size[0]) // 2, (SIDE - size[1]) // 2)
    frame.paste(grey.resize(size, Image.Resampling.LANCZOS) if scale != 1 else grey, corner)
    return Reading(np.asarray(frame), levels.astype(np.uint8), (0, 0, *levels.shape[:2]), ())


def is_prepared(levels: Float[np.ndarray, "height width channel"]) -> bool:
    """Whether a picture looks like MNIST's own, on black or on white: each of them does."""
    if levels.shape[:2] != (SIDE, SIDE):
        return False
    ground = _ground(levels)
    if ground not in (0, 255):
        return False
    ink = np.abs(levels.mean(axis=-1) - ground)
    rows, columns = np.nonzero(ink)
    if not rows.size or max(np.ptp(rows), np.ptp(columns)) + 1 not in (BOX - 1, BOX):
        return False
    centre = np.array(ndimage.center_of_mass(ink)) + 0.5
    return bool(np.abs(centre - SIDE / 2).max() <= 1)


def _ground(levels: Float[np.ndarray, "height width channel"]) -> float:
    """The grey of the picture's border."""
    grey = levels.mean(axis=-1)
    border = (grey[0], grey[-1], grey[1:-1, 0], grey[1:-1, -1])
    return float(np.median(np.concatenate(border)))


def _inverted(
    levels: Float[np.ndarray, "height width channel"], invert: Invert
) -> UInt8[np.ndarray, "height width"]:
    dark = _ground(levels) > 127 if invert == "auto" else invert == "yes"
    grey = levels.mean(axis=-1)
    image: UInt8[np.ndarray, "height width"] = np.rint(255 - grey if dark else grey).astype(
        np.uint8
    )
    return image


def _enlarged(
    levels: Float[np.ndarray, "height width channel"],
) -> Float[np.ndarray, "new_height new_width channel"]:
    """A small picture made half as large as the largest: its pixels are no steps any more."""
    scale = LARGE / 2 / max(levels.shape[:2])
    if scale <= 1:
        return levels
    height, width = (max(1, round(scale * side)) for side in levels.shape[:2])
    channels = [
        np.asarray(Image.fromarray(channel.astype(np.float32)).resize((width, height)))
        for channel in np.moveaxis(levels, -1, 0)
    ]
    enlarged: Float[np.ndarray, "new_height new_width channel"] = np.stack(channels, axis=-1)
    return np.clip(enlarged.astype(np.float64), 0, 255)


def _with_margin(
    picture: Float[np.ndarray, "height width channel"], invert: Invert
) -> tuple[Float[np.ndarray, "new_height new_width channel"], list[Shape]]:
    """A picture that was cut out along its digit, with a margin of its ground, and that digit.

    No digit if it was not. Without a margin a stroke along the edge passes for something that goes
    on beyond it.
    """
    height, width, channels = picture.shape
    sides = picture[0], picture[-1], picture[:, 0], picture[:, -1]
    ground = np.median(np.concatenate(sides), axis=0)
    away = np.abs(picture - ground).max(axis=-1)
    if min(away[edge].max() for edge in (0, -1, np.s_[:, 0], np.s_[:, -1])) < 0.2 * away.max():
        return picture, []
    margin = LARGE // 4
    wide = np.full((height + 2 * margin, width + 2 * margin, channels), ground)
    wide[margin:-margin, margin:-margin] = picture
    digits = [
        digit
        for digit in find_digits(find_ink(wide, invert))
        if digit.height >= 0.98 * height
        and digit.width >= 0.98 * width
        and digit.stroke > THINNEST * digit.size  # and no ruled lines
    ]
    return wide, digits[:1]


def _doubts(digit: Shape) -> tuple[str, ...]:
    return (
        *(["it reaches the picture's edge"] if digit.cut else []),
        *(["its ink is faint"] if digit.strength < FAINT else []),
    )
