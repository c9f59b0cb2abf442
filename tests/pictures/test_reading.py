"""Picture files as the network sees them."""

from __future__ import annotations

import sys

import numpy as np
import pytest
from PIL import Image, features

from flax_mnist.errors import RequestError
from flax_mnist.pictures.reading import read_image
from tests.helpers.pictures import ink_box, save


def test_28x28_is_taken_as_it_is(tmp_path, digit):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", digit)), digit)
    np.testing.assert_array_equal(read_image(save(tmp_path / "b.png", digit, "RGB")), digit)


def test_dark_on_light_is_inverted(tmp_path, digit):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", 255 - digit)), digit)


def test_transparent_ground_counts_as_white(tmp_path, digit):
    rgba = np.zeros((28, 28, 4), np.uint8)
    rgba[..., 3] = digit  # black ink, as opaque as the digit is bright
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", rgba)), digit)


def test_sixteen_bits_are_scaled_and_rounded(tmp_path, digit):
    off = np.where((digit > 0) & (digit < 255), 100, 0)  # less than half of the 257 levels to one
    exact = digit.astype(int) * 257
    for levels in (exact, exact + off, exact - off):
        path = save(tmp_path / "a.png", levels.astype(np.uint16))
        np.testing.assert_array_equal(read_image(path), digit)


@pytest.mark.parametrize("mode", ["P", "PA", "1"])
def test_a_palette_is_looked_up(tmp_path, digit, mode):
    binary = np.where(digit > 127, 255, 0).astype(np.uint8)
    if mode == "1":
        path = save(tmp_path / "a.png", binary, "1")
    else:
        picture = Image.fromarray(np.where(digit > 127, 3, 7).astype(np.uint8))
        ground = 0 if mode == "P" else 128
        picture.putpalette([255 if i == 3 else ground for i in range(256) for _ in range(3)])
        if mode == "PA":  # the ink is opaque, its grey ground is not there
            picture.info["transparency"] = 7
        picture.save(path := tmp_path / "a.png")
        with Image.open(path) as kept:
            assert kept.mode == "P"
    np.testing.assert_array_equal(read_image(path), binary)


@pytest.mark.parametrize("form", ["GIF", "PNG", "WEBP", "TIFF"])
def test_of_an_animation_the_first_frame_is_read(tmp_path, digit, digits, form):
    first, second = (Image.fromarray(array) for array in (digit, digits["test_images"][1]))
    options = {"lossless": True} if form == "WEBP" else {}
    path = tmp_path / "a"
    first.save(path, form, save_all=True, append_images=[second], **options)
    with Image.open(path) as kept:
        assert kept.n_frames == 2
    np.testing.assert_array_equal(read_image(path), digit)


def test_exif_rotation_is_undone(tmp_path, digit):
    exif = Image.Exif()
    exif[0x0112] = 6  # the camera lay on its side: turn by 90 degrees clockwise
    path = save(tmp_path / "a.png", np.rot90(digit), exif=exif)
    np.testing.assert_array_equal(read_image(path), digit)


def test_proportions_are_kept(tmp_path):
    for hole, box in (((30, 80), (10, 20)), ((80, 30), (20, 10)), ((380, 20), (20, 2))):
        zero = np.pad(np.zeros(hole, np.uint8), 10, constant_values=255)
        if box == (20, 2):
            zero[:] = 255  # a 1
        sheet = np.pad(zero, 100)
        assert ink_box(read_image(save(tmp_path / "a.png", sheet))) == box


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


@pytest.mark.parametrize("size", [(28, 28), (280, 280)])
def test_whether_to_invert_can_be_said(tmp_path, digit, size):
    large = np.asarray(Image.fromarray(digit).resize(size))
    bright, dark = save(tmp_path / "b.png", large), save(tmp_path / "d.png", 255 - large)
    expected = read_image(bright)
    np.testing.assert_array_equal(read_image(bright, "no"), expected)
    np.testing.assert_array_equal(read_image(dark, "yes"), read_image(dark))
    np.testing.assert_allclose(read_image(dark, "yes"), expected, atol=2)  # grey levels
    for path, wrong in ((bright, "yes"), (dark, "no")):
        try:
            image = read_image(path, wrong)
        except RequestError:
            continue
        assert np.abs(image.astype(int) - expected).mean() > 20


def test_28x28_is_taken_as_it_is_whatever_is_said(tmp_path, digit):
    np.testing.assert_array_equal(read_image(save(tmp_path / "a.png", digit), "yes"), 255 - digit)
    np.testing.assert_array_equal(
        read_image(save(tmp_path / "a.png", 255 - digit), "no"), 255 - digit
    )


def test_saying_it_helps_where_the_ink_is_fainter_than_what_is_beside_it(tmp_path):
    sheet = np.full((200, 200), 150, np.uint8)
    sheet[50:150, 90:110] = 250  # what was written
    sheet[20:120, 20:50] = 0  # of the other colour, larger, and the stronger contrast
    path = save(tmp_path / "a.png", sheet)
    assert ink_box(read_image(path)) == (20, 6)
    assert ink_box(read_image(path, "no")) == (20, 4)


def test_saying_it_decides_the_ground_of_what_is_transparent(tmp_path, digit):
    rgba = np.full((28, 28, 4), 127, np.uint8)  # a grey that may be either
    rgba[..., 3] = digit
    path = save(tmp_path / "a.png", rgba)
    np.testing.assert_array_equal(read_image(path, "yes"), read_image(path, "auto"))
    on_black = read_image(path, "no")
    assert on_black[0, 0] == 0
    assert on_black.max() == 127


@pytest.mark.parametrize("form", ["AVIF", "HEIF"])
def test_pictures_of_phones(tmp_path, digit, form):
    if form == "HEIF":
        pytest.importorskip("pillow_heif").register_heif_opener()
    elif "avif" not in features.get_supported():
        pytest.skip("this Pillow reads no AVIF")
    large = Image.fromarray(255 - digit.repeat(10, axis=0).repeat(10, axis=1))
    large.save(tmp_path / "a", form, quality=90)
    large.save(tmp_path / "a.png")
    difference = read_image(tmp_path / "a").astype(float) - read_image(tmp_path / "a.png")
    assert np.abs(difference).mean() < 3


@pytest.mark.parametrize(
    ("brand", "says"),
    [
        (b"heic", r"is HEIC. Install flax-mnist\[heif\], or save it as JPEG\."),
        (b"avif", "is AVIF, which this Pillow cannot read. Upgrade it, or save"),
    ],
)
def test_where_they_cannot_be_read_the_remedy_is_said(tmp_path, monkeypatch, brand, says):
    monkeypatch.setitem(sys.modules, "pillow_heif", None)
    Image.init()
    for form in ("HEIF", "AVIF"):
        monkeypatch.delitem(Image.OPEN, form, raising=False)
    path = tmp_path / "a.jpg"
    path.write_bytes(b"\0\0\0\x18ftyp" + brand + bytes(100))
    with pytest.raises(RequestError, match=f"a.jpg: {says}"):
        read_image(path)
