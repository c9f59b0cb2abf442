"""Pictures: that they show the numbers they were given."""

from __future__ import annotations

import itertools
import warnings
from collections.abc import Iterator

import numpy as np
import pytest
from matplotlib.colors import to_hex
from PIL import Image

from flax_mnist import scoring
from flax_mnist.errors import RequestError
from flax_mnist.show.curves import draw_curves
from flax_mnist.show.figures import BLUE, GREY, save
from flax_mnist.show.kernels import draw_weights, save_weights_gif
from flax_mnist.show.prediction import Prediction
from flax_mnist.show.results import (
    draw_calibration,
    draw_classes,
    draw_confusion,
    draw_mistakes,
    draw_predictions,
)
from flax_mnist.store.metrics import Metrics

NAMES = tuple("abcdefghij")


@pytest.fixture(autouse=True)
def _no_warnings() -> Iterator[None]:
    """A layout that does not fit, a division by zero or a missing glyph is a failure."""
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        yield


# ---- Curves ---------------------------------------------------------------------------------


def run(epochs: int, seed: int = 0) -> list[Metrics]:
    rng = np.random.default_rng(seed)
    rows = rng.uniform(size=(epochs, 3)).tolist()
    return [Metrics(i, 938 * i, *row, 0.2, 3e5) for i, row in enumerate(rows, start=1)]


@pytest.mark.parametrize("epochs", [1, 2, 200])
def test_the_curves_are_the_metrics(epochs, tmp_path):
    runs = {"a": run(epochs), "b": run(3, seed=1)}
    figure = draw_curves(runs)
    save(figure, tmp_path / "loss.png")
    loss, accuracy = figure.axes
    shown = {
        "train_loss": [line for line in loss.lines if line.get_linestyle() == "--"],
        "test_loss": [line for line in loss.lines if line.get_linestyle() == "-"],
        "test_accuracy": accuracy.lines,
    }
    assert len(loss.lines) == 4
    for field, lines in shown.items():
        for line, rows in zip(lines, runs.values(), strict=True):
            assert list(line.get_xdata()) == [row.epoch for row in rows]
            assert list(line.get_ydata()) == [getattr(row, field) for row in rows]
            start, every = line.get_markevery()
            marked = range(len(rows))[start::every]
            assert len(marked) <= 10
            assert marked[-1] == len(rows) - 1
    for axes in (loss, accuracy):
        ticks = [float(label.get_text().replace("−", "-")) for label in axes.get_xticklabels()]
        assert ticks
        assert all(tick == int(tick) for tick in ticks)
        assert axes.get_xlim()[0] < 1
        assert axes.get_xlim()[1] > epochs
    assert loss.get_ylim()[0] == 0
    assert accuracy.get_ylim()[1] <= 1


def test_runs_differ_without_colour_and_the_legend_covers_no_data():
    names = ["a" * 30 + "middle" + "z" * 30, "b", "c", "d", "e"]
    figure = draw_curves({name: run(5, seed) for seed, name in enumerate(names)})
    accuracy = figure.axes[1]
    assert len({line.get_marker() for line in accuracy.lines}) == 5
    (legend,) = figure.legends
    for line, handle in zip(accuracy.lines, legend.get_lines(), strict=True):
        assert (line.get_marker(), line.get_color()) == (handle.get_marker(), handle.get_color())
    figure.draw_without_rendering()  # for the extents
    legends = [legend, figure.axes[0].get_legend()]
    for axes, box in itertools.product(figure.axes, legends):
        assert not axes.get_window_extent().overlaps(box.get_window_extent())
        assert box.get_window_extent().width < figure.bbox.width


def test_any_name_of_a_run_can_be_drawn(tmp_path):
    # Long; what is no mathematics; characters that no font has; what is no text.
    names = ["a" * 30 + "middle" + "z" * 30, r"$\nonsense$", "実験", "no text \udcff"]
    figure = draw_curves({name: run(2) for name in names})
    save(figure, tmp_path / "loss.png")
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["a" * 20 + "…" + "z" * 19, *names[1:3], "no text ?"]


def test_no_two_of_many_runs_look_alike():
    figure = draw_curves({str(i): run(1, i) for i in range(77)})
    looks = {(line.get_marker(), line.get_color()) for line in figure.axes[1].lines}
    assert len(looks) == 77


# ---- Weights --------------------------------------------------------------------------------


@pytest.mark.parametrize(("units", "shape"), [(1, (1, 1)), (20, (2, 16)), (300, (16, 16))])
def test_each_unit_has_its_picture(units, shape, tmp_path):
    kernel = np.random.default_rng(0).normal(size=(784, units))
    figure = draw_weights(kernel)
    save(figure, tmp_path / "weights.png")
    axes = figure.axes[0]
    (picture,) = axes.images
    low, high = picture.get_clim()
    assert low == -high < 0
    mosaic = np.ma.filled(picture.get_array(), np.nan)
    assert mosaic.shape == (29 * shape[0] - 1, 29 * shape[1] - 1)
    for unit in range(min(units, 256)):
        row, column = divmod(unit, shape[1])
        tile = mosaic[29 * row : 29 * row + 28, 29 * column : 29 * column + 28]
        np.testing.assert_array_equal(tile.ravel(), kernel[:, unit])
    assert np.isfinite(mosaic).sum() == 784 * min(units, 256)
    assert ("the first 256 of 300" in axes.get_title()) == (units == 300)


def test_weights_that_are_all_zero_can_be_drawn(tmp_path):
    save(draw_weights(np.zeros((784, 3))), tmp_path / "weights.png")


def test_the_gif_has_a_frame_an_epoch_on_one_scale(tmp_path):
    # One strong unit among many faint ones: were each frame's scale its own, its red would be as
    # strong in the first one.
    faint = np.random.default_rng(0).normal(scale=0.01, size=(784, 127))
    kernels = {
        epoch: np.concatenate([np.full((784, 1), value), faint], axis=1)
        for epoch, value in ((0, 0.1), (5, 0.2), (6, -0.2))
    }
    save_weights_gif(kernels, tmp_path / "weights.gif")
    with Image.open(tmp_path / "weights.gif") as gif:
        assert (gif.format, gif.n_frames, gif.info["loop"]) == ("GIF", 3, 0)
        assert gif.info["duration"] == 500
        assert gif.size == (970, 480)
        colours = []
        for i in range(3):
            gif.seek(i)
            frame = np.asarray(gif.convert("RGB"))
            colours.append(frame[65, 70].astype(int))
            assert len(np.unique(frame[:, 882], axis=0)) > 100  # down the colour bar
    (faint_red, faint_green, _), (red, green, _), (_, _, blue) = colours
    assert faint_red > faint_green > green
    assert red > 2 * green
    assert blue > 2 * colours[2][0]
    # ColorBrewer's RdBu, https://colorbrewer2.org, to within the steps of the palette: its end, and
    # the middle between its second and its third red.
    np.testing.assert_allclose(colours[1], (103, 0, 31), atol=4)
    np.testing.assert_allclose(colours[0], (229, 131, 104), atol=4)


# ---- Predictions ----------------------------------------------------------------------------


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
        assert ("label" in cell.get_suptitle()) == (prediction.label is not None)
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


def test_a_long_title_stays_in_the_picture(predictions, tmp_path):
    named = predictions[0]._replace(title="/some/folder/" + "long" * 30 + "/$digit.png")
    figure = draw_predictions([named])
    save(figure, tmp_path / "a.png")
    figure.draw_without_rendering()  # for the extents
    title = figure.subfigs[0].get_suptitle()
    assert title.startswith("/some/folder")
    assert title.endswith("/$digit.png, label: c")
    (text,) = figure.subfigs[0].texts
    box = text.get_window_extent()
    assert box.x0 > 0
    assert box.x1 < figure.bbox.x1
    assert box.y1 <= figure.bbox.y1


# ---- Evaluation -----------------------------------------------------------------------------


LONG_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
              "Bag", "Ankle boot")  # fmt: skip


@pytest.fixture
def confusion() -> np.ndarray:
    """The class 3 does not occur."""
    counts = np.random.default_rng(0).integers(0, 30, (10, 10)) + 1000 * np.eye(10, dtype=int)
    counts[3] = 0
    return counts


def test_a_cell_of_the_confusion_matrix_is_its_count(confusion, tmp_path):
    figure = draw_confusion(confusion, LONG_NAMES)
    save(figure, tmp_path / "confusion.png")
    axes = figure.axes[0]
    said = {text.get_position(): text.get_text() for text in axes.texts}
    assert said == {(j, i): f"{confusion[i, j]:,}" for i in range(10) for j in range(10)}
    assert axes.get_ylabel().startswith("true")
    assert [label.get_text() for label in axes.get_yticklabels()] == list(LONG_NAMES)
    assert [label.get_text() for label in axes.get_xticklabels()] == list(LONG_NAMES)
    # Errors show: a count of 30 has a colour well away from that of 1.
    picture = axes.images[0]
    assert picture.norm(30) - picture.norm(1) > 0.4
    figure.draw_without_rendering()  # for the extents
    for label in (*axes.get_xticklabels(), *axes.get_yticklabels()):
        box = label.get_window_extent()
        assert box.x0 >= 0
        assert box.y0 >= 0


def test_accuracy_per_class(confusion, tmp_path):
    figure = draw_classes(confusion, LONG_NAMES)
    save(figure, tmp_path / "classes.png")
    axes = figure.axes[0]
    points = axes.containers[0].lines[0]
    expected = {i: confusion[i, i] / sum(confusion[i]) for i in range(10) if i != 3}
    assert dict(zip(points.get_ydata(), points.get_xdata(), strict=True)) == expected
    counts = [label.get_text() for label in axes.child_axes[0].get_yticklabels()]
    assert counts[3] == "no images"
    assert counts[9] == f"{confusion[9, 9]:,} of {confusion[9].sum():,}"


def test_calibration_shows_the_bins_that_have_images(tmp_path):
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.full(10, 0.3), 50)
    calibration = scoring.calibration(probabilities, rng.integers(0, 10, 50))
    figure = draw_calibration(calibration)
    save(figure, tmp_path / "calibration.png")
    curve, counts = figure.axes
    shown = calibration.images > 0
    assert {0, 1} < set(calibration.images)
    points = curve.containers[0].lines[0]
    np.testing.assert_array_equal(points.get_xdata(), calibration.confidence[shown])
    np.testing.assert_array_equal(points.get_ydata(), calibration.accuracy[shown])
    assert [bar.get_height() for bar in counts.patches] == calibration.images.tolist()
    assert f"{calibration.expected_error:.2%}" in counts.get_xlabel()


def test_mistakes_say_what_is_true_and_what_was_said(predictions, tmp_path):
    figure = draw_mistakes(predictions * 2, 1234)
    save(figure, tmp_path / "mistakes.png")
    assert figure.get_suptitle() == "8 of 1,234 mistakes, the most confident first"
    assert len(figure.axes) == 8
    for axes, mistake in zip(figure.axes, predictions * 2, strict=True):
        np.testing.assert_array_equal(axes.images[0].get_array(), mistake.image)
        name, truth, said = axes.get_title().splitlines()
        assert (name, truth) == (mistake.title, f"true: {mistake.label}")
        assert said == f"predicted: {mistake.likeliest}, {max(mistake.probabilities):.1%}"


def test_a_network_without_mistakes(tmp_path):
    labels = np.repeat([0, 1, 2, 4, 5, 6, 7, 8, 9], 10)
    confusion = scoring.confusion_matrix(np.eye(10)[labels], labels)
    figures = {
        "confusion": draw_confusion(confusion, NAMES),
        "classes": draw_classes(confusion, NAMES),
        "calibration": draw_calibration(scoring.calibration(np.eye(10)[labels], labels)),
        "mistakes": draw_mistakes([], 0),
    }
    for name, figure in figures.items():
        save(figure, tmp_path / f"{name}.png")
    assert figures["mistakes"].get_suptitle() == "No mistakes"


# ---- Files ----------------------------------------------------------------------------------


def test_the_ending_decides_the_format(predictions, tmp_path):
    figure = draw_predictions(predictions[:2])
    save(figure, tmp_path / "a.png")
    with Image.open(tmp_path / "a.png") as picture:
        assert picture.size == (2 * 780, 435)
        # Readable on a dark page too.
        assert picture.convert("RGBA").getpixel((0, 0)) == (255, 255, 255, 255)
    save(figure, tmp_path / "a.svg")
    assert "<svg" in (tmp_path / "a.svg").read_text()
    with pytest.raises(RequestError, match="'foo' is not supported"):
        save(figure, tmp_path / "a.foo")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.png", "a.svg"]
