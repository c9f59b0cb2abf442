"""Which of the shapes on a picture are digits."""

from collections.abc import Sequence

from flax_mnist.pictures.ink import Ink
from flax_mnist.pictures.shapes import Shape, find_shapes, levels

OUTLINED = 0.92  #: Of an outline; less has what is seen between two things.
ANOTHER = 0.5  #: Of the largest digit's size; what is smaller is no digit beside it.


def find_digits(inks: Sequence[Ink]) -> list[Shape]:
    """The digits, the largest first.

    What is not one: what is much wider than high, as a line; a blot; a gap between strokes or
    within one; a frame, a ring or a sheet around something.
    """
    layers = _layers(inks)
    shapes = [_whole(shape, layer) for layer in layers for shape in layer if _like_a_digit(shape)]
    shapes = [shape for shape in shapes if not _surrounds(shape, shapes)]
    outer = [
        shape
        for shape in shapes
        if not any(other.ink is not shape.ink and other.encloses(shape) for other in shapes)
    ]
    digits: list[Shape] = []
    for shape in sorted(outer, key=_weight, reverse=True):
        if not any(_overlap(shape, digit) > 0.3 for digit in digits):
            digits.append(shape)
    return [digit for digit in digits if digit.size >= ANOTHER * digits[0].size]


def find_blot(inks: Sequence[Ink]) -> Shape | None:
    """The largest shape of any form; None where there is no ink."""
    shapes = [shape for layer in _layers(inks) for shape in layer]
    return max(shapes, key=_weight, default=None)


def _layers(inks: Sequence[Ink]) -> list[list[Shape]]:
    """The shapes of each strength."""
    return [
        [shape for shape in find_shapes(ink, level) if shape.outlined > OUTLINED]
        for ink in inks
        for level in levels(inks)
    ]


def _like_a_digit(shape: Shape) -> bool:
    narrow = shape.height > 1.8 * shape.width  # a 1 is all stroke
    return shape.width <= 2 * shape.height and (narrow or shape.stroke <= 0.45 * shape.size)


def _weight(shape: Shape) -> float:
    """The larger one is the digit, unless it is fainter by far or cut off by the edge."""
    area = shape.height * shape.width
    return float(area * shape.strength**0.5 * shape.level**0.15 * (0.25 if shape.cut else 1))


def _surrounds(shape: Shape, shapes: Sequence[Shape]) -> bool:
    """Whether it is a frame or a sheet: within a digit there is nothing but ground."""
    if shape.convex < 0.9:
        return False
    within = [o for o in shapes if o.size > 0.2 * shape.size and shape.encloses(o)]
    # What is solid in a 0 is its hole, unless it is small in a rectangle, or in much ink.
    small = 0.25 * shape.filled.sum() if shape.rectangular > 0.9 else 0
    thick = shape.stroke > 0.28 * shape.size
    return any(thick or not o.solid or o.mask.sum() < small for o in within)


def _overlap(one: Shape, other: Shape) -> float:
    """How much of the smaller one's box is in the other's, 0 to 1."""
    rows = min(one.bottom, other.bottom) - max(one.top, other.top)
    columns = min(one.right, other.right) - max(one.left, other.left)
    smaller = min(one.height * one.width, other.height * other.width)
    return float(max(rows, 0) * max(columns, 0) / smaller)


def _whole(shape: Shape, others: Sequence[Shape]) -> Shape:
    """It and the pieces near it: the bar of a 5, a 4 of two strokes, what a pen left out."""
    pieces = [other for other in others if other is not shape]
    while near := [piece for piece in pieces if _belongs(piece, shape)]:
        shape = shape.joined(near)
        pieces = [piece for piece in pieces if piece not in near]
    return shape


def _belongs(piece: Shape, digit: Shape) -> bool:
    gap = 0.12 * digit.size
    beside = min(piece.right, digit.right) - max(piece.left, digit.left) < 0.5 * piece.width
    below = piece.bottom > digit.bottom
    return not (
        (beside and piece.size > 0.6 * digit.size)
        or piece.size < 0.1 * digit.size
        or piece.width > 1.3 * digit.width
        or piece.bottom < digit.top - gap
        or piece.top > digit.bottom + gap
        or piece.right < digit.left - gap
        or piece.left > digit.right + gap
        or (below and piece.width > 1.5 * piece.height)  # what underlines it
        or piece.encloses(digit)
        or digit.encloses(piece)
    )
