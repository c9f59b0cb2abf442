"""Pictures of what a network makes of images: that they show the numbers they were given."""

from __future__ import annotations

import numpy as np
import pytest
from matplotlib.colors import to_hex

from flax_mnist import scoring
from flax_mnist.pictures.reading import Reading
from flax_mnist.show.figures import BLUE, GREY, save
from flax_mnist.show.prediction import Prediction
from flax_mnist.show.results import (
    draw_calibration,
    draw_classes,
    draw_confusion,
    draw_mistakes,
    draw_predictions,
)

# A layout that does not fit, a division by zero or a missing glyph is a failure.
pytestmark = pytest.mark.filterwarnings("error")

NAMES = tuple("abcdefghij")
LONG_NAMES = ("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat", "Sandal", "Shirt", "Sneaker",
              "Bag", "Ankle boot")  # fmt: skip


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
        right = prediction.label in (None, NAMES[np.argmax(widths)])
        colour = BLUE if right else "#D55E00"
        expected = [colour if i == np.argmax(widths) else GREY for i in range(10)]
        assert colours == expected
        assert [label.get_text() for label in bars.get_yticklabels()] == list(NAMES)
        assert bars.yaxis_inverted()  # the first class on top


def test_a_wrong_prediction_looks_wrong_and_the_field_has_a_frame(predictions):
    image, vermilion = predictions[0], "#D55E00"
    likeliest = image.likeliest
    known = [image._replace(label=label) for label in (likeliest, None, "none of them")]
    for cell, wrong in zip(draw_predictions(known).subfigs, (False, False, True), strict=True):
        picture, bars = cell.axes
        assert picture.axison  # all sides are drawn: where the 28x28 end is seen
        frames = {to_hex(spine.get_edgecolor()).upper() for spine in picture.spines.values()}
        assert frames == {vermilion if wrong else GREY}
        (colour,) = {to_hex(bar.get_facecolor()).upper() for bar in bars.patches} - {GREY}
        assert colour == (vermilion if wrong else BLUE)
        assert bars.get_title().endswith("wrong") == wrong


def test_a_title_is_nearer_to_its_picture_than_to_the_one_above(predictions, tmp_path):
    figure = draw_predictions(predictions)
    save(figure, tmp_path / "a.png")
    figure.draw_without_rendering()  # for the extents
    above, below = figure.subfigs[0], figure.subfigs[3]
    title = below.texts[0].get_window_extent()
    up = above.axes[1].get_tightbbox().y0 - title.y1
    down = title.y0 - below.axes[1].get_tightbbox().y1
    assert up > 3 * down > 0


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


def test_doubts_stay_above_their_picture(predictions, tmp_path):
    picture = np.full((300, 400, 1), 200, np.uint8)
    doubts = ("several digits are on it, of which the largest is read; " * 2, "it is faint")
    reading = Reading(predictions[0].image, picture, (10, 10, 90, 90), doubts)
    figure = draw_predictions([predictions[0]._replace(reading=reading)])
    save(figure, tmp_path / "a.png")
    figure.draw_without_rendering()  # for the extents
    picture_axes, image_axes, _ = figure.subfigs[0].axes
    box = picture_axes.title.get_window_extent()
    assert box.x0 > 0
    assert box.x1 < image_axes.get_window_extent().x0
    said = " ".join(picture_axes.get_title().split())
    assert said == f"{doubts[0].strip()} {doubts[1]}"


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
