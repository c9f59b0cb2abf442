"""How much ink there is at each place of a picture, whatever the light and the paper."""

from typing import Literal, NamedTuple

import numpy as np
from jaxtyping import Bool, Float
from scipy import ndimage

Invert = Literal["auto", "yes", "no"]  #: Whether ink is darker than its ground; `auto` looks.
WIDEST_STROKE = 1 / 3  #: Of the shorter side.
GRAIN = 1 / 600  #: Of the longer side: what is finer than that is blurred, as a sensor's noise is.
COARSE = 4  #: One of so many rows and columns is looked at to choose a channel.


class Ink(NamedTuple):
    """What is darker than the ground around it, or brighter."""

    strength: Float[np.ndarray, "height width"]  #: Grey levels from the ground, 0 and more.
    #: Where the picture itself changes as much as the strength does. Elsewhere it is the ground's
    #: estimate that has an edge, as in a gap between two digits.
    edge: Bool[np.ndarray, "height width"]


def find_ink(picture: Float[np.ndarray, "height width channel"], invert: Invert) -> list[Ink]:
    """Dark ink and bright ink; one of them only, if `invert` is not `auto`.

    Of colours it is that of grey, or of the one channel that tells ink from ground best: red on
    green may be equally bright.
    """
    channels = [picture.mean(axis=-1)]
    if picture.shape[-1] > 1:
        channels += list(np.moveaxis(picture, -1, 0))

    def contrast(channel: Float[np.ndarray, "height width"]) -> float:
        few = channel[::COARSE, ::COARSE]
        return max(float(ink.strength.max()) for ink in _of_grey(few, invert))

    return _of_grey(max(channels, key=contrast) if channels[1:] else channels[0], invert)


def _of_grey(grey: Float[np.ndarray, "height width"], invert: Invert) -> list[Ink]:
    """Dark ink and bright ink of one channel.

    The ground is the morphological closing (for dark ink) or opening (for bright): what is wider
    than a stroke can be stays as it is, be it paper, shadow, or a table with its straight edge, and
    what is narrower is ink.
    """
    size = max(3, round(WIDEST_STROKE * min(grey.shape)))
    smooth = ndimage.gaussian_filter(grey, GRAIN * max(grey.shape))
    # Beyond its edges the picture goes on, so that a strip of table at one side is wide.
    wide = np.pad(smooth, size, mode="edge")
    # Of what was added a pixel remains, so that a slope at the edge is one.
    near, inner = (slice(size - 1, 1 - size),) * 2, (slice(1, -1),) * 2
    slope = _slope(wide[near])
    inks = []
    for dark, ground in ((True, ndimage.grey_closing), (False, ndimage.grey_opening)):
        if invert == ("no" if dark else "yes"):
            continue
        strength = np.abs(ground(wide, size=(size, size)) - wide)[near]
        strength = np.maximum(strength - np.median(strength[inner]), 0)  # paper is never quite even
        edge = slope >= 0.5 * _slope(strength)
        inks.append(Ink(strength[inner], edge[inner]))
    return inks


def _slope(levels: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    slope: Float[np.ndarray, "height width"] = np.hypot(*np.gradient(levels))
    return slope
