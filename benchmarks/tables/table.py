"""From a result to the table and its notes: Markdown for a terminal and a README alike."""

import statistics
import textwrap
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from benchmarks.harness.schedule import seconds_of_turn
from benchmarks.tables.statistics import Estimate, ratio
from benchmarks.tables.summary import Line, Summary, departures, epoch_times, summarize
from flax_mnist.config import Config
from flax_mnist.show.text import markdown

WIDTH = 80  #: Columns that fit a terminal and a README.
HEADER = ("row", "images/s, 95 %", "x P1", "x torch", "%G1", "correct")
COSTS = ("row", "µs/step", "%peak", "import", "comp.", "MB")
BUSY = 0.5  #: Programs that run besides, or cores that they take, of which there is a warning.


def render(result: Mapping[str, Any]) -> str:
    """The tables and the notes, as Markdown of at most 80 columns."""
    summary = summarize(result)
    there = [line for line in summary.lines if line.status != "skipped"]
    measured = [line for line in there if line.step_seconds]
    parts = [heading(result), *doubts(result, summary), markdown([HEADER, *map(cells, there)])]
    if measured:
        parts.append(markdown([COSTS, *map(cost_cells, measured)]))
    if result.get("processes"):
        header = ("whole process, 5 epochs", "cold", "warm", "cold, x P1")
        parts.append(markdown([header, *process_cells(result["processes"])]))
    said = (textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes(result, summary))
    return "\n\n".join([*parts, "\n".join(said)]) + "\n"


def one_line(result: Mapping[str, Any]) -> str:
    """The result for scripts: `J2 557k images/s, 2.38 x P5, 83 % of G1`.

    Of J2, or of the fastest row of the headline kind where it was not measured.
    """
    summary = summarize(result)
    fit = [line for line in summary.lines if line.images_per_second and line.status == "ok"]
    chosen = [line for line in fit if line.name == "J2"] or sorted(
        (line for line in fit if line.kind == "headline"),
        key=lambda line: -line.images_per_second.value if line.images_per_second else 0,
    )
    flaws = ["INVALID: "] if summary.impossible else ["PARTIAL: "] if result.get("partial") else []
    if not chosen:
        return "".join([*flaws, "no row was measured"])
    line, parts = chosen[0], []
    if line.images_per_second:
        parts.append(f"{line.name} {short(line.images_per_second.value)}k images/s")
    if line.to_pytorch and summary.best_pytorch != line.name:
        parts.append(f"{line.to_pytorch.value:.2f} x {summary.best_pytorch}")
    if line.of_products:
        parts.append(f"{line.of_products.value:.0%} of G1".replace("%", " %"))
    return "".join([*flaws, ", ".join(parts)])


def heading(result: Mapping[str, Any], width: int = WIDTH) -> str:
    """Where, with what and how it was measured."""
    machine, config = result["machine"], result["settings"]["config"]
    shown = ("jax", "torch", "numpy", "keras", "tinygrad", "equinox", "lightning", "scikit-learn")
    there = [name for name in shown if name in machine["versions"]]
    versions = ", ".join(f"{name} {machine['versions'][name]}" for name in there)
    where = (
        f"{machine['device']}, {machine['cores']} cores; Python {machine['versions']['python']}, "
        f"{versions}"
    )
    what = (
        f"{machine['dataset']}, {machine['images']:,} images an epoch in batches of "
        f"{config['batch_size']}; median of {result['plan']['rounds']} rounds; "
        f"{result['date'][:10]}, commit {machine['commit'] or 'unknown'}"
    )
    return "\n".join(textwrap.fill(part, width) for part in (where, what))


def doubts(result: Mapping[str, Any], summary: Summary) -> list[str]:
    """What makes the whole table worth less, paragraph by paragraph."""
    said = []
    if summary.impossible:
        said.append(
            f"INVALID: {', '.join(summary.impossible)}, which cannot be. Something else was "
            "running: measure again."
        )
    if result.get("partial"):
        said.append(f"PARTIAL: {result['partial']}.")
    changed = departures(Config(**result["settings"]["config"]))
    if changed:
        settings = ", ".join(f"{name} {value}" for name, value in changed.items())
        said.append(f"Not by the headline rule: {settings}.")
    return [textwrap.fill(paragraph, WIDTH) for paragraph in said]


def cells(line: Line) -> tuple[str, ...]:
    judged = "" if line.accuracy is None else f"{line.accuracy:.1%}"
    if line.status != "ok":
        judged = "INVALID" if line.status == "invalid" else line.status
    images = line.images_per_second
    return (
        name_of(line),
        with_interval(images) if images else line.rate or "",
        f"{line.to_tutorial.value:.3g}" if line.to_tutorial else "",
        f"{line.to_pytorch.value:.2f}" if line.to_pytorch else "",
        f"{100 * line.of_products.value:.0f}" if line.of_products else "",
        judged,
    )


def cost_cells(line: Line) -> tuple[str, ...]:
    step = line.step_seconds
    return (
        name_of(line),
        f"{step.value * 1e6:,.0f}" if step else "",
        f"{100 * line.of_peak:.3g}" if line.of_peak else "",
        f"{line.import_seconds:.1f}" if line.import_seconds is not None else "",
        f"{line.compile_seconds:.1f}" if line.compile_seconds is not None else "",
        f"{line.memory / 1e6:,.0f}" if line.memory else "",
    )


def name_of(line: Line) -> str:
    return f"{line.name} {line.label}{'*' if line.kind == 'labelled' else ''}"


def with_interval(rate: Estimate) -> str:
    """A rate and its interval in thousands, to three digits."""
    value, low, high = map(short, rate)
    return f"{value}k {low}-{high}"


def short(rate: float) -> str:
    """Thousands, to three digits."""
    return f"{rate / 1e3:.1f}" if rate < 1e5 else f"{rate / 1e3:.0f}"


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
    if rivals := against_j2(result, summary):
        times = ", ".join(f"{name} {_ahead(time)}" for name, time in rivals.items())
        said.append(
            f"- Time of others' headline rows by rounds, x J2: {times}. Where an interval stands, "
            "J2 is not surely faster."
        )
    if any(line.kind == "labelled" for line in summary.lines if line.status != "skipped"):
        said.append(
            "- \\*: not the headline rule (batch 64, float32, one network); a rate of many models "
            "is their sum, a step one model's share."
        )
    if r := result["reference"]:
        epochs = result["settings"]["config"]["epochs"]
        said.append(
            f"- correct: test accuracy after {epochs} epochs, valid near {r['accuracy']:.1%} and "
            f"test loss {r['loss']:.3f} ({r['source']}). import, comp.: seconds of importing and "
            "compiling."
        )
    retaken = [f"{row['name']} {n}" for row in rows if (n := len(row["retaken"]))]
    if retaken:
        lag = result["plan"]["lag"]
        said.append(f"- Turns over {lag} x their row's best, taken again: {', '.join(retaken)}.")
    said += [
        f"- {', '.join(names)}: {note}."
        for note, names in _by_note(line for line in summary.lines if line.status != "skipped")
    ]
    skipped = _by_note(line for line in summary.lines if line.status == "skipped")
    if skipped:
        reasons = "; ".join(f"{', '.join(names)}: {note}" for note, names in skipped)
        said.append(f"- Skipped: {reasons}.")
    return said + [f"- {warning}" for warning in warnings(result)]


def _ahead(time: Estimate) -> str:
    interval = f" ({time.low:.2f}-{time.high:.2f})" if time.low <= 1 else ""
    return f"{time.value:.3g}{interval}"


def against_j2(result: Mapping[str, Any], summary: Summary) -> dict[str, Estimate]:
    """How many times as long the headline rows of others took, round by round."""
    times = {row["name"]: epoch_times(row) for row in result["rows"]}
    others = (
        line.name
        for line in summary.lines
        if (line.kind, line.status) == ("headline", "ok") and line.family != "ours"
    )
    found = {name: ratio(times[name], times.get("J2", {})) for name in others}
    return {name: speed for name, speed in found.items() if speed}


def _by_note(lines: Iterable[Line]) -> list[tuple[str, list[str]]]:
    """Each note, and the names of the rows that have it."""
    grouped: dict[str, list[str]] = {}
    for line in lines:
        if line.note:
            problem = f"{line.status}: " if line.status in ("failed", "invalid") else ""
            grouped.setdefault(f"{problem}{line.note}", []).append(line.name)
    return list(grouped.items())


def warnings(result: Mapping[str, Any]) -> list[str]:
    said, before, taken = [], result["load_average"][0], result.get("others_cores")
    if before is not None and before > BUSY:
        said.append(f"WARNING: other programs were running (load average {before} at the start).")
    if taken is not None and taken > BUSY:
        cores = result["machine"]["cores"]
        said.append(f"WARNING: other programs took {taken} of the {cores} cores meanwhile.")
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
