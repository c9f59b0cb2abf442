"""The IDX file format of MNIST and its relatives, read strictly, and the four files of a set.

The format: two zero bytes, one byte for the element type (8 is uint8), one byte for the number of
dimensions, each dimension as a big-endian uint32, then the elements in C order. Described on
Y. LeCun's MNIST page (http://yann.lecun.com/exdb/mnist/).
"""

import math
import os
import struct
import zlib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Integer, UInt8

from flax_mnist import files
from flax_mnist.errors import DataError, RequestError

#: A split's name, and what its images and its labels are called.
Names = Mapping[str, tuple[str, str]]

#: What the images and the labels of each split are called; gzipped, `.gz` follows.
FILES: Names = {
    "train": ("train-images-idx3-ubyte", "train-labels-idx1-ubyte"),
    "test": ("t10k-images-idx3-ubyte", "t10k-labels-idx1-ubyte"),
}

#: The same of QMNIST (https://github.com/facebookresearch/qmnist).
QMNIST: Names = {
    split: (f"qmnist-{split}-images-idx3-ubyte", f"qmnist-{split}-labels-idx2-int")
    for split in FILES
}

#: The same of EMNIST's digits (https://www.nist.gov/itl/products-and-services/emnist-dataset).
EMNIST: Names = {
    split: (f"emnist-digits-{split}-images-idx3-ubyte", f"emnist-digits-{split}-labels-idx1-ubyte")
    for split in FILES
}

#: A header that promises more bytes than this is taken for damaged; MNIST's images are 47 MB.
MAX_BYTES = 2**30

_TYPES = {"uint8": (0x08, ">u1"), "int32": (0x0C, ">i4")}


class Pair(NamedTuple):
    """The images and labels of a split as its files hold them, and what to call either."""

    images: UInt8[np.ndarray, "n height width"]
    labels: Integer[np.ndarray, " m"]
    image_place: str
    label_place: str


def read_idx(path: Path, ndim: int, dtype: str = "uint8") -> Integer[np.ndarray, "*shape"]:
    """Reads an IDX file of `uint8` or `int32` elements, gzipped or not.

    Which it is, its content tells: browsers unpack files and keep their names. It must have `ndim`
    dimensions, 3 of images and 1 of labels, which are those of the array. Reads or unpacks at most
    one byte more than the header promises, and takes no memory for what is promised only: neither a
    header that lies nor a gzip bomb costs more than an honest file.

    Raises:
        DataError: the file cannot be read, or is not exactly one IDX array of that kind.
    """
    try:
        start = files.read(path, most=2)
        is_packed = start == b"\x1f\x8b" or (path.suffix == ".gz" and start != b"\0\0")
        read = _unzip(files.read(path, most=MAX_BYTES)) if is_packed else _plain(path)
        return _read(read, path, ndim, dtype)
    except zlib.error as error:
        raise DataError(f"{path}: damaged gzip file ({error}). Fetch it again.") from error
    except FileNotFoundError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def find_idx_files(folder: Path, names: Names = FILES) -> dict[str, Path]:
    """Those of the four IDX files that a folder has, by their names in `names`.

    A file may have a dot before `idx` in place of the dash, and may lie in a folder of its own
    name, as unpacking programs leave them. A gzipped file is preferred, since its checksum shows
    damage.
    """
    found = {}
    for name in (name for pair in names.values() for name in pair):
        if path := _find(folder, name):
            inside = _find(path, name) if path.is_dir() else None
            found[name] = inside or path
    return found


def read_idx_files(paths: Mapping[str, Path], names: Names = FILES) -> dict[str, Pair]:
    """The splits of four IDX files, which are given by their names in `names`.

    QMNIST's labels are eight figures an image, of which the first is the class; EMNIST's images
    have their rows and columns exchanged, which is undone.

    Raises:
        RequestError: some of the four are missing.
        DataError: one is damaged.
    """
    if missing := [name for pair in names.values() for name in pair if name not in paths]:
        folder, lacks = next(iter(paths.values())).parent, ", ".join(missing)
        raise RequestError(f"{folder}: holds only some of the IDX files; missing: {lacks}.")
    pairs = {}
    for split, (image_name, label_name) in names.items():
        image_file, label_file = paths[image_name], paths[label_name]
        images = read_idx(image_file, ndim=3)
        labels = _qmnist_labels(label_file) if names is QMNIST else read_idx(label_file, 1)
        if names is EMNIST:
            images = upright(images)
        pairs[split] = Pair(images, labels, str(image_file), str(label_file))
    return pairs


def upright(images: UInt8[np.ndarray, "n height width"]) -> UInt8[np.ndarray, "n width height"]:
    """EMNIST's images, which are kept with their rows and columns exchanged, as one reads them."""
    return np.ascontiguousarray(images.transpose(0, 2, 1))


def _find(folder: Path, name: str) -> Path | None:
    # Whatever is there by that name, a link to nowhere even: its reader says what is wrong.
    stems = (name, name.replace("-idx", ".idx"))
    paths = [folder / f"{stem}{ending}" for ending in (".gz", "") for stem in stems]
    return next((path for path in paths if os.path.lexists(path)), None)


def _plain(path: Path) -> Callable[[int], bytes]:
    """Reads up to so many bytes on."""
    at = 0

    def read(size: int) -> bytes:
        nonlocal at
        piece = files.read(path, at, size)
        at += len(piece)
        return piece

    return read


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


def _qmnist_labels(path: Path) -> Integer[np.ndarray, " n"]:
    labels = read_idx(path, ndim=2, dtype="int32")
    if labels.shape[1] != 8:
        raise DataError(f"{path}: has {labels.shape[1]} figures an image, not 8.")
    return labels[:, 0]


def _read(
    read: Callable[[int], bytes], path: Path, ndim: int, dtype: str
) -> Integer[np.ndarray, "*shape"]:
    expected, big_endian = _TYPES[dtype]
    header = read(4 + 4 * ndim)
    if len(header) < 4 + 4 * ndim:
        raise DataError(f"{path}: ends within its header, after {len(header)} bytes.")
    zeros, element_type, dimensions = struct.unpack(">HBB", header[:4])
    if zeros != 0:
        raise DataError(f"{path}: not an IDX file: it starts with {header[:4].hex(' ')}.")
    if element_type != expected:
        wanted = f"{dtype} ({expected:#04x})"
        raise DataError(f"{path}: holds elements of type {element_type:#04x}, not {wanted}.")
    if dimensions != ndim:
        raise DataError(f"{path}: has {dimensions} dimensions where {ndim} are expected.")
    shape = struct.unpack(f">{ndim}I", header[4:])
    size = math.prod(shape) * np.dtype(big_endian).itemsize
    if not 0 < size <= MAX_BYTES:
        raise DataError(f"{path}: its header promises {shape} elements, which no such set has.")
    data = read(size + 1)
    if len(data) != size:
        found = "more" if len(data) > size else f"{len(data):,}"
        raise DataError(f"{path}: its header promises {size:,} bytes of data, it holds {found}.")
    # A copy may be written, and has this machine's order of bytes.
    return np.frombuffer(data, big_endian).reshape(shape).astype(dtype)
