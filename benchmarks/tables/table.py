"""From a result to the table and its notes: Markdown for a terminal and a README alike."""

import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness.schedule import seconds_of_turn
from benchmarks.tables.statistics import Estimate
from benchmarks.tables.summary import Line, Summary, summarize
from flax_mnist.show.text import markdown

WIDTH = 110  #: Columns that fit a terminal and a README.
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
    machine, config = result["machine"], result["settings"]["config"]
    shown = ("jax", "torch", "numpy", "keras", "tinygrad")
    there = [name for name in shown if name in machine["versions"]]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in there)
    return (
        f"{machine['device']}, {machine['cores']} cores; {versions}; Python "
        f"{machine['versions']['python']}\n{machine['dataset']}, {machine['images']:,} images an "
        f"epoch in batches of {config['batch_size']}; median of {result['plan']['rounds']} rounds; "
        f"{result['date'][:10]}, commit {machine['commit'] or 'unknown'}"
    )


def cells(line: Line) -> tuple[str, ...]:
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


def notes(result: Mapping[str, Any], summary: Summary) -> list[str]:
    """What the figures mean, what is missing and why, and what speaks against them."""
    said, rows = [], result["rows"]
    if summary.best_pytorch:
        said.append(f"- x torch: against {summary.best_pytorch}, the fastest PyTorch row that ran.")
    if any(line.kind == "labelled" for line in summary.lines):
        said.append(
            "- \\*: not the headline rule (batch 64, float32, one network); a rate of many models "
            "is their sum, a step one model's share."
        )
    if r := result["reference"]:
        said.append(
            "- comp.: seconds of compiling; correct: test accuracy after 5 epochs, valid near "
            f"{r['accuracy']:.1%} and test loss {r['loss']:.3f} ({r['source']})."
        )
    imports = [f"{row['name']} {row['import_seconds']:.1f}" for row in rows if row["turns"]]
    said.append(f"- Importing, before all else, took seconds: {', '.join(imports)}.")
    retaken = [f"{row['name']} {n}" for row in rows if (n := len(row["retaken"]))]
    if retaken:
        lag = result["plan"]["lag"]
        said.append(f"- Turns over {lag} x their row's best, taken again: {', '.join(retaken)}.")
    grouped: dict[str, list[str]] = {}
    for line in summary.lines:
        if line.note:
            problem = "" if line.status == "ok" else f"{line.status}: "
            grouped.setdefault(f"{problem}{line.note}", []).append(line.name)
    said += [f"- {', '.join(names)}: {note}." for note, names in grouped.items()]
    return said + [f"- {warning}" for warning in warnings(result)]


def warnings(result: Mapping[str, Any]) -> list[str]:
    said, before = [], result["load_average"][0]
    if before is not None and before > 0.5:
        said.append(f"WARNING: other programs were running (load average {before} at the start).")
    held_back = [row["name"] for row in result["rows"] if lagged(row, result["plan"]["lag"])]
    if held_back:
        said.append(
            f"WARNING: {', '.join(held_back)} stayed behind their own best in most rounds: the "
            "machine had less to give than at other times. Run it again."
        )
    for row in result["rows"]:
        spun = statistics.median([turn["idle_cpu_seconds"] for turn in row["turns"]] or [0])
        if spun > 0.5:
            took = f"{row['name']} took {spun:.1f} s of the CPU"
            said.append(f"WARNING: {took} between two of its turns.")
    return said


def lagged(row: Mapping[str, Any], lag: float) -> bool:
    """Whether a row's figure is that of turns that lag, though they were taken again."""
    turns = [seconds_of_turn(turn) for turn in row["turns"]]
    tried = [trial["seconds"] for trial in row.get("trials", ()) if "seconds" in trial]
    again = [seconds_of_turn(turn) for turn in row["retaken"]]
    return bool(turns) and statistics.median(turns) > lag * min(turns + again + tried)
