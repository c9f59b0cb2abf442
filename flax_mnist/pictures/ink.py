"""How much ink there is at each place of a picture, whatever the light and the paper."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

Invert = Literal["auto", "yes", "no"]
WIDEST_STROKE = 1 / 3  #: Of the shorter side.
GRAIN = 1 / 600  #: Of the longer side: what is finer than that is blurred, as a sensor's noise is.


class Ink(NamedTuple):
    """What is darker than the ground around it, or brighter."""

    dark: bool
    strength: Float[np.ndarray, "height width"]  #: Grey levels from the ground, 0 and more.
    #: Where the picture itself changes as much as the strength does. Elsewhere it is the ground's
    #: estimate that has an edge, as in a gap between two digits.
    edge: Bool[np.ndarray, "height width"]


def find_ink(picture: Float[np.ndarray, "height width channel"], invert: Invert) -> list[Ink]:
    """Dark ink and bright ink; one of them only, if `invert` is not `auto`.

    The ground is the picture's morphological closing (for dark ink) or opening (for bright): what
    is wider than a stroke can be stays as it is, be it paper, shadow, or a table with its straight
    edge, and what is narrower is ink. Of colours the channels are taken one by one, so that red on
    green shows where both are equally bright.
    """
    height, width, _ = picture.shape
    size = max(3, round(WIDEST_STROKE * min(height, width)))
    sigma = GRAIN * max(height, width)
    smooth = ndimage.gaussian_filter(picture, (sigma, sigma, 0))
    # Beyond its edges the picture goes on, so that a strip of table at one side is wide.
    wide = np.pad(smooth, ((size, size), (size, size), (0, 0)), mode="edge")
    inner = slice(size, -size), slice(size, -size)
    slope = _slope(wide)
    inks = []
    for dark, ground in ((True, ndimage.grey_closing), (False, ndimage.grey_opening)):
        if invert == ("no" if dark else "yes"):
            continue
        away = ground(wide, size=(size, size, 1)) - wide
        strength = np.sqrt(np.square(away).mean(axis=-1))
        strength = np.maximum(strength - np.median(strength[inner]), 0)  # paper is never quite even
        edge = slope >= 0.5 * _slope(strength[..., None])
        inks.append(Ink(dark, strength[inner], edge[inner]))
    return inks


def _slope(
    levels: Float[np.ndarray, "height width channel"],
) -> Float[np.ndarray, "height width"]:
    down, right = np.gradient(levels, axis=(0, 1))
    slope: Float[np.ndarray, "height width"] = np.sqrt((down**2 + right**2).mean(axis=-1))
    return slope
