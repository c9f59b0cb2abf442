"""IDX files and folders of four: what is refused, by the name of the file."""

from __future__ import annotations

import gzip
import os
import struct
import sys
import tracemalloc
import types
import zlib
from pathlib import Path

import pytest

from flax_mnist.data import idx
from flax_mnist.data.dataset import load_dataset
from flax_mnist.data.idx import MAX_BYTES, read_idx
from flax_mnist.errors import DataError, RequestError
from tests.helpers.odd_files import forbidden, link_to_itself

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such devices")
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def header(*shape: int, zeros: int = 0, kind: int = 8, ndim: int | None = None) -> bytes:
    dimensions = len(shape) if ndim is None else ndim
    return struct.pack(f">HBB{len(shape)}I", zeros, kind, dimensions, *shape)


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


def damage(idx_dir: Path, name: str, content: bytes) -> Path:
    (idx_dir / name).write_bytes(content)
    return idx_dir


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        pytest.param(IMAGES, lambda z: z[:-2000], "damaged gzip", id="truncated gzip"),
        pytest.param(IMAGES, lambda z: flip(gzip.compress(gzip.decompress(z), 0)),
                     "damaged gzip .*incorrect data check", id="flipped byte"),
        pytest.param(IMAGES, lambda z: b"", "damaged gzip", id="empty file"),
        pytest.param(IMAGES, lambda z: b"<html>404</html>", "damaged gzip", id="not gzip"),
        pytest.param(IMAGES, lambda z: z + b"junk", "more after its end", id="junk after it"),
        pytest.param(IMAGES, lambda z: z + bytes(512), "more after its end", id="zeros after it"),
        pytest.param(IMAGES, lambda z: z + gzip.compress(b""), "more after its end",
                     id="another member after it"),
    ],
)  # fmt: skip
def test_damaged_gzip(idx_dir, name, change, says):
    damage(idx_dir, name, change((idx_dir / name).read_bytes()))
    with pytest.raises(DataError, match=says) as error:
        load_dataset("mnist", idx_dir)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        pytest.param(IMAGES, header(1, 28, 28, zeros=7) + bytes(784), "not an IDX", id="magic"),
        pytest.param(IMAGES, header(1, 28, 28, kind=9) + bytes(784), "type 0x09", id="dtype"),
        pytest.param(IMAGES, header(28, 28, 1, ndim=2) + bytes(784), "2 dimensions", id="ndim"),
        pytest.param(IMAGES, header(1000, 14, 56) + bytes(784_000), "14x56", id="image size"),
        pytest.param(IMAGES, header(0, 28, 28), "promises", id="empty set"),
        pytest.param(IMAGES, header(2**32 - 1, 2**32 - 1, 2**32 - 1), "promises", id="overflow"),
        pytest.param(IMAGES, header(1000, 28, 28) + bytes(784_001), "holds more", id="trailing"),
        pytest.param(IMAGES, header(1000, 28, 28) + bytes(783_999), "holds 783,999", id="short"),
        pytest.param(IMAGES, header(1000, 28), "ends within its header", id="half a header"),
        pytest.param(LABELS, header(999) + bytes(999), "999 labels for the 1,000", id="count"),
        pytest.param(LABELS, header(1000) + bytes(999) + b"\n", "label 10 at 999", id="label 10"),
    ],
)
@pytest.mark.parametrize("gzipped", [True, False])
def test_wrong_content(idx_dir, name, content, says, gzipped):
    if gzipped:
        damage(idx_dir, name, gzip.compress(content))
    else:
        (idx_dir / name).unlink()
        name = name.removesuffix(".gz")
        damage(idx_dir, name, content)
    with pytest.raises(DataError, match=says) as error:
        load_dataset("mnist", idx_dir)
    assert name in str(error.value)


def test_a_gzip_bomb_costs_no_more_than_an_honest_file(tmp_path, monkeypatch):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header(10))
        for _ in range(64):
            file.write(bytes(2**20))
    unpacked = []

    class Counting:
        def __init__(self, **how):
            self.real = zlib.decompressobj(**how)

        def __getattr__(self, name):
            return getattr(self.real, name)

        def decompress(self, packed, size):
            unpacked.append(self.real.decompress(packed, size))
            return unpacked[-1]

    monkeypatch.setattr(
        idx, "zlib", types.SimpleNamespace(**vars(zlib) | {"decompressobj": Counting})
    )
    with pytest.raises(DataError, match="holds more"):
        read_idx(path, ndim=1)
    assert sum(map(len, unpacked)) == 8 + 10 + 1


def test_gzip_is_checked_to_its_very_end(tmp_path):
    path, packed = tmp_path / "labels.gz", gzip.compress(header(100) + bytes(range(100)))
    path.write_bytes(packed)
    assert read_idx(path, ndim=1).tolist() == list(range(100))
    path.write_bytes(packed + b"\0")
    with pytest.raises(DataError, match="more after its end"):
        read_idx(path, ndim=1)
    for end in range(len(packed)):
        path.write_bytes(packed[:end])
        with pytest.raises(DataError, match=r"damaged gzip file \(it ends too early"):
            read_idx(path, ndim=1)


@pytest.mark.parametrize("name", ["plain", "packed.gz"])
def test_a_promise_takes_no_memory(tmp_path, name):
    content = header(MAX_BYTES) + bytes(1000)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="holds 1,000"):
            read_idx(path, ndim=1)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_of_a_file_far_larger_than_promised_little_is_read(tmp_path):
    path = tmp_path / "plain"
    path.write_bytes(header(1000) + bytes(1000))
    os.truncate(path, 2**27)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="promises 1,000 bytes of data, it holds more"):
            read_idx(path, ndim=1)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_a_header_may_not_promise_more_than_any_such_set_has(tmp_path):
    path = tmp_path / "huge"
    path.write_bytes(header(MAX_BYTES + 1))
    with pytest.raises(DataError, match="which no such set has"):
        read_idx(path, ndim=1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path.mkdir, "is no ordinary file"),
        (link_to_itself, "cannot be read .*symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read .*No such file"),
    ],
    ids=["folder", "link to itself", "link to nowhere"],
)
def test_what_stands_in_a_files_place(idx_dir, make, says):
    (idx_dir / LABELS).unlink()
    make(idx_dir / LABELS)
    with pytest.raises(DataError, match=f"{LABELS}: {says}"):
        load_dataset("mnist", idx_dir)


@POSIX
def test_a_device_is_not_read():
    with pytest.raises(DataError, match="/dev/zero: is no ordinary file"):
        read_idx(Path("/dev/zero"), ndim=1)


def test_a_file_that_may_not_be_read_is_named(digits):
    content = gzip.compress(header(1) + b"7")
    denied = pytest.raises(DataError, match=f"{LABELS}: cannot be read .Permission denied")
    with forbidden(LABELS, content) as path, denied:
        read_idx(path, ndim=1)


def test_a_missing_file_is_named(idx_dir):
    (idx_dir / LABELS).unlink()
    with pytest.raises(RequestError, match="missing: train-labels-idx1-ubyte"):
        load_dataset("mnist", idx_dir)
