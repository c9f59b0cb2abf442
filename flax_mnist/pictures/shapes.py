"""The connected pieces of ink, and what their outlines tell."""

from __future__ import annotations

from collections.abc import Sequence
from functools import cached_property

import numpy as np
from jaxtyping import Bool
from scipy import ndimage
from scipy.spatial import ConvexHull

from flax_mnist.pictures.ink import Ink

#: Of the strongest ink: what is fainter than the first is not seen while something stronger is.
SHARES = (0.5, 0.25, 0.12)
FAINTEST = 8  #: Grey levels of 255; what differs less from its ground is taken for ground.
SMALLEST = 0.03  #: Of the picture's longer side.
MOST = 12  #: Shapes that are looked at.
ANGLES = np.radians(np.arange(0, 90, 5))


class Shape:
    """A connected piece of ink."""

    def __init__(
        self, ink: Ink, level: float, where: tuple[slice, slice], mask: Bool[np.ndarray, "h w"]
    ) -> None:
        self.ink, self.level, self.where, self.mask = ink, level, where, mask
        rows, columns = where
        self.top: int = rows.start
        self.bottom: int = rows.stop
        self.left: int = columns.start
        self.right: int = columns.stop

    @property
    def box(self) -> tuple[int, int, int, int]:
        """Top, left, bottom and right."""
        return self.top, self.left, self.bottom, self.right

    @property
    def height(self) -> int:
        """Rows of the box around it."""
        return self.bottom - self.top

    @property
    def width(self) -> int:
        """Columns of the box around it."""
        return self.right - self.left

    @property
    def size(self) -> int:
        """The longer side of the box."""
        return max(self.height, self.width)

    @cached_property
    def strength(self) -> float:
        """Grey levels between its ink and the ground."""
        return float(np.percentile(self.ink.strength[self.where][self.mask], 90))

    @cached_property
    def cut(self) -> bool:
        """Whether it reaches the picture's edge."""
        rows, columns = self.ink.strength.shape
        return bool(0 in (self.top, self.left) or self.bottom == rows or self.right == columns)

    @cached_property
    def stroke(self) -> float:
        """The width of its strokes, pixels.

        Across a strip of width w the distance to its edge is w / 4 in the mean.
        """
        distance = ndimage.distance_transform_edt(np.pad(self.mask, 1))
        return float(4 * distance.sum() / self.mask.sum())

    @cached_property
    def filled(self) -> Bool[np.ndarray, "height width"]:
        """It, and what it encloses."""
        filled: Bool[np.ndarray, "height width"] = ndimage.binary_fill_holes(self.mask)
        return filled

    @cached_property
    def outlined(self) -> float:
        """How much of its outline is an edge of the picture, 0 to 1."""
        outline = self.mask & ~ndimage.binary_erosion(self.mask)
        return float(self.ink.edge[self.where][outline].mean())

    @cached_property
    def rectangular(self) -> float:
        """How much it fills, with its holes, of the smallest rectangle around it, 0 to 1."""
        rows, columns = np.nonzero(self.filled & ~ndimage.binary_erosion(self.filled))
        along = np.outer(np.cos(ANGLES), columns) + np.outer(np.sin(ANGLES), rows)
        across = np.outer(np.cos(ANGLES), rows) - np.outer(np.sin(ANGLES), columns)
        areas = (np.ptp(along, axis=1) + 1) * (np.ptp(across, axis=1) + 1)
        return float(self.filled.sum() / areas.min())

    @cached_property
    def convex(self) -> float:
        """How much it fills, with its holes, of its convex hull, 0 to 1."""
        outline = np.argwhere(self.filled & ~ndimage.binary_erosion(self.filled))
        corners = np.concatenate([outline + np.array(pixel) for pixel in np.ndindex(2, 2)])
        return float(self.filled.sum() / ConvexHull(corners).volume)

    @property
    def solid(self) -> bool:
        """Whether it is a blot: convex, without holes."""
        return bool(self.mask.sum() > 0.98 * self.filled.sum() and self.convex > 0.8)

    def encloses(self, other: Shape) -> bool:
        """Whether another lies in its holes, for the greater part."""
        if not (
            self.top < other.top
            and self.left < other.left
            and self.bottom > other.bottom
            and self.right > other.right
        ):
            return False
        hole = (self.filled & ~self.mask)[
            other.top - self.top : other.bottom - self.top,
            other.left - self.left : other.right - self.left,
        ]
        return bool(hole[other.mask].mean() > 0.5)

    def joined(self, others: Sequence[Shape]) -> Shape:
        """One shape of several."""
        pieces = (self, *others)
        top, left = min(p.top for p in pieces), min(p.left for p in pieces)
        bottom, right = max(p.bottom for p in pieces), max(p.right for p in pieces)
        mask = np.zeros((bottom - top, right - left), bool)
        for p in pieces:
            mask[p.top - top : p.bottom - top, p.left - left : p.right - left] |= p.mask
        return Shape(self.ink, self.level, (slice(top, bottom), slice(left, right)), mask)


def find_shapes(ink: Ink, level: float) -> list[Shape]:
    """The pieces that are stronger than a level, in grey levels, but for specks.

    Of more than `MOST` the largest: noise has thousands.
    """
    labels, _ = ndimage.label(ink.strength > level, np.ones((3, 3)))
    smallest = SMALLEST * max(ink.strength.shape)
    sizes = [
        (max(side.stop - side.start for side in where), number, where)
        for number, where in enumerate(ndimage.find_objects(labels), start=1)
    ]
    largest = sorted((piece for piece in sizes if piece[0] >= smallest), reverse=True)[:MOST]
    return [Shape(ink, level, where, labels[where] == number) for _, number, where in largest]


def levels(inks: Sequence[Ink]) -> list[float]:
    """From which strength on there is ink, the highest first; none where there is no ink at all."""
    strongest = max(float(ink.strength.max()) for ink in inks)
    return [share * strongest for share in SHARES if strongest >= 2 * FAINTEST]
