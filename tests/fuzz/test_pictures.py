"""Pictures that nobody drew."""

from __future__ import annotations

import io

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from flax_mnist.pictures.reading import read_image
from tests.fuzz.examples import answer, mostly, repeatable

FORMS = (
    ("PNG", ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")), ("JPEG", ("L", "RGB", "CMYK")),
    ("GIF", ("1", "L", "P", "RGB")), ("BMP", ("1", "L", "P", "RGB")), ("PPM", ("1", "L", "RGB")),
    ("TIFF", ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F")),
    ("WEBP", ("RGB", "RGBA")),
)  # fmt: skip


@pytest.mark.long
@repeatable
@given(
    form=st.sampled_from([(form, mode) for form, modes in FORMS for mode in modes]),
    size=st.tuples(mostly(28, 1, 2, 29, 300), mostly(28, 1, 2, 30, 300)),
    noise=st.sampled_from(["even", "noise", "blot"]),
    level=st.integers(0, 255),
    turned=st.integers(0, 9),
    invert=st.sampled_from(["auto", "yes", "no"]),
)
def test_any_picture_is_a_digit_or_none(folder, form, size, noise, level, turned, invert):
    pixels = np.full(size, level, np.uint8)
    if noise == "noise":
        pixels = np.random.default_rng(level).integers(0, 256, size).astype(np.uint8)
    elif noise == "blot":
        pixels[size[0] // 4 : 1 + size[0] // 2, size[1] // 4 : 1 + size[1] // 2] ^= 255
    kind, mode = form
    picture = {
        "I;16": lambda: Image.fromarray(pixels.astype(np.uint16) * 257),
        "I": lambda: Image.fromarray(pixels.astype(np.int32) * 8_000_000 - 2**30),
        "F": lambda: Image.fromarray(pixels.astype(np.float32) * np.float32(1e36)),
        "LAB": lambda: Image.merge("LAB", [Image.fromarray(pixels)] * 3),
    }.get(mode, lambda: Image.fromarray(pixels).convert(mode))()
    exif = Image.Exif()
    exif[0x0112] = turned
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
    file = io.BytesIO()
    picture.save(file, kind, **options)
    (folder / "picture").write_bytes(file.getvalue())
    image = answer(lambda path: read_image(path, invert), folder / "picture")
    if image is not None:
        assert (image.shape, image.dtype) == ((28, 28), np.uint8)
    elif noise == "blot" and invert == "auto":
        assert mode == "LAB" or min(size) < 28 or abs(255 - 2 * level) < 40
