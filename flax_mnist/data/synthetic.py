"""Handwritten-looking digits drawn by a seeded generator: what stands in for MNIST without it.

The same seed gives the same bytes on every machine, which `SHA256` proves for seed 0. So the
drawing keeps to operations whose result IEEE 754 fixes to the last bit: + - * / and square root,
minimum and maximum, comparisons, integers. Whatever a library may round its own way is left out:
sin, exp and pow (they differ between C libraries), matrix products and float sums (their order
follows the SIMD width and the threads). The random bits come raw from PCG64, whose stream NumPy
freezes, unlike those of the distributions made from it.
"""

import contextlib
import hashlib
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path

import numpy as np
from jaxtyping import UInt8
from numpy.typing import NDArray

from flax_mnist.errors import DataError, FlaxMnistError, FlaxMnistWarning, RequestError
from flax_mnist.files import cache_dir, write_atomically

Arrays = dict[str, UInt8[np.ndarray, "..."]]

#: The `digest` of `generate()`.
SHA256 = "271f215317e0bf31b9ae0c8b31cdb5fd15b742f2a34eca93297929637e2a3530"

#: The ways to write each digit. A way is one or more pen strokes, a stroke the points that its
#: curve passes through, a point two figures: x to the right and y downwards, on a 10 x 10 grid.
#: Points of equal name are one point: strokes join there, and a stroke that ends where it began is
#: closed smoothly.
STROKES: tuple[tuple[str, ...], ...] = (
    ("50 21 16 49 78 83 50", "60 31 24 27 49 68 75 72 61"),
    ("50 54 59", "60 54 49", "42 50, 50 54 59", "32 50, 50 54 59, 39 59 69"),
    ("22 40 62 54 37 19, 19 49 79", "22 40 61 64 47 29 18 27 48 69 88"),
    ("21 40 61 63 44, 44 65 67 59 39 18", "20 70, 70 44, 44 65 77 59 39 18"),
    ("30 25, 25 75, 61 65 59", "60 16, 16 86, 60 64 69"),
    ("70 30, 30 24, 24 53 66 58 39 18", "60 31 24 44 65 67 49 18"),
    ("60 32 26 38 59 77 65 44 26", "50 33 26 28 49 67 55 36 28"),
    ("20 70, 70 54 49", "20 70, 70 54 49, 35 65"),
    ("61 40 22 44 66 68 49 28 26 44 63 61", "50 31 33 54 73 71 50, 54 36 38 59 78 76 54"),
    ("72 50 31 23 45 64 72, 72 65 59", "71 50 31 23 45 64 71, 71 66 48 29"),
)

_SIDE = 28
_REACH = 3  # Pixels from the pen beyond which the widest stroke leaves no ink.
# Images drawn at once: their distances fit the cache of one core. The draws of random bits follow
# the batches, so another size gives other digits.
_BATCH = 256


def generate(seed: int = 0, n_train: int = 60_000, n_test: int = 10_000) -> Arrays:
    """Draw a training and a test set of digits, bright on black, in shuffled order.

    Returns uint8 arrays `train_images` [n_train, 28, 28], `train_labels` [n_train], `test_images`
    [n_test, 28, 28] and `test_labels` [n_test]. Each of the ten classes is there equally often, to
    within one image where the size is no multiple of ten. Raises RequestError for a negative seed
    or size.
    """
    if min(seed, n_train, n_test) < 0:
        raise RequestError(f"seed {seed}, sizes {n_train} and {n_test}: none may be negative")
    arrays = {}
    for stream, (split, size) in enumerate((("train", n_train), ("test", n_test))):
        bits = np.random.PCG64([seed, stream])
        order = np.argsort(bits.random_raw(size), kind="stable")
        labels = (order % 10).astype(np.uint8)
        arrays[f"{split}_images"] = _draw(labels, bits)
        arrays[f"{split}_labels"] = labels
    return arrays


def digest(arrays: Mapping[str, np.ndarray]) -> str:
    """Return the SHA-256 over names, dtypes, shapes and contents, in hexadecimal."""
    sha = hashlib.sha256()
    for name, array in sorted(arrays.items()):
        sha.update(f"{name} {array.dtype} {array.shape}\n".encode())
        sha.update(np.ascontiguousarray(array).data)
    return sha.hexdigest()


def load(folder: Path | None = None) -> Arrays:
    """Return `generate()`, from the file that an earlier call left in `folder` if it can.

    Shapes and dtypes are those of `generate`; `folder` is the user's cache folder unless given; a
    user without one waits for the drawing each time. A
    cached file whose `digest` is not `SHA256` is replaced with a warning; a folder that cannot be
    written only costs the caching. Raises FlaxMnistError where this machine draws other bytes than
    `SHA256` promises.
    """
    folder = folder or cache_dir()
    if folder is None:
        return _checked(generate())
    # The digest in the name keeps apart what different versions of this module draw.
    path = folder / f"synthetic-{SHA256[:16]}.safetensors"
    try:
        return _read(path)
    except (FileNotFoundError, NotADirectoryError):
        pass
    except ImportError:  # where only JAX and NumPy are installed, nothing is cached
        return _checked(generate())
    except (OSError, DataError) as error:
        message = f"drawing the digits again, {path} is unusable: {error}"
        warnings.warn(message, FlaxMnistWarning, stacklevel=2)
    arrays = _checked(generate())
    with contextlib.suppress(OSError, FlaxMnistError):
        import safetensors.numpy

        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomically(path, safetensors.numpy.save(arrays))
    return arrays


def _checked(arrays: Arrays) -> Arrays:
    if (found := digest(arrays)) != SHA256:
        raise FlaxMnistError(f"the built-in digits have SHA-256 {found} here instead of {SHA256}")
    return arrays


def _read(path: Path) -> Arrays:
    import safetensors.numpy

    try:
        arrays: Arrays = safetensors.numpy.load(path.read_bytes())
    except (safetensors.SafetensorError, KeyError) as error:  # KeyError: a dtype that NumPy lacks
        raise DataError(f"not a safetensors file of NumPy arrays ({error})") from error
    if digest(arrays) != SHA256:
        raise DataError("its contents have changed")
    return arrays


def _draw(labels: NDArray[np.uint8], bits: np.random.PCG64) -> NDArray[np.uint8]:
    images = np.empty((len(labels), _SIDE, _SIDE), np.uint8)
    choice = bits.random_raw(len(labels)) >> 32
    for digit, ways in enumerate(STROKES):
        for number, way in enumerate(ways):
            members = np.flatnonzero((labels == digit) & (choice % len(ways) == number))
            for start in range(0, len(members), _BATCH):
                batch = members[start : start + _BATCH]
                images[batch] = _ink(_pen(way, len(batch), bits), bits).transpose(2, 0, 1)
    return images


def _uniform(bits: np.random.PCG64, *shape: int) -> NDArray[np.float64]:
    """Uniform on [0, 1), exactly: the upper 53 bits of each draw."""
    raw: NDArray[np.uint64] = bits.random_raw(shape)
    return (raw >> 11).astype(np.float64) * 2.0**-53


def _spread(bits: np.random.PCG64, *shape: int) -> NDArray[np.float64]:
    """On (-1, 1), zero the likeliest: a sum of uniforms in place of a normal variate."""
    return _uniform(bits, *shape) + _uniform(bits, *shape) - 1


def _curve(way: str) -> tuple[NDArray[np.float64], NDArray[np.intp], NDArray[np.float64]]:
    """Return the points [2, p] of a way and its curve: each position [k] mixes 4 points."""
    names = sorted(set(way.replace(",", "").split()))
    points = np.array([[float(n[axis]) for n in names] for axis in (0, 1)])
    indices: list[Sequence[int]] = []
    weights: list[Sequence[float]] = []
    for stroke in way.split(","):
        path = [names.index(n) for n in stroke.split()]
        closed = path[0] == path[-1]
        path = [path[-2] if closed else path[0], *path, path[1] if closed else path[-1]]
        for i in range(len(path) - 3):
            step_x, step_y = points[:, path[i + 2]] - points[:, path[i + 1]]
            count = int(3 * np.sqrt(step_x * step_x + step_y * step_y)) + 1
            for t in (j / count for j in range(count + 1)):
                # Catmull-Rom: the cubic between the middle two of four points that is parallel,
                # at either end, to the line between the neighbours of that point.
                before = -t * (1 - t) * (1 - t) / 2
                first = 1 + t * t * (3 * t - 5) / 2
                second = t * (1 + t * (4 - 3 * t)) / 2
                weights.append((before, first, second, -t * t * (1 - t) / 2))
                indices.append(path[i : i + 4])
    return points, np.array(indices), np.array(weights)


def _pen(way: str, n: int, bits: np.random.PCG64) -> NDArray[np.float64]:
    """Positions [2, k, n] in pixels of the pen that writes one digit, in n handwritings."""
    points, indices, weights = _curve(way)
    points = points[..., None] + 0.8 * _spread(bits, *points.shape, n)
    x, y = np.zeros((2, len(indices), n))
    for index, weight in zip(indices.T, weights.T, strict=True):
        x += weight[:, None] * points[0, index]
        y += weight[:, None] * points[1, index]
    # Rotation by the rational parametrisation of the circle: cos and sin without the functions.
    half = 0.15 * _spread(bits, n)
    cos, sin = (1 - half * half) / (1 + half * half), 2 * half / (1 + half * half)
    x = x * (0.95 + 0.25 * _spread(bits, n)) - (0.15 + 0.35 * _spread(bits, n)) * y
    x, y = cos * x - sin * y, sin * x + cos * y
    # MNIST, too, fits its digits into a box of 20 pixels in the middle.
    x_low, x_high, y_low, y_high = x.min(0), x.max(0), y.min(0), y.max(0)
    scale = (17 + 2 * _spread(bits, n)) / np.maximum(x_high - x_low, y_high - y_low)
    x = (x - (x_low + x_high) / 2) * scale + (_SIDE - 1) / 2 + 2.5 * _spread(bits, n)
    y = (y - (y_low + y_high) / 2) * scale + (_SIDE - 1) / 2 + 2.5 * _spread(bits, n)
    return np.stack([x, y])


def _ink(pen: NDArray[np.float64], bits: np.random.PCG64) -> NDArray[np.uint8]:
    """Images [28, 28, n] of what a round nib leaves on its way over `pen` [2, k, n]."""
    n = pen.shape[-1]
    pen = pen.astype(np.float32)
    pixel = np.arange(_SIDE, dtype=np.float32)[:, None]
    nearest = np.full((_SIDE, _SIDE, n), _REACH * _REACH, np.float32)
    for x, y in pen.transpose(1, 0, 2):
        # Elsewhere the pen is out of reach in every image, and the distances need no update.
        rows = slice(max(int(y.min()) - _REACH, 0), int(y.max()) + _REACH + 2)
        columns = slice(max(int(x.min()) - _REACH, 0), int(x.max()) + _REACH + 2)
        down, right = pixel[rows] - y, pixel[columns] - x
        window = nearest[rows, columns]
        np.minimum(window, (down * down)[:, None] + (right * right)[None], out=window)
    radius = (1.35 + 0.6 * _spread(bits, n)).astype(np.float32)
    cover = np.minimum(np.maximum((radius - np.sqrt(nearest)) * 0.8 + 0.5, 0), 1)
    grain = bits.random_raw(cover.size // 8 + 1).astype("<u8").view(np.uint8)[: cover.size]
    image: NDArray[np.uint8] = (cover * (255 - grain.reshape(cover.shape) // 5)).astype(np.uint8)
    return image
