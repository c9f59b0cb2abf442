"""Rows of strings as an aligned table, for a terminal or for a document."""

import re
from collections.abc import Sequence

Rows = Sequence[Sequence[str]]

_NUMBER = re.compile(r"[-+±]?\d")


def plain(rows: Rows, sides: Sequence[str] | None = None) -> str:
    """Columns two spaces apart, as a terminal shows them.

    Args:
        rows: of cells, all as long as the first one, which is the header.
        sides: `<` or `>` for each column, to which its cells are moved; where it is not given,
            numbers to the right and names, as those in the first column, to the left.

    Raises:
        ValueError: rows, or a row and the sides, are not of the same length.
    """
    sides = sides or _sides(rows)
    return "\n".join("  ".join(row).rstrip() for row in _aligned(rows, sides, narrowest=0))


def markdown(rows: Rows, sides: Sequence[str] | None = None) -> str:
    """A table of Markdown that is as easy to read unrendered; arguments and errors as `plain`."""
    sides = sides or _sides(rows)
    # No cell is shorter than the shortest rule that every reader of Markdown knows: `--:`.
    header, *body = _aligned(rows, sides, narrowest=3)
    dashes = (
        "-" * (len(cell) + 1) + (":" if side == ">" else "-")
        for cell, side in zip(header, sides, strict=True)
    )
    lines = [f"| {' | '.join(row)} |" for row in (header, *body)]
    return "\n".join([lines[0], f"|{'|'.join(dashes)}|", *lines[1:]])


def _sides(rows: Rows) -> list[str]:
    """To the right where any cell under the header begins with a number."""
    _, *columns = zip(*rows, strict=True)
    return ["<", *(">" if any(map(_NUMBER.match, column[1:])) else "<" for column in columns)]


def _aligned(rows: Rows, sides: Sequence[str], narrowest: int) -> list[list[str]]:
    """The cells, each filled up to the width of its column."""
    widths = [max(narrowest, *map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)]
        for row in rows
    ]
