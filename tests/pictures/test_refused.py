"""Picture files that are refused, and what reading a large one costs."""

from __future__ import annotations

import struct
import subprocess
import tracemalloc
import zlib

import numpy as np
import pytest

from flax_mnist.errors import RequestError
from flax_mnist.pictures import decode
from flax_mnist.pictures.reading import read_image
from tests.helpers.odd_files import forbidden, link_to_itself
from tests.helpers.pictures import ink_box, save


def test_where_no_digit_can_be_seen(tmp_path):
    dots = np.zeros((900, 900), np.uint8)
    dots[5, 5] = dots[-5, -5] = 255
    for array in (
        np.full((100, 100), 0, np.uint8),
        np.full((100, 100), 255, np.uint8),
        np.full((28, 28), 99, np.uint8),
        dots,
    ):
        with pytest.raises(RequestError, match="no digit can be seen"):
            read_image(save(tmp_path / "a.png", array))


def test_files_that_are_no_pictures(tmp_path, digit):
    text, empty, cut = tmp_path / "a.txt", tmp_path / "b.png", tmp_path / "c.png"
    text.write_text("not a picture")
    empty.write_bytes(b"")
    whole = save(tmp_path / "d.png", np.tile(digit, (20, 20))).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    for path, says in (
        (text, "is none of PNG, JPEG"),
        (empty, "is none of PNG, JPEG"),
        (cut, "cannot be read as a picture .*truncated"),
        (tmp_path, "is no ordinary file"),
        (tmp_path / "absent.png", "there is no such file"),
        (link_to_itself(tmp_path / "loop.png"), "cannot be read .*symbolic links"),
        (tmp_path / ("x" * 300), "cannot be read .*too long"),
    ):
        with pytest.raises(RequestError, match=f"{path}: {says}"):
            read_image(path)


def test_a_picture_that_may_not_be_read_is_named():
    denied = pytest.raises(RequestError, match=r"a.png: cannot be read .*Permission denied")
    with forbidden("a.png", b"") as path, denied:
        read_image(path)


def test_pillow_starts_no_other_program(tmp_path, monkeypatch):
    path = tmp_path / "a.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 28 28\n%%EndComments\nshowpage\n")
    monkeypatch.setattr(subprocess, "Popen", lambda *_, **__: pytest.fail("started something"))
    with pytest.raises(RequestError, match="is none of"):
        read_image(path)


def test_what_is_no_number_is_no_grey(tmp_path):
    for value in (np.nan, np.inf, -np.inf):
        levels = np.zeros((40, 40), np.float32)
        levels[20, 20] = value
        with pytest.raises(RequestError, match="not numbers"):
            read_image(save(tmp_path / "a.tiff", levels))


def test_the_most_pixels_are_allowed(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", np.zeros((40, 50), np.uint8))
    for most, says in ((2000, "no digit can be seen"), (1999, "megapixels")):
        monkeypatch.setattr(decode, "MAX_PIXELS", most)
        with pytest.raises(RequestError, match=says):
            read_image(path)


@pytest.mark.parametrize(("dtype", "ink"), [(np.uint8, 200), (np.uint16, 50_000), (np.float32, 1)])
def test_what_is_large_is_made_small_before_it_is_worked_on(tmp_path, dtype, ink):
    sheet = np.zeros((2000, 2000), dtype)
    sheet[500:1500, 900:1100] = ink
    path = save(tmp_path / "a.tiff", sheet)
    tracemalloc.start()
    try:
        assert ink_box(read_image(path)) == (20, 4)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # At most as many floats as it has pixels, twice, and ten times those of 1000x1000.
    assert peak < 16 * 2000**2 + 80 * 1000**2 + 10 * 2**20


@pytest.mark.parametrize(("width", "height"), [(7072, 7072), (20_000, 20_000), (2**31 - 1, 1)])
def test_fifty_megapixels_are_the_most(tmp_path, width, height):
    def chunk(kind: bytes, content: bytes) -> bytes:
        body = kind + content
        return struct.pack(">I", len(content)) + body + struct.pack(">I", zlib.crc32(body))

    # A whole PNG file, but for its data: nobody has decoded any who names its size.
    path = tmp_path / "a.png"
    path.write_bytes(
        b"\x89PNG\r\n\x1a\n"
        + chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 8, 0, 0, 0, 0))
        + chunk(b"IDAT", zlib.compress(b""))
        + chunk(b"IEND", b"")
    )
    with pytest.raises(RequestError, match=r"a\.png: has more than 50 megapixels"):
        read_image(path)
