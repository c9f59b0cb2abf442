"""Pictures: that they show the numbers they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from flax_mnist.errors import RequestError
from flax_mnist.plots import BLUE, GREY, draw_predictions, save
from flax_mnist.prediction import Prediction

NAMES = tuple("abcdefghij")


@pytest.fixture
def predictions(digits) -> list[Prediction]:
    rng = np.random.default_rng(0)
    return [
        Prediction(f"image {i}", digits["test_images"][i], label, NAMES, rng.dirichlet(np.ones(10)))
        for i, label in enumerate(("c", None, "a", "b"))
    ]


def test_a_bar_is_its_probability_and_the_likeliest_stands_out(predictions):
    cells = draw_predictions(predictions).subfigs
    for cell, prediction in zip(cells, predictions, strict=False):
        picture, bars = cell.axes
        np.testing.assert_array_equal(picture.images[0].get_array(), prediction.image)
        assert ("label" in picture.get_title()) == (prediction.label is not None)
        widths = [bar.get_width() for bar in bars.patches]
        np.testing.assert_array_equal(widths, prediction.probabilities)
        colours = [to_hex(bar.get_facecolor()).upper() for bar in bars.patches]
        expected = [BLUE if i == np.argmax(widths) else GREY for i in range(10)]
        assert colours == expected
        assert [label.get_text() for label in bars.get_yticklabels()] == list(NAMES)
        assert bars.yaxis_inverted()  # the first class on top


def test_several_make_a_grid(predictions):
    assert len(draw_predictions(predictions[:1]).subfigs) == 1
    assert len(draw_predictions(predictions).subfigs) == 6


def test_the_ending_decides_the_format(predictions, tmp_path):
    figure = draw_predictions(predictions[:2])
    save(figure, tmp_path / "a.png")
    width, height = Image.open(tmp_path / "a.png").size
    assert (width, height) == (2 * 780, 435)
    save(figure, tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    with pytest.raises(RequestError, match="'foo' is not supported"):
        save(figure, tmp_path / "a.foo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]
