"""The chart of a prediction, in a terminal and in a pipe."""

from __future__ import annotations

import io

import numpy as np
import pytest
from rich.console import Console

from flax_mnist.show import terminal
from flax_mnist.show.prediction import Prediction, prediction_chart

SEVEN = Prediction("a.png", np.zeros((28, 28), np.uint8), None, "0123456789", [0.0] * 7 + [1, 0, 0])


@pytest.fixture
def stdout(monkeypatch):
    """Makes stdout a terminal of a width and an encoding, or a pipe."""

    def become(width: int | None, encoding: str) -> None:
        file = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
        file.isatty = lambda: width is not None
        monkeypatch.setattr(terminal, "out", Console(file=file, width=width))

    return become


def halves(ink: np.ndarray) -> list[str]:
    """Half blocks of a picture of booleans, a pixel at a time."""
    characters = {(0, 0): " ", (0, 1): "▄", (1, 0): "▀", (1, 1): "█"}
    return [
        "".join(characters[ink[2 * row, column], ink[2 * row + 1, column]] for column in range(28))
        for row in range(14)
    ]


def test_a_pipe_gets_the_bars_alone(stdout):
    for encoding, bar in (("utf-8", "█"), ("ascii", "#")):
        stdout(None, encoding)
        lines = prediction_chart(SEVEN).split("\n")
        expected = [f"  {i}    0.00%" for i in range(10)]
        expected[7] = f"  7  100.00%  {bar * 40}"
        assert lines == ["a.png: 7", *expected]


def test_a_terminal_shows_the_image_beside_the_bars(stdout, digits):
    stdout(100, "utf-8")
    image = digits["test_images"][0]
    title, *rows = prediction_chart(SEVEN._replace(image=image)).split("\n")
    assert title == "a.png: 7"
    assert [f"{row:28.28}" for row in rows] == halves(image > image.max() / 3)
    assert any("█" in row[:28] for row in rows)
    bars = [row[28:].strip() for row in rows]
    assert bars[2:12] == [f"{i}    0.00%" for i in range(7)] + [
        f"7  100.00%  {'█' * 40}", "8    0.00%", "9    0.00%",
    ]  # fmt: skip
    assert not any(bars[:2] + bars[12:])


def test_without_utf8_the_image_is_of_shades(stdout):
    stdout(100, "ascii")
    image = np.zeros((28, 28), np.uint8)
    image[0, :3] = 255
    image[1, 1:3] = 127, 255
    image[26, 27] = 60
    _, *rows = prediction_chart(SEVEN._replace(image=image)).split("\n")
    # Means of 127.5, 191, 255 and 30 of 255, in ten shades: " .:-=+*#%@".
    assert rows[0] == "=#@"
    assert rows[13] == " " * 27 + "."
    assert all(row.isascii() for row in rows)


@pytest.mark.parametrize("names", ["0123456789", [*"012345678", "Ankle boot"]])
@pytest.mark.parametrize("width", [200, 80, 60, 59, 30, 10])
def test_it_fits_the_terminal(stdout, width, names):
    stdout(width, "utf-8")
    image = np.full((28, 28), 255, np.uint8)
    _, *rows = prediction_chart(SEVEN._replace(image=image, names=names)).split("\n")
    assert len(rows) == (14 if width >= 60 else 10)
    text = max(map(len, names)) + 11  # all but the bar and what is beside it
    assert max(map(len, rows)) <= max(width, text)
    longest = max(rows, key=len)
    assert longest.endswith("█") == (width >= 30)
