"""A digit as people photograph, scan and paint it: what is read is the digit that was drawn."""

from __future__ import annotations

from collections.abc import Callable

import numpy as np
import pytest
from PIL import Image, ImageDraw, ImageFilter

from flax_mnist.data.dataset import load_dataset
from flax_mnist.errors import RequestError
from flax_mnist.pictures.reading import (
    Reading,
    is_prepared,
    read_digit,
    read_digits,
    read_image,
    read_whole,
)
from tests.helpers.pictures import ink_box, like_mnist, save

PAPER, PEN = 235.0, 40.0
HEIGHT, WIDTH = 600, 800

Page = np.ndarray  #: Grey levels.
Ways = dict[str, Callable[[np.ndarray], Page]]


@pytest.fixture(params=range(3))
def drawn(request: pytest.FixtureRequest, digits: dict[str, np.ndarray]) -> np.ndarray:
    chosen = like_mnist(digits["test_images"][:600])
    return digits["test_images"][chosen[request.param]]


def ink_of(digit: np.ndarray, side: int = 280) -> np.ndarray:
    """The digit enlarged, its edge made crisp: 0 to 1."""
    large = Image.fromarray(digit).resize((side, side), Image.Resampling.BICUBIC)
    return np.clip((np.asarray(large) / 255 - 0.35) / 0.3, 0, 1)


def placed(ink: np.ndarray, top: int = 160, left: int = 260) -> np.ndarray:
    page = np.zeros((HEIGHT, WIDTH))
    part = page[top : top + ink.shape[0], left : left + ink.shape[1]]
    part[:] = ink[: part.shape[0], : part.shape[1]]
    return page


def on_paper(ink: np.ndarray, pen: float = PEN, noise: float = 2.0) -> Page:
    rng = np.random.default_rng(0)
    return PAPER + (pen - PAPER) * ink + rng.normal(0, noise, ink.shape)


def with_lines(page: Page, spacing: int, level: float, slope: float = 0) -> Page:
    rows, columns = np.indices(page.shape)
    return np.where((rows + slope * columns) % spacing < 2, np.minimum(page, level), page)


def with_drawing(page: Page, draw: Callable[[ImageDraw.ImageDraw], None]) -> Page:
    picture = Image.fromarray(np.clip(page, 0, 255).astype(np.uint8))
    draw(ImageDraw.Draw(picture))
    return np.asarray(picture).astype(float)


def around(page: Page, level: float, sides: tuple[int, int, int, int]) -> Page:
    top, bottom, left, right = sides
    return np.pad(page, ((top, bottom), (left, right)), constant_values=level)


def with_specks(page: Page) -> Page:
    rng = np.random.default_rng(1)
    page = page.copy()
    for row, column in rng.integers(0, (HEIGHT - 3, WIDTH - 3), (40, 2)):
        page[row : row + 3, column : column + 3] = 60
    return page


def sheet_on_a_table(digit: np.ndarray) -> Page:
    sheet = Image.fromarray(on_paper(placed(ink_of(digit)))[100:500, 200:600].astype(np.uint8))
    turned = sheet.convert("LA").rotate(12, Image.Resampling.BICUBIC, expand=True)
    table = Image.new("L", (WIDTH, HEIGHT), 70)
    table.paste(turned.getchannel(0), (150, 50), turned.getchannel(1))
    return np.asarray(table).astype(float)


rows_and_columns = np.indices((HEIGHT, WIDTH)) / np.array([HEIGHT, WIDTH])[:, None, None]
WAYS: Ways = {
    "even light": lambda digit: on_paper(placed(ink_of(digit))),
    "slanting light": lambda digit: (
        on_paper(placed(ink_of(digit))) * (1 - 0.5 * rows_and_columns.mean(axis=0))
    ),
    "a hard shadow": lambda digit: (
        on_paper(placed(ink_of(digit))) * np.where(rows_and_columns[1] > 0.5, 0.6, 1)
    ),
    "pencil": lambda digit: on_paper(placed(ink_of(digit)), pen=175, noise=3),
    "grain": lambda digit: on_paper(placed(ink_of(digit)), noise=12),
    "chalk": lambda digit: 255 - on_paper(placed(ink_of(digit))),
    "lined paper": lambda digit: with_lines(on_paper(placed(ink_of(digit))), 55, 170),
    "dark lines aslant": lambda digit: with_lines(on_paper(placed(ink_of(digit))), 55, 110, 0.05),
    "squared paper": lambda digit: (
        with_lines(with_lines(on_paper(placed(ink_of(digit))), 40, 190).T, 40, 190).T
    ),
    "specks": lambda digit: with_specks(on_paper(placed(ink_of(digit)))),
    "a table around": lambda digit: around(on_paper(placed(ink_of(digit))), 90, (60, 60, 60, 60)),
    "a table at one side": lambda digit: around(on_paper(placed(ink_of(digit))), 90, (0, 0, 80, 0)),
    "a sheet aslant on a table": sheet_on_a_table,
    "a black board with a frame": lambda digit: around(
        255 - on_paper(placed(ink_of(digit))), 220, (60, 60, 60, 60)
    ),
    "underlined": lambda digit: with_drawing(
        on_paper(placed(ink_of(digit))),
        lambda draw: draw.line((250, 475, 550, 475), fill=40, width=7),
    ),
    "boxed": lambda digit: with_drawing(
        on_paper(placed(ink_of(digit))),
        lambda draw: draw.rectangle((190, 90, 610, 510), outline=60, width=4),
    ),
    "pencil in a printed box": lambda digit: with_drawing(
        on_paper(placed(ink_of(digit)), pen=160),
        lambda draw: draw.rectangle((190, 90, 610, 510), outline=20, width=5),
    ),
    "encircled": lambda digit: with_drawing(
        on_paper(placed(ink_of(digit))),
        lambda draw: draw.ellipse((190, 90, 610, 510), outline=50, width=4),
    ),
    "text above": lambda digit: with_drawing(
        on_paper(placed(ink_of(digit))),
        lambda draw: draw.text((60, 40), "4. Write the digit, please.", fill=30, font_size=20),
    ),
    "small in a corner": lambda digit: on_paper(placed(ink_of(digit, 90), 20, 30)),
    "28x28, small": lambda digit: np.asarray(
        Image.fromarray(np.pad(digit, 14)).resize((28, 28), Image.Resampling.BOX)
    ),
    "28x28, not in the middle": lambda digit: np.roll(digit, (-3, 3), (0, 1)),
    "28x28 on grey": lambda digit: 200 - digit * (150 / 255),
    "enlarged": lambda digit: digit.repeat(10, axis=0).repeat(10, axis=1),
}


def fitted(digit: np.ndarray) -> np.ndarray:
    """The digit in 20x20, by its centre of mass in 28x28."""
    image = Image.fromarray(digit)
    image = image.crop(image.point(lambda level: 255 * (level > 60)).getbbox())
    image.thumbnail((200, 200))
    scale = 20 / max(image.size)
    image = image.resize([max(1, round(side * scale)) for side in image.size], Image.Resampling.BOX)
    mass = np.asarray(image).astype(float)
    rows, columns = np.indices(mass.shape)
    frame = Image.new("L", (28, 28))
    left, top = (13.5 - (axis * mass).sum() / mass.sum() for axis in (columns, rows))
    frame.paste(image, (round(left), round(top)))
    return np.asarray(frame)


def likeness(image: np.ndarray, digit: np.ndarray) -> float:
    """The correlation with the digit, somewhat blurred: a pixel's shift or breadth is no matter."""
    soft = [
        np.asarray(Image.fromarray(each).filter(ImageFilter.GaussianBlur(1))).ravel()
        for each in (image, fitted(digit))
    ]
    return float(np.corrcoef(soft)[0, 1])


def as_picture(page: Page) -> np.ndarray:
    return np.clip(np.rint(page), 0, 255).astype(np.uint8)


@pytest.mark.parametrize("way", WAYS)
def test_whatever_is_around_it_the_digit_is_read(tmp_path, drawn, way):
    reading = read_digit(save(tmp_path / "a.png", as_picture(WAYS[way](drawn))))
    if way == "a sheet aslant on a table":
        drawn = np.asarray(Image.fromarray(drawn).rotate(12, Image.Resampling.BICUBIC))
    assert likeness(reading.image, drawn) > 0.8
    assert not reading.doubts


@pytest.mark.parametrize(
    ("pen", "paper"),
    [
        ((200, 30, 30), (40, 100, 40)),
        ((180, 30, 30), (60, 90, 90)),
        ((250, 230, 40), (255, 255, 255)),
        ((30, 50, 170), PAPER),
    ],
    ids=[
        "red on green, equally bright",
        "red on teal, of one mean",
        "yellow on white",
        "blue on paper",
    ],
)
def test_colours_that_grey_does_not_tell_apart(tmp_path, drawn, pen, paper):
    ink = placed(ink_of(drawn))[..., None]
    page = np.array(paper) + (np.array(pen) - np.array(paper)) * ink
    image = read_image(save(tmp_path / "a.png", as_picture(page)))
    assert likeness(image, drawn) > 0.8


def test_a_hairline_is_brought_to_a_strokes_width(tmp_path):
    page = np.full((HEIGHT, WIDTH), PAPER)
    page = with_drawing(page, lambda draw: draw.ellipse((300, 200, 420, 400), outline=40, width=3))
    image = read_image(save(tmp_path / "a.png", as_picture(page)))
    # Of a row through the middle, the left stroke: MNIST's are two to three pixels wide.
    assert 1.5 < image[14, :14].sum() / 255 < 3


def test_of_several_digits_the_largest_is_read_or_each(tmp_path, digits):
    chosen = digits["test_images"][like_mnist(digits["test_images"][:600])[:3]]
    page = np.zeros((HEIGHT, WIDTH))
    for digit, side, top, left in zip(
        chosen, (180, 180, 260), (80, 60, 300), (500, 80, 300), strict=True
    ):
        page += placed(ink_of(digit, side), top, left)
    path = save(tmp_path / "a.png", as_picture(on_paper(page)))
    largest = read_digit(path)
    assert likeness(largest.image, chosen[2]) > 0.8
    assert largest.doubts == ("3 digits are on it, the largest is read; --all reads each",)
    each = read_digits(path)
    assert len(each) == 3
    for reading, digit in zip(each, chosen[[1, 0, 2]], strict=True):
        assert likeness(reading.image, digit) > 0.8
        assert not reading.doubts


def doubts(tmp_path, page: Page) -> tuple[str, ...]:
    return read_digit(save(tmp_path / "a.png", as_picture(page))).doubts


def test_what_makes_a_reading_doubtful_is_said(tmp_path, digit):
    cut = on_paper(placed(ink_of(digit), top=HEIGHT - 200))
    assert doubts(tmp_path, cut) == ("it reaches the picture's edge",)
    assert doubts(tmp_path, on_paper(placed(ink_of(digit)), pen=PAPER - 22, noise=1)) == (
        "its ink is faint",
    )


@pytest.mark.long
def test_of_mnists_own_images_each_is_taken_as_it_is(mnist_dir):
    mnist = load_dataset("mnist", mnist_dir)
    for images in (mnist.train.images, mnist.test.images):
        assert all(is_prepared(image[..., None].astype(float)) for image in images)


def test_a_digit_that_fills_its_picture(tmp_path, drawn):
    ink = ink_of(drawn)
    rows, columns = np.nonzero(ink > 0.3)
    ink = ink[rows.min() : rows.max() + 1, columns.min() : columns.max() + 1]
    image = read_image(save(tmp_path / "a.png", as_picture(on_paper(ink))))
    assert likeness(image, drawn) > 0.8


@pytest.mark.parametrize("invert", [False, True])
def test_what_is_no_digit_is_read_whole(tmp_path, invert):
    clothes = np.random.default_rng(0).integers(1, 255, (28, 28)).astype(np.uint8)
    clothes[0] = clothes[-1] = clothes[:, 0] = clothes[:, -1] = 0
    path = save(tmp_path / "a.png", 255 - clothes if invert else clothes)
    reading: Reading = read_whole(path)
    np.testing.assert_array_equal(reading.image, clothes)
    wide = np.zeros((70, 140), np.uint8)
    wide[20:50, 20:120] = 200
    image = read_whole(save(tmp_path / "b.png", wide)).image
    rows, columns = np.nonzero(image > 100)
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (6, 20)


def test_a_picture_of_noise_has_no_digit(tmp_path):
    page = np.random.default_rng(0).normal(PAPER, 2, (HEIGHT, WIDTH))
    with pytest.raises(RequestError, match="no digit can be seen"):
        read_image(save(tmp_path / "a.png", as_picture(page)))


def test_a_blot_is_read_and_doubted(tmp_path):
    page = np.full((HEIGHT, WIDTH), PAPER)
    page[200:350, 300:450] = PEN
    reading = read_digit(save(tmp_path / "a.png", as_picture(page)))
    assert ink_box(reading.image) == (20, 20)
    assert reading.doubts == ("what is on it hardly looks like a digit",)
