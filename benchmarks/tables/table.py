"""From a result to the table: aligned Markdown, to be read in a terminal and in a README alike."""

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.tables.notes import notes
from benchmarks.tables.statistics import Estimate
from benchmarks.tables.summary import Line, summarize
from flax_mnist.show.text import markdown

WIDTH = 110
"""Columns that fit a terminal and a README."""

HEADER = (
    "row", "µs/step", "images/s, 95 %", "x P1", "x torch", "%G1", "%peak", "comp.", "MB", "correct",
)  # fmt: skip


def render(result: Mapping[str, Any]) -> str:
    """The table, the whole processes' and the notes, as Markdown of at most 110 columns."""
    summary = summarize(result)
    parts = [heading(result), markdown([HEADER, *map(cells, summary.lines)])]
    if result.get("processes"):
        header = ("whole process, 5 epochs", "cold", "warm", "cold, x P1")
        parts.append(markdown([header, *process_cells(result["processes"])]))
    said = (textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes(result, summary))
    return "\n\n".join([*parts, "\n".join(said)]) + "\n"


def heading(result: Mapping[str, Any]) -> str:
    """On what machine, when, with what."""
    machine, config = result["machine"], result["settings"]["config"]
    versions = ", ".join(
        f"{name} {machine['versions'][name]}"
        for name in ("jax", "torch", "numpy", "keras", "tinygrad")
        if name in machine["versions"]
    )
    return (
        f"{machine['device']}, {machine['cores']} cores; {versions}; Python "
        f"{machine['versions']['python']}\n{machine['dataset']}, {machine['images']:,} images an "
        f"epoch in batches of {config['batch_size']}; median of {result['plan']['rounds']} rounds; "
        f"{result['date'][:10]}, commit {machine['commit'] or 'unknown'}"
    )


def cells(line: Line) -> tuple[str, ...]:
    """A line of the table."""
    judged = "" if line.accuracy is None else f"{line.accuracy:.1%}"
    if line.status != "ok":
        judged = "INVALID" if line.status == "invalid" else line.status
    step, images = line.step_seconds, line.images_per_second
    mark = "*" if line.kind == "labelled" else ""
    return (
        f"{line.name} {line.label}{mark}",
        f"{step.value * 1e6:,.0f}" if step else "",
        with_interval(images) if images else line.rate or "",
        f"{line.to_tutorial.value:.3g}" if line.to_tutorial else "",
        f"{line.to_pytorch.value:.2f}" if line.to_pytorch else "",
        f"{100 * line.of_products.value:.0f}" if line.of_products else "",
        f"{100 * line.of_peak:.3g}" if line.of_peak else "",
        f"{line.compile_seconds:.1f}" if line.compile_seconds is not None else "",
        f"{line.memory / 1e6:,.0f}" if line.memory else "",
        judged,
    )


def with_interval(rate: Estimate) -> str:
    """A rate and its interval in thousands, to three digits."""
    value, low, high = (f"{x / 1e3:.1f}" if x < 1e5 else f"{x / 1e3:.0f}" for x in rate)
    return f"{value}k {low}-{high}"


def process_cells(processes: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Lines of the table of whole processes."""

    def median(process: Mapping[str, Any], kind: str) -> float | None:
        seconds = [run["seconds"] for run in process[kind]]
        return statistics.median(seconds) if seconds else None

    tutorial = next((median(p, "cold") for p in processes if p["name"] == "P1"), None)
    lines = []
    for process in processes:
        cold, warm = median(process, "cold"), median(process, "warm")
        times = (f"{seconds:.1f} s" if seconds else "" for seconds in (cold, warm))
        share = f"{tutorial / cold:.1f}" if tutorial and cold else ""
        lines.append((f"{process['name']} {process['label']}", *times, share))
    return lines
