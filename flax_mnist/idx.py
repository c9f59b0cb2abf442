"""The IDX file format of MNIST and its relatives, read strictly.

The format: two zero bytes, one byte for the element type (8 is uint8), one byte for the number of
dimensions, each dimension as a big-endian uint32, then the elements in C order. Described on
Y. LeCun's MNIST page (http://yann.lecun.com/exdb/mnist/).
"""

from __future__ import annotations

import gzip
import math
import struct
import zlib
from pathlib import Path
from typing import BinaryIO, cast

import numpy as np
from numpy.typing import NDArray

from flax_mnist.errors import DataError

MAX_BYTES = 2**30
"""A header that promises more elements than this is taken for damaged; MNIST's images are 47 MB."""

_UINT8 = 8


def read_idx(path: Path, ndim: int) -> NDArray[np.uint8]:
    """Reads an IDX file of uint8 elements, gzipped if its name ends in `.gz`.

    Never decompresses more than the header promises plus one byte, so a gzip bomb costs no more
    memory than an honest file.

    Args:
        path: the file.
        ndim: how many dimensions it must have: 3 for images, 1 for labels.

    Returns:
        uint8 array of the header's `ndim` dimensions.

    Raises:
        DataError: the file cannot be read, or is not exactly one IDX array of that kind.
    """
    try:
        with path.open("rb") as raw:
            # GzipFile is a BinaryIO in all but its declared type.
            stream = cast(BinaryIO, gzip.GzipFile(fileobj=raw)) if path.suffix == ".gz" else raw
            return _read(stream, path, ndim)
    except (gzip.BadGzipFile, zlib.error, EOFError) as error:
        raise DataError(f"{path}: damaged gzip file ({error}). Fetch it again.") from error
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror or error}).") from error


def _read(stream: BinaryIO, path: Path, ndim: int) -> NDArray[np.uint8]:
    header = stream.read(4 + 4 * ndim)
    if len(header) < 4 + 4 * ndim:
        raise DataError(f"{path}: ends within its header, after {len(header)} bytes.")
    zeros, element_type, dimensions = struct.unpack(">HBB", header[:4])
    if zeros != 0:
        raise DataError(f"{path}: not an IDX file: it starts with {header[:4].hex(' ')}.")
    if element_type != _UINT8:
        raise DataError(f"{path}: holds elements of type {element_type:#04x}, not uint8 (0x08).")
    if dimensions != ndim:
        raise DataError(f"{path}: has {dimensions} dimensions where {ndim} are expected.")
    shape = struct.unpack(f">{ndim}I", header[4:])
    size = math.prod(shape)
    if not 0 < size <= MAX_BYTES:
        raise DataError(f"{path}: its header promises {shape} elements, which no such set has.")
    data = stream.read(size + 1)
    if len(data) != size:
        found = "more" if len(data) > size else f"{len(data):,}"
        raise DataError(f"{path}: its header promises {size:,} bytes of data, it holds {found}.")
    return np.frombuffer(data, np.uint8).reshape(shape)
