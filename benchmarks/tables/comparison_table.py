"""A comparison as text, and as a picture."""

import textwrap
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.tables.comparison import Pair, Result, differences
from benchmarks.tables.picture import COLOURS
from benchmarks.tables.table import WIDTH, heading, short
from flax_mnist.show.text import markdown

MARKS = {"slower": " -", "faster": " +", "": ""}
PALETTE = ("#2f6f9f", "#d1603d", "#7a9e48", "#8a5fa8", "#c9a227")


def letters(count: int) -> list[str]:
    """What results are called: A, B, ..."""
    return [chr(ord("A") + number) for number in range(count)]


def render(
    results: Sequence[Result], names: Sequence[str], compared: Sequence[Mapping[str, Pair]]
) -> str:
    """Which results they are, in what they differ, and how fast the rows are."""
    called = letters(len(results))
    parts = [
        f"{letter}: {name}\n{textwrap.indent(heading(result, WIDTH - 3), '   ')}"
        for letter, name, result in zip(called, names, results, strict=True)
    ]
    for letter, result in zip(called[1:], results[1:], strict=True):
        found = differences(results[0], result)
        said = f"{letter} differs from A in: {'; '.join(found) or 'nothing'}."
        parts.append(textwrap.fill(said, WIDTH, subsequent_indent="  "))
    rows = dict.fromkeys(name for pairs in compared for name in pairs)
    if not rows:
        return "\n\n".join([*parts, "No row is in both, valid and with three turns."]) + "\n"
    header = ("row", "A, images/s", *(f"{letter} x A" for letter in called[1:]))
    table = markdown([header, *(_cells(name, results[0], compared) for name in rows)])
    note = (
        "x A: how many times as fast, with intervals that hold together with 95 %; + surely "
        "faster, - surely slower. On one machine they reach over what its ceilings, the G rows, "
        "did differently, and over what a row's trials took as it was tuned in the other result."
    )
    return "\n\n".join([*parts, table, textwrap.fill(note, WIDTH)]) + "\n"


def _cells(name: str, first: Result, compared: Sequence[Mapping[str, Pair]]) -> tuple[str, ...]:
    line = first["summary"]["rows"][name]
    rate = line["images_per_second"]
    base = f"{short(rate['value'])}k" if rate else line["rate"]
    shown = (_shown(pairs[name]) if name in pairs else "" for pairs in compared)
    return (f"{name} {line['label']}", base, *shown)


def _shown(pair: Pair) -> str:
    value, low, high = pair.speed
    return f"{value:.2f} {low:.2f}-{high:.2f}{MARKS[pair.verdict]}"


def draw(compared: Sequence[Mapping[str, Pair]], path: Path) -> None:
    """The ratios with their intervals, a colour for each result but the first.

    Raises:
        ImportError: matplotlib is not installed.
    """
    import matplotlib.figure

    labels = {name: pair.label for pairs in compared for name, pair in pairs.items()}
    places = {name: -number for number, name in enumerate(labels)}
    figure = matplotlib.figure.Figure((8, 1.6 + 0.36 * len(labels)), layout="constrained")
    panel: Any = figure.subplots()
    panel.axvline(1, color=COLOURS["ceilings"], lw=1)
    for number, (letter, pairs) in enumerate(zip(letters(9)[1:], compared, strict=False)):
        shift = 0.3 * (number - (len(compared) - 1) / 2) / max(1, len(compared) - 1)
        speeds = [pair.speed for pair in pairs.values()]
        panel.errorbar(
            [speed.value for speed in speeds],
            [places[name] - shift for name in pairs],
            xerr=[
                [speed.value - speed.low for speed in speeds],
                [speed.high - speed.value for speed in speeds],
            ],
            fmt="o", ms=4, lw=1, capsize=2, color=PALETTE[number % len(PALETTE)], label=letter,
        )  # fmt: skip
    panel.set_yticks(
        list(places.values()), [f"{label}  {name}" for name, label in labels.items()], fontsize=8
    )
    panel.set_xlabel("times as fast as in A (right is faster)")
    panel.grid(axis="x", alpha=0.3)
    panel.spines[["top", "right"]].set_visible(False)
    if len(compared) > 1:
        panel.legend()
    figure.savefig(path, dpi=130)
