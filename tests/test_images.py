"""Picture files as the network sees them."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from flax_mnist import images
from flax_mnist.errors import RequestError
from flax_mnist.images import read_image


@pytest.fixture
def digit(digits) -> np.ndarray:
    return digits["test_images"][0]


def save(path, array: np.ndarray, mode: str | None = None, **options: object):
    picture = Image.fromarray(array)
    (picture.convert(mode) if mode else picture).save(path, **options)
    return path


def ink_box(image: np.ndarray) -> tuple[int, int]:
    rows, columns = np.nonzero(image > 30)
    return int(np.ptp(rows)) + 1, int(np.ptp(columns)) + 1


def test_28x28_is_taken_as_it_is(tmp_path, digit):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", digit)), digit)
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.png", digit, "RGB")), digit)


def test_dark_on_light_is_inverted(tmp_path, digit):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", 255 - digit)), digit)


def test_transparent_ground_counts_as_white(tmp_path, digit):
    rgba = np.zeros((28, 28, 4), np.uint8)
    rgba[..., 3] = digit  # black ink, as opaque as the digit is bright
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", rgba)), digit)


def test_sixteen_bits_are_scaled(tmp_path, digit):
    path = save(tmp_path / "a.png", digit.astype(np.uint16) * 257)
    np.testing.assert_array_equal(read_image(path), digit)


def test_exif_rotation_is_undone(tmp_path, digit):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees clockwise
    path = save(tmp_path / "a.png", np.rot90(digit), exif=exif)
    np.testing.assert_array_equal(read_image(path), digit)


@pytest.mark.parametrize("invert", [False, True])
def test_a_large_picture_is_prepared_as_mnists_were(tmp_path, invert):
    sheet = np.zeros((500, 800), np.uint8)
    sheet[100:400, 500:560] = 200  # a "1" of 300 x 60 in a corner, not the brightest
    sheet = 255 - sheet if invert else sheet
    image = read_image(save(tmp_path / "a.png", sheet))
    assert image.shape == (28, 28)
    assert ink_box(image) == (20, 4)
    rows, columns = np.indices(image.shape)
    mass = image.astype(float)
    assert (rows * mass).sum() / mass.sum() == pytest.approx(13.5, abs=0.6)
    assert (columns * mass).sum() / mass.sum() == pytest.approx(13.5, abs=0.6)
    assert image[0, 0] == 0
    assert image.max() == 255


def test_a_blank_picture_is_blank(tmp_path):
    for shade in (0, 255):
        path = save(tmp_path / "a.png", np.full((100, 100), shade, np.uint8))
        assert not read_image(path).any()


def test_files_that_are_no_pictures(tmp_path, digit):
    text, empty, cut = tmp_path / "a.txt", tmp_path / "b.png", tmp_path / "c.png"
    text.write_text("not a picture")
    empty.write_bytes(b"")
    whole = save(tmp_path / "d.png", np.tile(digit, (20, 20))).read_bytes()
    cut.write_bytes(whole[: len(whole) // 2])
    for path in (text, empty, cut, tmp_path, tmp_path / "absent.png"):
        with pytest.raises(RequestError, match=str(path)):
            read_image(path)


def test_too_many_pixels_are_refused_by_the_header(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(images, "MAX_PIXELS", 1999)
    with pytest.raises(RequestError, match="50x40 pixels"):
        read_image(path)
