"""What all pictures have in common: colours, names, files."""

from __future__ import annotations

import io
import warnings
from pathlib import Path

from matplotlib.figure import Figure

from flax_mnist.errors import RequestError
from flax_mnist.files import write_atomically

# The colour-blind safe colours of Okabe and Ito, https://jfly.uni-koeln.de/color/, but for their
# yellow, which white ground swallows.
COLOURS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9", "#000000")
BLUE, GREY = COLOURS[0], "#BBBBBB"


# 7 colours and 11 markers: no pair of them comes twice in 77 runs.
MARKERS = "osD^vP*X<>p"
LONGEST_NAME = 40


def shortened(name: str) -> str:
    """The name; a long one without its middle."""
    name = name.encode(errors="replace").decode()  # that of a file need not be text
    half = LONGEST_NAME // 2
    return name if len(name) <= LONGEST_NAME else f"{name[:half]}…{name[1 - half :]}"


def percent(share: float, _: object) -> str:
    """How an axis writes a share."""
    return f"{100 * share:.6g}%"


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
