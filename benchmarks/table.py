"""From a result to the table: aligned Markdown, to be read in a terminal and in a README alike."""

from __future__ import annotations

import dataclasses
import statistics
import textwrap
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.program import Settings, epoch_flops
from benchmarks.rows import COPY_SIZE, PEAK_SIZE
from benchmarks.scoring import Reference, is_valid
from benchmarks.statistics import Estimate, estimate, ratio, seconds_of_turn


@dataclasses.dataclass(frozen=True)
class Line:
    """What the table and the picture show of a row. None where there is nothing to show."""

    name: str
    label: str
    kind: str
    family: str
    status: str
    """ok, invalid, skipped or failed."""
    note: str | None = None
    """Why it is not ok, or how it was tuned."""
    step_seconds: Estimate | None = None
    """Of one step of one model."""
    images_per_second: Estimate | None = None
    to_tutorial: Estimate | None = None
    to_pytorch: Estimate | None = None
    """To the fastest valid PyTorch row under the headline rule."""
    of_products: Estimate | None = None
    """Of the rate of G1."""
    of_peak: float | None = None
    """Of the rate of G2."""
    rate: str | None = None
    """Of a ceiling that has no steps."""
    compile_seconds: float | None = None
    memory: int | None = None
    accuracy: float | None = None
    """Of several models, the mean."""


@dataclasses.dataclass(frozen=True)
class Summary:
    """The lines, and what they are held against."""

    lines: tuple[Line, ...]
    best_pytorch: str | None
    peak_flops: float | None
    """A second, in G2."""
    copy_bytes: float | None
    """Read and written a second, in G3."""


def summarize(result: Mapping[str, Any]) -> Summary:
    """Works out every figure from the samples of a result."""
    settings = Settings.from_json(result["settings"])
    n = result["machine"]["images"]
    steps = -(-n // settings.config.batch_size)
    reference = Reference(**result["reference"]) if result["reference"] else None
    rows = {row["name"]: row for row in result["rows"]}
    times = {name: epoch_times(row) for name, row in rows.items()}
    valid = {name: is_valid(row.get("scores", ()), reference) for name, row in rows.items()}

    def median(name: str) -> float | None:
        return statistics.median(times[name].values()) if times.get(name) else None

    peak = 2 * PEAK_SIZE**3 / seconds if (seconds := median("G2")) else None
    copy = 2 * 4 * COPY_SIZE / seconds if (seconds := median("G3")) else None
    contenders = {
        name: statistics.median(times[name].values())
        for name, row in rows.items()
        if (row["family"], row["kind"]) == ("pytorch", "headline")
        and times[name]
        and row["status"] == "ok"
        and valid[name] is not False
    }
    best = min(contenders, key=contenders.__getitem__) if contenders else None
    rates = {"G2": peak and f"{peak / 1e9:,.0f} GFLOP/s", "G3": copy and f"{copy / 1e9:.1f} GB/s"}

    def line(name: str) -> Line:
        row, mine = rows[name], times[name]
        fields = {key: row[key] for key in ("name", "label", "kind", "family")}
        status = "invalid" if valid[name] is False else row["status"]
        if not mine:
            return Line(**fields, status=status, note=row.get("reason"))
        epoch = estimate(list(mine.values()))
        trains = name not in rates
        scores = row.get("scores")
        models = f"{row['models']} models" if row["models"] > 1 else None
        wrong = status == "invalid" and "test accuracy " + ", ".join(f"{a:.1%}" for _, a in scores)
        fewer = f"median of {len(mine)} rounds" if len(mine) < result["plan"]["rounds"] else None
        tuned = [part for part in (wrong, models, fewer, tuning(row)) if part]
        return Line(
            **fields,
            status=status,
            note=row.get("reason") or ", ".join(tuned) or None,
            step_seconds=_scale(epoch, 1 / steps) if trains else None,
            images_per_second=_inverse(epoch, n) if trains else None,
            to_tutorial=ratio(times.get("P1", {}), mine) if trains else None,
            to_pytorch=ratio(times[best], mine) if trains and best else None,
            of_products=ratio(times.get("G1", {}), mine) if trains else None,
            of_peak=epoch_flops(settings.config, n) / epoch.value / peak
            if trains and peak
            else None,
            rate=rates.get(name) or None,
            compile_seconds=compile_seconds(row),
            memory=row.get("peak_memory"),
            accuracy=statistics.fmean(accuracy for _, accuracy in scores) if scores else None,
        )

    return Summary(tuple(line(name) for name in rows), best, peak, copy)


def epoch_times(row: Mapping[str, Any]) -> dict[int, float]:
    """Seconds an epoch of one model, by round."""
    per_call = row.get("models", 1) * row.get("epochs_per_call", 1)
    return {turn["round"]: seconds_of_turn(turn) / per_call for turn in row["turns"]}


def compile_seconds(row: Mapping[str, Any]) -> float:
    """Compiling beforehand, and what the first call took longer than the later ones."""
    usual = statistics.median(seconds_of_turn(turn) for turn in row["turns"])
    later: float = max(0.0, row["first_seconds"] - usual)
    return float(row["compile_seconds"]) + later


def tuning(row: Mapping[str, Any]) -> str | None:
    """How a row with several candidates was run, and how the others fared."""
    if not row.get("trials"):
        return row.get("variant")

    def label(trial: Mapping[str, Any]) -> str:
        threads = "1 thread" if trial["threads"] == 1 else f"{trial['threads']} threads"
        return f"{trial['variant']} {threads}" if trial["variant"] else threads

    def is_chosen(trial: Mapping[str, Any]) -> bool:
        return (trial["variant"], trial["threads"]) == (row["variant"], row["threads"])

    chosen = next(trial for trial in row["trials"] if is_chosen(trial))
    others = [
        f"{label(trial)} {trial['seconds'] / chosen['seconds']:.2f} x"
        if "seconds" in trial
        else f"{label(trial)} {trial['reason']}"
        for trial in row["trials"]
        if not is_chosen(trial)
    ]
    return f"{label(chosen)} (time of others: {', '.join(others)})"


def _scale(e: Estimate, factor: float) -> Estimate:
    return Estimate(e.value * factor, e.low * factor, e.high * factor)


def _inverse(e: Estimate, n: float) -> Estimate:
    return Estimate(n / e.value, n / e.high, n / e.low)


# ---- as text ------------------------------------------------------------------------------------

WIDTH = 110
"""Columns that fit a terminal and a README."""

HEADER = (
    "row", "µs/step", "images/s, 95 %", "x P1", "x torch", "%G1", "%peak", "comp.", "MB", "correct",
)  # fmt: skip


def render(result: Mapping[str, Any]) -> str:
    """The table, the whole processes' and the notes, as Markdown of at most 110 columns."""
    summary = summarize(result)
    parts = [heading(result), markdown(HEADER, [cells(line) for line in summary.lines])]
    if result.get("processes"):
        header = ("whole process, 5 epochs", "cold", "warm", "cold, x P1")
        parts.append(markdown(header, process_cells(result["processes"])))
    parts.append(
        "\n".join(
            textwrap.fill(note, WIDTH, subsequent_indent="  ") for note in notes(result, summary)
        )
    )
    return "\n\n".join(parts) + "\n"


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
    """In thousands, to three digits."""
    value, low, high = (f"{x / 1e3:.1f}" if x < 1e5 else f"{x / 1e3:.0f}" for x in rate)
    return f"{value}k {low}-{high}"


def process_cells(processes: Sequence[Mapping[str, Any]]) -> list[tuple[str, ...]]:
    """Lines of the table of whole processes."""
    medians = {
        p["name"]: {
            kind: statistics.median(run["seconds"] for run in p[kind]) if p[kind] else None
            for kind in ("cold", "warm")
        }
        for p in processes
    }
    tutorial = medians.get("P1", {}).get("cold")

    def cell(seconds: float | None) -> str:
        return f"{seconds:.1f} s" if seconds else ""

    return [
        (
            f"{p['name']} {p['label']}",
            cell(medians[p["name"]]["cold"]),
            cell(medians[p["name"]]["warm"]),
            f"{tutorial / cold:.1f}" if tutorial and (cold := medians[p["name"]]["cold"]) else "",
        )
        for p in processes
    ]


def notes(result: Mapping[str, Any], summary: Summary) -> list[str]:
    """What the figures mean, what is missing and why, and what speaks against them."""
    said = []
    if summary.best_pytorch:
        said.append(f"- x torch: against {summary.best_pytorch}, the fastest PyTorch row that ran.")
    if any(line.kind == "labelled" for line in summary.lines):
        said.append(
            "- \\*: not the headline rule (batch 64, float32, one network); a rate of many models "
            "is their sum, a step one model's share."
        )
    if result["reference"]:
        r = result["reference"]
        said.append(
            "- comp.: seconds of compiling; correct: test accuracy after 5 epochs, valid near "
            f"{r['accuracy']:.1%} and test loss {r['loss']:.3f} ({r['source']})."
        )
    imports = [
        f"{row['name']} {row['import_seconds']:.1f}" for row in result["rows"] if row["turns"]
    ]
    said.append(f"- Importing, before all else, took seconds: {', '.join(imports)}.")
    retaken = [f"{row['name']} {n}" for row in result["rows"] if (n := len(row["retaken"]))]
    if retaken:
        lag = result["plan"]["lag"]
        said.append(f"- Turns over {lag} x their row's best, taken again: {', '.join(retaken)}.")
    grouped: dict[str, list[str]] = {}
    for line in summary.lines:
        if line.note:
            problem = "" if line.status == "ok" else f"{line.status}: "
            grouped.setdefault(f"{problem}{line.note}", []).append(line.name)
    said += [f"- {', '.join(names)}: {note}." for note, names in grouped.items()]
    said += [f"- {warning}" for warning in warnings(result)]
    return said


def warnings(result: Mapping[str, Any]) -> list[str]:
    """What speaks against the figures."""
    said = []
    before = result["load_average"][0]
    if before is not None and before > 0.5:
        said.append(f"WARNING: other programs were running (load average {before} at the start).")
    held_back = [row["name"] for row in result["rows"] if lagged(row, result["plan"]["lag"])]
    if held_back:
        said.append(
            f"WARNING: {', '.join(held_back)} stayed behind their own best in most rounds: the "
            "machine had less to give than at other times. Run it again."
        )
    for row in result["rows"]:
        spun = [turn["idle_cpu_seconds"] for turn in row["turns"]]
        if spun and statistics.median(spun) > 0.5:
            said.append(
                f"WARNING: {row['name']} took {statistics.median(spun):.1f} s of the CPU between "
                "two of its turns."
            )
    return said


def lagged(row: Mapping[str, Any], lag: float) -> bool:
    """Whether a row's figure is that of turns that lag, though they were taken again."""
    turns = [seconds_of_turn(turn) for turn in row["turns"]]
    tried = [trial["seconds"] for trial in row.get("trials", ()) if "seconds" in trial]
    again = [seconds_of_turn(turn) for turn in row["retaken"]]
    return bool(turns) and statistics.median(turns) > lag * min(turns + again + tried)


def markdown(header: Sequence[str], lines: Sequence[Sequence[str]]) -> str:
    """An aligned table: numbers to the right, names to the left."""
    columns = list(zip(header, *lines, strict=True))
    widths = [max(3, *(len(cell) for cell in column)) for column in columns]
    left = [not any(c[:1].isdigit() for c in column[1:]) for column in columns]

    def text(row: Sequence[str]) -> str:
        padded = (
            cell.ljust(w) if to_left else cell.rjust(w)
            for cell, w, to_left in zip(row, widths, left, strict=True)
        )
        return f"| {' | '.join(padded)} |"

    rule = "|".join(
        "-" * (w + 2) if to_left else "-" * (w + 1) + ":"
        for w, to_left in zip(widths, left, strict=True)
    )
    return "\n".join([text(header), f"|{rule}|", *(text(row) for row in lines)])
