"""The first layer's weights, a picture for each unit: after a training, and moving through it."""

import io
import math
from collections.abc import Mapping
from pathlib import Path

import numpy as np
from jaxtyping import Float
from matplotlib import colormaps
from matplotlib.figure import Figure
from PIL import Image

from flax_mnist.files import write_atomically
from flax_mnist.show.figures import GREY

MOST_UNITS, MOST_COLUMNS = 256, 16  #: That a picture shows.
TILE = 29  #: Pixels a side of a unit's 28x28 with the gap beside it.
DIVERGING = "RdBu_r"
SHORTEST_FRAME, LONGEST_FRAME, LONGEST_GIF, LAST_FRAME = 40, 500, 10_000, 3000  #: Milliseconds.


def draw_weights(kernel: Float[np.ndarray, "784 units"]) -> Figure:
    """The weights into each of the first `MOST_UNITS` units of the first layer, as 28x28 pixels."""
    units = kernel.shape[1]
    columns, rows = _grid(units)
    side = min(2.5, 8 / columns)
    figure = Figure(figsize=(1.7 + side * columns, 0.8 + side * rows), layout="compressed")
    axes = figure.subplots()
    bound = _bound(kernel)
    picture = axes.imshow(_mosaic(kernel), cmap=DIVERGING, vmin=-bound, vmax=bound)
    shown = f" (the first {MOST_UNITS} of {units:,})" if units > MOST_UNITS else ""
    axes.set_title(f"Weights into each hidden unit{shown}", fontsize=10)
    axes.set_xticks(TILE * np.arange(columns) + 13.5, [f"+{i}" for i in range(columns)])
    axes.set_yticks(TILE * np.arange(rows) + 13.5, [f"{columns * i}" for i in range(rows)])
    axes.set(ylabel="unit", facecolor=GREY)
    axes.tick_params(length=0, labelsize=7)
    axes.spines[:].set_visible(False)
    figure.colorbar(picture, label="weight", extend="both", aspect=5 * side * rows, pad=0.02)
    return figure


def save_weights_gif(kernels: Mapping[int, Float[np.ndarray, "784 units"]], path: Path) -> None:
    """Writes `draw_weights` of several epochs as an animated GIF, all of it or nothing.

    It rests on the last one before it begins again.

    The kernels are those after an epoch, by its number; 0 is before the first.
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
        figure.savefig(drawn, format="png", dpi=72)
        figure.set_layout_engine("none")  # all are laid out as the first one is
        frame = Image.open(drawn).convert("RGB")
        frames.append(frame.quantize(palette=palette, dither=Image.Dither.NONE))
    file = io.BytesIO()
    duration = min(LONGEST_FRAME, max(SHORTEST_FRAME, LONGEST_GIF // len(frames)))
    durations = [*[duration] * (len(frames) - 1), LAST_FRAME]
    frames[0].save(file, "GIF", save_all=True, append_images=frames[1:], duration=durations, loop=0)
    write_atomically(path, file.getvalue())


def _grid(units: int) -> tuple[int, int]:
    """Columns and rows of the pictures of so many units."""
    shown = min(units, MOST_UNITS)
    columns = min(shown, MOST_COLUMNS)
    return columns, math.ceil(shown / columns)


def _mosaic(kernel: Float[np.ndarray, "784 units"]) -> Float[np.ndarray, "height width"]:
    """The pictures of all units as one, with a pixel of NaN between two."""
    columns, rows = _grid(kernel.shape[1])
    images = kernel.T[:MOST_UNITS].reshape(-1, 28, 28)
    tiles = np.full((rows * columns, TILE, TILE), np.nan)
    tiles[: len(images), :28, :28] = images
    mosaic = tiles.reshape(rows, columns, TILE, TILE).swapaxes(1, 2)
    return mosaic.reshape(TILE * rows, TILE * columns)[:-1, :-1]


def _bound(kernel: Float[np.ndarray, "784 units"]) -> float:
    """Where the colours end. A few weights are so large that all others would look like zero."""
    return float(np.quantile(np.abs(kernel), 0.999))


def _palette() -> Image.Image:
    """The colours of a GIF: the weights', and greys for the rest. Fewer make a smaller file."""
    weights = colormaps[DIVERGING](np.linspace(0, 1, 56), bytes=True)[:, :3]
    greys = np.linspace(0, 255, 8)[:, None].repeat(3, axis=1)
    palette = Image.new("P", (1, 1))
    palette.putpalette(np.concatenate([weights, greys]).astype(np.uint8).tobytes())
    return palette
