"""What a trained network makes of images: pictures, and the folder that holds those of a test."""

import json
import math
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Int
from matplotlib.axes import Axes
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from matplotlib.ticker import StrMethodFormatter

from flax_mnist import scoring
from flax_mnist.data.dataset import Dataset
from flax_mnist.errors import RequestError
from flax_mnist.files import write_atomically
from flax_mnist.scoring import Calibration
from flax_mnist.show.figures import BLUE, GREY, VERMILION, open_axes, percent, save, shortened
from flax_mnist.show.prediction import Prediction

PREDICTION_COLUMNS, MISTAKE_COLUMNS = 3, 5
DOUBT_COLUMNS = 40  #: Characters in the title of a picture.
MOST_MISTAKES = 25  #: In a report.


class Findings(NamedTuple):
    """What a network makes of the test images of a dataset."""

    dataset: Dataset
    loss: float  #: Mean over the test images, nats; finite.
    probabilities: Float[np.ndarray, "n classes"]  #: Of the classes of the test images.

    @property
    def confusion(self) -> Int[np.ndarray, "classes classes"]:
        """How many images of the row's class are said to be of the column's."""
        return scoring.confusion_matrix(self.probabilities, self.dataset.test.labels)

    def mistakes(self, most: int) -> list[Prediction]:
        """The images that are classified wrongly, the highest confidence first; at most so many."""
        (images, labels), names = self.dataset.test, self.dataset.class_names
        rows = self.probabilities
        return [
            Prediction(f"test image {i}", images[i], names[labels[i]], names, rows[i].tolist())
            for i in scoring.confident_mistakes(rows, labels, most)
        ]


def make_report_folder(folder: Path) -> None:
    """Makes the folder, unless it is there. Raises RequestError if a file stands in its way."""
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise RequestError(f"{folder}: a file stands in the way of that folder.") from error


def write_report(folder: Path, findings: Findings) -> None:
    """Writes confusion, classes, mistakes and calibration as `.png`, and `report.json`."""
    dataset, loss, probabilities = findings
    names, labels, confusion = dataset.class_names, dataset.test.labels, findings.confusion
    wrong = int(confusion.sum() - confusion.trace())
    pictures = {
        "confusion": draw_confusion(confusion, names),
        "classes": draw_classes(confusion, names),
        "mistakes": draw_mistakes(findings.mistakes(MOST_MISTAKES), wrong),
        "calibration": draw_calibration(scoring.calibration(probabilities, labels)),
    }
    for name, picture in pictures.items():
        save(picture, folder / f"{name}.png")
    content = {
        "dataset": {"name": dataset.name, "source": dataset.source},
        "test_loss": loss,
        **scoring.summary(probabilities, labels, names, MOST_MISTAKES),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "report.json", f"{text}\n".encode())


def draw_confusion(confusion: Int[np.ndarray, "classes classes"], names: Sequence[str]) -> Figure:
    """How many images of a class (rows) are said to be of which (columns)."""
    figure = Figure(figsize=(7.2, 6.2), layout="compressed")
    axes = figure.subplots()
    # Of a good network all but the diagonal would be white on a scale that is not logarithmic.
    scale = LogNorm(1, max(confusion.max(), 10))
    picture = axes.imshow(np.ma.masked_equal(confusion, 0), cmap="Blues", norm=scale)
    for (row, column), count in np.ndenumerate(confusion):
        ink = "white" if count > scale.inverse(0.6) else "black" if count else GREY
        axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8, color=ink)
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), names, **(slant if max(map(len, names)) > 4 else {}))
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted class", ylabel="true class")
    axes.set_title(f"{confusion.trace():,} of {confusion.sum():,} images are classified rightly")
    figure.colorbar(picture, label="images", format=StrMethodFormatter("{x:,.0f}"))
    return figure


def draw_classes(confusion: Int[np.ndarray, "classes classes"], names: Sequence[str]) -> Figure:
    """Accuracy of each class with its 95 % interval, from the confusion matrix."""
    right, images = confusion.diagonal(), confusion.sum(axis=1)
    figure = Figure(figsize=(7.2, 4), layout="constrained")
    axes = figure.subplots()
    shown = np.flatnonzero(images)
    accuracy, overall = scoring.class_accuracy(confusion), right.sum() / images.sum()
    bars = _error_bars(accuracy, right, images)
    axes.errorbar(accuracy[shown], shown, xerr=bars[:, shown], fmt="o", color=BLUE, capsize=3)
    axes.axvline(overall, color=GREY, linestyle="--", zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set(ylim=(len(names) - 0.5, -0.5), xlim=(None, min(axes.get_xlim()[1], 1.005)))
    axes.xaxis.set_major_formatter(percent)
    axes.set_xlabel(f"accuracy, with 95 % intervals; dashed: {overall:.2%} over all classes")
    open_axes(axes)
    counts = axes.secondary_yaxis("right")
    said = [f"{k:,} of {n:,}" if n else "no images" for k, n in zip(right, images, strict=True)]
    counts.set_yticks(range(len(names)), said)
    counts.tick_params(length=0)
    counts.spines["right"].set_visible(False)
    return figure


def draw_calibration(calibration: Calibration) -> Figure:
    """Accuracy against confidence, and how many images there are of each confidence."""
    edges, images, right, confidence = calibration
    figure = Figure(figsize=(5, 6), layout="constrained")
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    shown = images > 0
    x, y = confidence[shown], calibration.accuracy[shown]
    bars = _error_bars(y, right[shown], images[shown])
    curve.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as often right as it says")
    label = "this network, with 95 % intervals"
    curve.errorbar(x, y, yerr=bars, fmt="o-", color=BLUE, capsize=3, label=label)
    curve.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    curve.set(ylabel="accuracy", xlim=(-0.02, 1.02), ylim=(-0.02, 1.02))
    curve.yaxis.set_major_formatter(percent)
    open_axes(curve)
    columns = counts.bar(edges[:-1], images, np.diff(edges), align="edge", color=BLUE, ec="white")
    counts.bar_label(columns, [f"{n:,}" if n else "" for n in images], fontsize=8, padding=2)
    counts.margins(y=0.2)
    error = f"expected calibration error: {calibration.expected_error:.2%}"
    confidence_label = f"confidence: the probability of the class that is predicted\n{error}"
    counts.set(xlabel=confidence_label, ylabel="images", yticks=[])
    counts.xaxis.set_major_formatter(percent)
    counts.spines[["top", "right"]].set_visible(False)
    return figure


def _error_bars(
    share: Float[np.ndarray, " n"], right: Int[np.ndarray, " n"], images: Int[np.ndarray, " n"]
) -> Float[np.ndarray, "2 n"]:
    """How far the 95 % interval reaches below and above."""
    low, high = scoring.interval(right, images)
    return np.maximum([share - low, high - share], 0)


def draw_mistakes(mistakes: Sequence[Prediction], count: int) -> Figure:
    """Images that are classified wrongly, out of `count` such; the most confident come first."""
    rows = math.ceil(len(mistakes) / MISTAKE_COLUMNS)
    figure = Figure(figsize=(10, 0.6 + 2.3 * rows), layout="constrained")
    some = f"{len(mistakes)} of {count:,} mistakes, the most confident first"
    figure.suptitle(some if mistakes else "No mistakes")
    for i, mistake in enumerate(mistakes, start=1):
        axes = figure.add_subplot(rows, MISTAKE_COLUMNS, i)
        _draw_image(axes, mistake, GREY)
        said = f"predicted: {mistake.likeliest}, {mistake.confidence:.1%}"
        axes.set_title(f"{mistake.title}\ntrue: {mistake.label}\n{said}", fontsize=7.5)
    return figure


def draw_predictions(predictions: Sequence[Prediction]) -> Figure:
    """Each image beside a bar for each class, the likeliest in colour, as the tutorial ends.

    Where it is not the label it is of another colour, as is the image's frame, and is said to be
    wrong. Of those that were found on a picture it comes first, a box around what was read.
    """
    columns = min(len(predictions), PREDICTION_COLUMNS)
    rows = math.ceil(len(predictions) / columns)
    pictured = any(prediction.reading for prediction in predictions)
    figure = Figure(
        figsize=((7.8 if pictured else 5.2) * columns, 3.1 * rows), layout="constrained"
    )
    # A title is nearer to its picture than to the one above.
    cells = figure.subfigures(rows, columns, squeeze=False, hspace=0.1).flat
    for cell, prediction in zip(cells, predictions, strict=False):
        widths = (1.2, 1, 1.1) if pictured else (1, 1.1)
        *found_on, picture, bars = cell.subplots(1, len(widths), width_ratios=widths)
        for axes in found_on:
            _draw_picture(axes, prediction)
        colour = VERMILION if prediction.is_wrong else BLUE
        _draw_image(picture, prediction, VERMILION if prediction.is_wrong else GREY)
        truth = "" if prediction.label is None else f", label: {prediction.label}"
        cell.suptitle(shortened(prediction.title) + truth, fontsize=9, parse_math=False)
        colours = [colour if name == prediction.likeliest else GREY for name in prediction.names]
        bars.barh(prediction.names, prediction.probabilities, color=colours)
        bars.invert_yaxis()
        bars.set(xlim=(0, 1), xlabel="probability")
        said = f"{prediction.likeliest}: {prediction.confidence:.1%}"
        bars.set_title(said + ", wrong" * prediction.is_wrong, fontsize=9, color=colour)
        bars.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_image(axes: Axes, prediction: Prediction, frame: str) -> None:
    axes.imshow(prediction.image, cmap="gray_r", vmin=0, vmax=255)
    axes.set(xticks=[], yticks=[])
    axes.spines[:].set_color(frame)


def _draw_picture(axes: Axes, prediction: Prediction) -> None:
    axes.set_axis_off()
    if prediction.reading is None:
        return
    _, picture, (top, left, bottom, right), doubts = prediction.reading
    axes.imshow(np.broadcast_to(picture, (*picture.shape[:2], 3)))
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, fill=False, edgecolor=BLUE))
    axes.set_title("\n".join(textwrap.fill(doubt, DOUBT_COLUMNS) for doubt in doubts), fontsize=7.5)
