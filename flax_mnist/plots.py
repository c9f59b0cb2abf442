"""The pictures."""

from __future__ import annotations

import io
from collections.abc import Sequence
from pathlib import Path

from matplotlib.figure import Figure

from flax_mnist.errors import RequestError
from flax_mnist.files import write_atomically
from flax_mnist.prediction import Prediction

# Two of the colour-blind safe colours of Okabe and Ito, https://jfly.uni-koeln.de/color/.
BLUE, GREY = "#0072B2", "#BBBBBB"
COLUMNS = 3


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
        truth = "" if prediction.label is None else f"\nlabel: {prediction.label}"
        picture.set_title(prediction.title + truth, fontsize=9, wrap=True, parse_math=False)
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


def save(figure: Figure, path: Path) -> None:
    """Writes a figure in the format that the name's ending says, all of it or nothing.

    Raises:
        RequestError: matplotlib writes no such format.
    """
    file = io.BytesIO()
    try:
        figure.savefig(file, format=path.suffix.lstrip(".") or "png", dpi=150, facecolor="white")
    except ValueError as error:
        raise RequestError(f"{path}: {error}.") from error
    write_atomically(path, file.getvalue())
