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


@pytest.mark.parametrize(
    "draw",
    [
        lambda sheet: 255 - sheet,
        lambda sheet: 40 + sheet // 2,
        lambda sheet: 255 - sheet // 3 - np.linspace(0, 80, 400).astype(np.uint8)[:, None],
        lambda sheet: np.stack([255 - sheet] * 3 + [np.full_like(sheet, 255)], -1),
        lambda sheet: np.stack([np.full_like(sheet, 255)] * 3 + [sheet], -1),
        lambda sheet: np.stack([np.zeros_like(sheet)] * 3 + [sheet], -1),
        lambda sheet: sheet.astype(np.uint16) * 100,
        lambda sheet: sheet.astype(np.int32) * 1000 - 70_000,
        lambda sheet: sheet.astype(np.float32) / 255,
    ],
    ids=[
        "dark on white", "grey on grey", "dark on unevenly lit paper", "RGBA",
        "white on transparent", "black on transparent", "16 bits", "32 bits", "floats",
    ],
)  # fmt: skip
def test_the_same_ink_gives_the_same_digit_on_any_ground(tmp_path, digit, draw):
    sheet = np.zeros((400, 300), np.uint8)
    sheet[100:240, 50:190] = np.asarray(Image.fromarray(digit).resize((140, 140)))
    expected = read_image(save(tmp_path / "plain.png", sheet))
    assert ink_box(expected)[0] in (19, 20)
    image = read_image(save(tmp_path / "a.tiff", draw(sheet)))
    # What the threshold leaves of the strokes' soft edges may differ.
    assert np.abs(image.astype(float) - expected).mean() < 4
    assert image[:3].max() == 0


def test_a_thick_stroke_that_fills_its_box(tmp_path):
    sheet = np.full((300, 200), 255, np.uint8)
    sheet[50:250, 80:120] = 0
    assert ink_box(read_image(save(tmp_path / "a.png", sheet))) == (20, 4)


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
    for path in (text, empty, cut, tmp_path, tmp_path / "absent.png"):
        with pytest.raises(RequestError, match=str(path)):
            read_image(path)


def test_too_many_pixels_are_refused_by_the_header(tmp_path, monkeypatch):
    path = save(tmp_path / "a.png", np.zeros((40, 50), np.uint8))
    monkeypatch.setattr(images, "MAX_PIXELS", 1999)
    with pytest.raises(RequestError, match="50x40 pixels"):
        read_image(path)
