"""The IDX file format of MNIST and its relatives, read strictly, and the four files of a set.

The format: two zero bytes, one byte for the element type (8 is uint8), one byte for the number of
dimensions, each dimension as a big-endian uint32, then the elements in C order. Described on
Y. LeCun's MNIST page (http://yann.lecun.com/exdb/mnist/).
"""

import io
import math
import os
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from flax_mnist import files
from flax_mnist.errors import DataError, RequestError

#: What the images and the labels of each split are called; gzipped, `.gz` follows.
FILES = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

#: A header that promises more elements than this is taken for damaged; MNIST's images are 47 MB.
MAX_BYTES = 2**30


def read_idx(path: Path, ndim: int) -> UInt8[np.ndarray, "*shape"]:
    """Reads an IDX file of uint8 elements, gzipped if its name ends in `.gz`.

    It must have `ndim` dimensions, 3 of images and 1 of labels, which are those of the array.
    Unpacks at most one byte more than the header promises, and takes no memory for what is promised
    only: neither a header that lies nor a gzip bomb costs more than an honest file.

    Raises:
        DataError: the file cannot be read, or is not exactly one IDX array of that kind.
    """
    try:
        content = files.read(path)
        read = _unzip(content) if path.suffix == ".gz" else io.BytesIO(content).read
        return _read(read, path, ndim)
    except zlib.error as error:
        raise DataError(f"{path}: damaged gzip file ({error}). Fetch it again.") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def find_idx_files(folder: Path) -> dict[str, Path]:
    """The four IDX files of a folder by their names in `FILES`; empty if it has none of them.

    A gzipped file is preferred, since its checksum shows damage.

    Raises:
        RequestError: it has some of them only.
    """
    found, missing = {}, []
    for name in (name for names in FILES.values() for name in names):
        # Whatever is there by that name, a link to nowhere even: its reader says what is wrong.
        paths = (folder / f"{name}.gz", folder / name)
        path = next((path for path in paths if os.path.lexists(path)), None)
        if path:
            found[name] = path
        else:
            missing.append(name)
    if found and missing:
        lacks = ", ".join(missing)
        raise RequestError(f"{folder}: holds only some of the IDX files; missing: {lacks}.")
    return found


def _unzip(packed: bytes) -> Callable[[int], bytes]:
    """Reads up to so many bytes of a gzip file of one member that nothing follows.

    The standard library's reader skips zeros after it and reads on in the next member, so that two
    files would count as one set.
    """
    unzip = zlib.decompressobj(wbits=zlib.MAX_WBITS | 16)

    def read(size: int) -> bytes:
        nonlocal packed
        piece = unzip.decompress(packed, size)
        packed = unzip.unconsumed_tail
        if len(piece) < size and not unzip.eof:
            raise zlib.error("it ends too early")
        if unzip.unused_data:
            raise zlib.error("there is more after its end")
        return piece

    return read


def _read(read: Callable[[int], bytes], path: Path, ndim: int) -> UInt8[np.ndarray, "*shape"]:
    header = read(4 + 4 * ndim)
    if len(header) < 4 + 4 * ndim:
        raise DataError(f"{path}: ends within its header, after {len(header)} bytes.")
    zeros, element_type, dimensions = struct.unpack(">HBB", header[:4])
    if zeros != 0:
        raise DataError(f"{path}: not an IDX file: it starts with {header[:4].hex(' ')}.")
    if element_type != 0x08:
        raise DataError(f"{path}: holds elements of type {element_type:#04x}, not uint8 (0x08).")
    if dimensions != ndim:
        raise DataError(f"{path}: has {dimensions} dimensions where {ndim} are expected.")
    shape = struct.unpack(f">{ndim}I", header[4:])
    size = math.prod(shape)
    if not 0 < size <= MAX_BYTES:
        raise DataError(f"{path}: its header promises {shape} elements, which no such set has.")
    data = read(size + 1)
    if len(data) != size:
        found = "more" if len(data) > size else f"{len(data):,}"
        raise DataError(f"{path}: its header promises {size:,} bytes of data, it holds {found}.")
    return np.frombuffer(data, np.uint8).reshape(shape).copy()  # one that may be written
