"""What stands below the table: what its figures mean, and what speaks against them."""

import statistics
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.stopwatch import seconds_of_turn
from benchmarks.tables.summary import Summary


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
