"""What all pictures have in common: colours, axes, names, files."""

import io
import warnings
from pathlib import Path

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from flax_mnist.errors import RequestError
from flax_mnist.files import write_atomically

COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
"""Okabe and Ito's, safe for the colour-blind, https://jfly.uni-koeln.de/color/, but for their
yellow, which white ground swallows."""

BLUE, GREY = COLOURS[0], "#BBBBBB"

MARKERS = "osD^vP*X<>p"
"""11, beside 7 colours: no pair of them comes twice in 77 runs."""

LONGEST_NAME = 40
"""Characters."""


def open_axes(axes: Axes) -> None:
    """Axes with a faint grid, open above and to the right."""
    axes.grid(color="#E6E6E6")
    axes.spines[["top", "right"]].set_visible(False)


def percent(share: float, _: object) -> str:
    """How an axis writes a share: matplotlib's formatter of a value and its position."""
    return f"{100 * share:.6g}%"


def shortened(name: str) -> str:
    """The name; a long one without its middle."""
    name = name.encode(errors="replace").decode()  # that of a file need not be text
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}"


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
