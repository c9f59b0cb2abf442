"""The pictures."""

from __future__ import annotations

import io
import itertools
import math
import warnings
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
from matplotlib import colormaps
from matplotlib.colors import LogNorm
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator, StrMethodFormatter
from PIL import Image

from flax_mnist import scoring
from flax_mnist.errors import RequestError
from flax_mnist.files import write_atomically
from flax_mnist.prediction import Prediction
from flax_mnist.scoring import Calibration, Floats, Integers

if TYPE_CHECKING:
    from flax_mnist.train import Metrics

# The colour-blind safe colours of Okabe and Ito, https://jfly.uni-koeln.de/color/, but for their
# yellow, which white ground swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, GREY = COLOURS[0], "#BBBBBB"
# 7 colours and 11 markers: no pair of them comes twice in 77 runs.
MARKERS = "osD^vP*X<>p"
LINE: dict[str, Any] = {"linewidth": 1.2, "markersize": 4, "clip_on": False}
TRAINING: dict[str, Any] = {"linestyle": "--", "markerfacecolor": "white"}
LONGEST_NAME = 40
COLUMNS = 3
MISTAKE_COLUMNS = 5
MOST_WEIGHT_IMAGES, WEIGHT_COLUMNS = 256, 16
DIVERGING = "RdBu_r"


# ---- Training -------------------------------------------------------------------------------


def draw_curves(runs: Mapping[str, Sequence[Metrics]]) -> Figure:
    """Training and test loss, and test accuracy, against the epoch.

    Args:
        runs: the epochs of each run, by the name that the legend gives it.
    """
    columns = min(len(runs), 2)
    figure = Figure(figsize=(8, 3.4 + 0.2 * math.ceil(len(runs) / 2)), layout="constrained")
    loss, accuracy = figure.subplots(1, 2)
    handles = []
    looks = zip(itertools.cycle(COLOURS), itertools.cycle(MARKERS), strict=True)
    for rows, (colour, marker) in zip(runs.values(), looks, strict=False):
        epochs = [row.epoch for row in rows]
        every = math.ceil(len(rows) / 10)
        look: dict[str, Any] = {
            "color": colour,
            "marker": marker,
            "markevery": ((len(rows) - 1) % every, every),  # the last one among them
        }
        loss.plot(epochs, [row.train_loss for row in rows], **look, **LINE, **TRAINING)
        loss.plot(epochs, [row.test_loss for row in rows], **look, **LINE)
        handles += accuracy.plot(epochs, [row.test_accuracy for row in rows], **look, **LINE)
    loss.set_ylim(bottom=0)
    loss.set_ylabel("loss, nats")
    kinds = [Line2D([], [], color="black", marker="o", **LINE, **kind) for kind in (TRAINING, {})]
    loss.legend(
        kinds,
        ("training", "test"),
        loc="lower left",
        bbox_to_anchor=(0, 1),
        ncols=2,
        frameon=False,
    )
    last = max(row.epoch for rows in runs.values() for row in rows)
    pad = max(0.5, last / 30)
    for axes in (loss, accuracy):
        axes.set_xlabel("epoch")
        axes.set_xlim(1 - pad, last + pad)
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))
        axes.grid(color="#E6E6E6")
        axes.spines[["top", "right"]].set_visible(False)
    accuracy.set_ylabel("test accuracy")
    accuracy.set_ylim(top=min(accuracy.get_ylim()[1], 1))
    accuracy.yaxis.set_major_formatter(_percent)
    legend = figure.legend(
        handles,
        [_shortened(name) for name in runs],
        loc="outside lower center",
        ncols=columns,
        frameon=False,
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    return figure


def _shortened(name: str) -> str:
    """The name; a long one without its middle."""
    name = name.encode(errors="replace").decode()  # that of a file need not be text
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}"


# ---- Weights --------------------------------------------------------------------------------


def draw_weights(kernel: Floats) -> Figure:
    """The weights into each unit of the first layer as a picture of 28x28.

    Args:
        kernel: `[784, units]`; the first `MOST_WEIGHT_IMAGES` units are shown.
    """
    units = kernel.shape[1]
    columns, rows = _grid(units)
    side = min(2.5, 8 / columns)
    figure = Figure(figsize=(1.7 + side * columns, 0.8 + side * rows), layout="compressed")
    axes = figure.subplots()
    bound = _bound(kernel)
    picture = axes.imshow(_mosaic(kernel), cmap=DIVERGING, vmin=-bound, vmax=bound)
    axes.set_facecolor(GREY)
    shown = f" (the first {MOST_WEIGHT_IMAGES} of {units:,})" if units > MOST_WEIGHT_IMAGES else ""
    axes.set_title(f"Weights into each hidden unit{shown}", fontsize=10)
    axes.set_xticks(29 * np.arange(columns) + 13.5, [f"+{i}" for i in range(columns)])
    axes.set_yticks(29 * np.arange(rows) + 13.5, [f"{columns * i}" for i in range(rows)])
    axes.set_ylabel("unit")
    axes.tick_params(length=0, labelsize=7)
    axes.spines[:].set_visible(False)
    figure.colorbar(picture, label="weight", extend="both", aspect=5 * side * rows, pad=0.02)
    return figure


def save_weights_gif(kernels: Mapping[int, Floats], path: Path) -> None:
    """Writes `draw_weights` of several epochs as an animated GIF, all of it or nothing.

    Args:
        kernels: `[784, units]` after an epoch, by its number; 0 is before the first.
        path: the file.
    """
    figure = draw_weights(next(iter(kernels.values())))
    axes = figure.axes[0]
    picture, title = axes.images[0], axes.get_title()
    bound = max(map(_bound, kernels.values()))
    picture.set_clim(-bound, bound)
    palette = _palette()
    frames = []
    for epoch, kernel in kernels.items():
        picture.set_data(_mosaic(kernel))
        axes.set_title(f"{title}, epoch {epoch}", fontsize=10)
        drawn = io.BytesIO()
        figure.savefig(drawn, format="png", dpi=100)
        figure.set_layout_engine("none")  # all are laid out as the first one is
        frame = Image.open(drawn).convert("RGB")
        frames.append(frame.quantize(palette=palette, dither=Image.Dither.NONE))
    file = io.BytesIO()
    milliseconds = min(500, max(40, 10_000 // len(frames)))
    frames[0].save(
        file, "GIF", save_all=True, append_images=frames[1:], duration=milliseconds, loop=0
    )
    write_atomically(path, file.getvalue())


def _grid(units: int) -> tuple[int, int]:
    """Columns and rows of the pictures of so many units."""
    shown = min(units, MOST_WEIGHT_IMAGES)
    columns = min(shown, WEIGHT_COLUMNS)
    return columns, math.ceil(shown / columns)


def _mosaic(kernel: Floats) -> Floats:
    """The pictures of all units as one, with a pixel of NaN between two."""
    columns, rows = _grid(kernel.shape[1])
    images = kernel.T[:MOST_WEIGHT_IMAGES].reshape(-1, 28, 28)
    tiles = np.full((rows * columns, 29, 29), np.nan)
    tiles[: len(images), :28, :28] = images
    mosaic = tiles.reshape(rows, columns, 29, 29).swapaxes(1, 2)
    return mosaic.reshape(29 * rows, 29 * columns)[:-1, :-1]


def _bound(kernel: Floats) -> float:
    """Where the colours end. A few weights are so large that all others would look like zero."""
    return float(np.quantile(np.abs(kernel), 0.999))


def _palette() -> Image.Image:
    """The 256 colours of a GIF: the weights', and greys for the rest."""
    weights = colormaps[DIVERGING](np.linspace(0, 1, 216), bytes=True)[:, :3]
    greys = np.linspace(0, 255, 40)[:, None].repeat(3, axis=1)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([weights, greys]).astype(np.uint8).tobytes())
    return palette


# ---- Predictions ----------------------------------------------------------------------------


def draw_predictions(predictions: Sequence[Prediction]) -> Figure:
    """Each image beside a bar for each class, the likeliest in colour, as the tutorial ends."""
    columns = min(len(predictions), COLUMNS)
    rows = -(-len(predictions) // columns)
    figure = Figure(figsize=(5.2 * columns, 2.9 * rows), layout="constrained")
    cells = figure.subfigures(rows, columns, squeeze=False).flat
    for cell, prediction in zip(cells, predictions, strict=False):
        picture, bars = cell.subplots(1, 2, width_ratios=(1, 1.1))
        picture.imshow(prediction.image, cmap="gray_r", vmin=0, vmax=255)
        picture.set_axis_off()
        truth = "" if prediction.label is None else f", label: {prediction.label}"
        cell.suptitle(_shortened(prediction.title) + truth, fontsize=9, parse_math=False)
        colours = [BLUE if name == prediction.likeliest else GREY for name in prediction.names]
        bars.barh(prediction.names, prediction.probabilities, color=colours)
        bars.invert_yaxis()
        bars.set_xlim(0, 1)
        bars.set_xlabel("probability")
        bars.set_title(
            f"{prediction.likeliest}: {max(prediction.probabilities):.1%}", fontsize=9, color=BLUE
        )
        bars.spines[["top", "right"]].set_visible(False)
    return figure


# ---- Evaluation -----------------------------------------------------------------------------


def draw_confusion(confusion: Integers, names: Sequence[str]) -> Figure:
    """How many images of a class (rows) are said to be of which (columns).

    Args:
        confusion: `[classes, classes]`, as `scoring.confusion_matrix`.
        names: of the classes.
    """
    figure = Figure(figsize=(7.2, 6.2), layout="compressed")
    axes = figure.subplots()
    # Of a good network all but the diagonal would be white on a scale that is not logarithmic.
    scale = LogNorm(1, max(confusion.max(), 10))
    picture = axes.imshow(np.ma.masked_equal(confusion, 0), cmap="Blues", norm=scale)
    for (row, column), count in np.ndenumerate(confusion):
        ink = "white" if count > scale.inverse(0.6) else "black" if count else GREY
        axes.text(column, row, f"{count:,}", ha="center", va="center", fontsize=8, color=ink)
    places = range(len(names))
    slant: dict[str, Any] = {"rotation": 45, "ha": "right", "rotation_mode": "anchor"}
    axes.set_xticks(places, names, **(slant if max(map(len, names)) > 4 else {}))
    axes.set_yticks(places, names)
    axes.set_xlabel("predicted class")
    axes.set_ylabel("true class")
    axes.set_title(f"{confusion.trace():,} of {confusion.sum():,} images are classified rightly")
    figure.colorbar(picture, label="images", format=StrMethodFormatter("{x:,.0f}"))
    return figure


def draw_classes(confusion: Integers, names: Sequence[str]) -> Figure:
    """Accuracy of each class with its 95 % interval; arguments as `draw_confusion`'s."""
    right, images = confusion.diagonal(), confusion.sum(axis=1)
    figure = Figure(figsize=(7.2, 4), layout="constrained")
    axes = figure.subplots()
    shown = np.flatnonzero(images)
    accuracy = scoring.class_accuracy(confusion)
    overall = right.sum() / images.sum()
    bars = _error_bars(accuracy, right, images)
    axes.errorbar(accuracy[shown], shown, xerr=bars[:, shown], fmt="o", color=BLUE, capsize=3)
    axes.axvline(overall, color=GREY, linestyle="--", zorder=0)
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.set_xlim(right=min(axes.get_xlim()[1], 1.005))
    axes.xaxis.set_major_formatter(_percent)
    axes.set_xlabel(f"accuracy, with 95 % intervals; dashed: {overall:.2%} over all classes")
    axes.grid(color="#E6E6E6")
    axes.spines[["top", "right"]].set_visible(False)
    counts = axes.secondary_yaxis("right")
    counts.set_yticks(
        range(len(names)),
        [f"{k:,} of {n:,}" if n else "no images" for k, n in zip(right, images, strict=True)],
    )
    counts.tick_params(length=0)
    counts.spines["right"].set_visible(False)
    return figure


def draw_calibration(calibration: Calibration) -> Figure:
    """Accuracy against confidence, and how many images there are of each confidence."""
    edges, images, right, confidence = calibration
    figure = Figure(figsize=(5, 6), layout="constrained")
    curve, counts = figure.subplots(2, 1, sharex=True, height_ratios=(3, 1))
    shown = images > 0
    bars = _error_bars(calibration.accuracy, right, images)
    curve.plot([0, 1], [0, 1], color=GREY, linestyle="--", label="as often right as it says")
    curve.errorbar(
        confidence[shown],
        calibration.accuracy[shown],
        yerr=bars[:, shown],
        fmt="o-",
        color=BLUE,
        capsize=3,
        label="this network, with 95 % intervals",
    )
    curve.legend(loc="lower left", bbox_to_anchor=(0, 1), frameon=False)
    curve.set_ylabel("accuracy")
    curve.yaxis.set_major_formatter(_percent)
    curve.set_xlim(-0.02, 1.02)
    curve.set_ylim(-0.02, 1.02)
    curve.grid(color="#E6E6E6")
    columns = counts.bar(edges[:-1], images, np.diff(edges), align="edge", color=BLUE, ec="white")
    counts.bar_label(columns, [f"{n:,}" if n else "" for n in images], fontsize=8, padding=2)
    counts.margins(y=0.2)
    counts.set_yticks([])
    counts.set_ylabel("images")
    counts.set_xlabel(
        "confidence: the probability of the class that is predicted\n"
        f"expected calibration error: {calibration.expected_error:.2%}"
    )
    counts.xaxis.set_major_formatter(_percent)
    for axes in (curve, counts):
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _error_bars(share: Floats, right: Integers, images: Integers) -> Floats:
    """`[2, n]`: how far the 95 % interval reaches below and above."""
    low, high = scoring.interval(right, images)
    return np.maximum([share - low, high - share], 0)


def draw_mistakes(mistakes: Sequence[Prediction], count: int) -> Figure:
    """Images that are classified wrongly.

    Args:
        mistakes: those that are shown, the most confident ones first.
        count: how many there are in all.
    """
    rows = math.ceil(len(mistakes) / MISTAKE_COLUMNS)
    figure = Figure(figsize=(10, 0.6 + 2.3 * rows), layout="constrained")
    some = f"{len(mistakes)} of {count:,} mistakes, the most confident first"
    figure.suptitle(some if mistakes else "No mistakes")
    for i, mistake in enumerate(mistakes, start=1):
        axes = figure.add_subplot(rows, MISTAKE_COLUMNS, i, xticks=[], yticks=[])
        axes.imshow(mistake.image, cmap="gray_r", vmin=0, vmax=255)
        axes.spines[:].set_color(GREY)
        axes.set_title(
            f"{mistake.title}\ntrue: {mistake.label}\n"
            f"predicted: {mistake.likeliest}, {max(mistake.probabilities):.1%}",
            fontsize=7.5,
        )
    return figure


def _percent(share: float, _: object) -> str:
    return f"{100 * share:.6g}%"


# ---- Files ----------------------------------------------------------------------------------


def save(figure: Figure, path: Path) -> None:
    """Writes a figure in the format that the name's ending says, all of it or nothing.

    Raises:
        RequestError: matplotlib writes no such format.
    """
    file = io.BytesIO()
    with warnings.catch_warnings():
        # What matplotlib's font lacks, it draws as a box.
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        try:
            figure.savefig(file, format=path.suffix.lstrip(".") or "png", dpi=150)
        except ValueError as error:
            raise RequestError(f"{path}: {error}.") from error
    write_atomically(path, file.getvalue())
