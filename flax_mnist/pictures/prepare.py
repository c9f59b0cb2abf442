"""A digit as MNIST's were prepared: in a box of 20x20, by its centre of mass in 28x28."""

import numpy as np
from jaxtyping import Float, UInt8
from PIL import Image
from scipy import ndimage

from flax_mnist.pictures.shapes import Shape

BOX, SIDE = 20, 28
DRAWN = 100  #: Pixels of the longer side while the stroke is brought to its width.
PEN = 4  #: Of the `DRAWN` pixels, the radius of a stroke as wide as MNIST's.
ROWS, COLUMNS = np.indices((2 * PEN + 1, 2 * PEN + 1)) - PEN
DISC = ROWS**2 + COLUMNS**2 <= (PEN + 0.5) ** 2


def as_mnist(digit: Shape) -> UInt8[np.ndarray, "28 28"]:
    """A digit fitted into 20x20, its proportions kept, centred in 28x28 by its mass.

    How MNIST's were made: http://yann.lecun.com/exdb/mnist/. Strokes thinner than MNIST's are
    thickened first; a ballpoint's would all but vanish.
    """
    ink = _thickened(_drawn(digit))
    rows, columns = np.nonzero(ink > 0.5)
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    mass = np.clip(_resized(ink, BOX / max(ink.shape)), 0, 1)
    top, left = (round(SIDE / 2 - 0.5 - centre) for centre in ndimage.center_of_mass(mass))
    frame = Image.new("L", (SIDE, SIDE))
    frame.paste(Image.fromarray(np.rint(mass * 255 / mass.max()).astype(np.uint8)), (left, top))
    image: UInt8[np.ndarray, "28 28"] = np.asarray(frame)
    return image


def _drawn(digit: Shape) -> Float[np.ndarray, "height width"]:
    """The digit alone, 0 to 1, its strokes even, with a margin to grow into."""
    margin = 2 + digit.size // 12
    strength = np.pad(digit.ink.strength, margin)
    rows = slice(digit.top, digit.bottom + 2 * margin)
    columns = slice(digit.left, digit.right + 2 * margin)
    near = ndimage.binary_dilation(np.pad(digit.mask, margin), iterations=2)
    ink = np.clip(strength[rows, columns] / digit.level - 0.5, 0, 1) * near
    drawn = _resized(ink, DRAWN / digit.size).copy()
    drawn /= drawn.max()  # a hairline is fainter when it is made smaller
    return drawn


def _thickened(ink: Float[np.ndarray, "height width"]) -> Float[np.ndarray, "height width"]:
    """What is thinner than a stroke of MNIST's is painted along its middle with a pen as wide."""
    depth = ndimage.distance_transform_edt(ink > 0.5)
    # The middle of a stroke, not the twigs that lead from it into its corners.
    middle = (depth >= ndimage.maximum_filter(depth, 3)) & (depth > 0)
    middle &= depth >= 0.6 * ndimage.maximum_filter(depth, 2 * PEN + 1)
    pen: Float[np.ndarray, "height width"] = ndimage.gaussian_filter(
        ndimage.binary_dilation(middle, DISC).astype(float), 1
    )
    drawn: Float[np.ndarray, "height width"] = np.maximum(ink, pen)
    return drawn


def _resized(
    ink: Float[np.ndarray, "height width"], scale: float
) -> Float[np.ndarray, "new_height new_width"]:
    height, width = (max(1, round(scale * side)) for side in ink.shape)
    image = Image.fromarray(ink.astype(np.float32))
    return np.asarray(image.resize((width, height), Image.Resampling.LANCZOS))
