"""From a result to the figures of each row, which the table and the picture show."""

import dataclasses
import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from benchmarks.harness.judge import Reference, is_valid
from benchmarks.harness.program import Settings, epoch_flops
from benchmarks.harness.schedule import seconds_of_turn
from benchmarks.rows import COPY_SIZE, PEAK_SIZE
from benchmarks.tables.statistics import Estimate, estimate, ratio
from flax_mnist.config import Config
from flax_mnist.data.order import steps_per_epoch

#: The settings of which the headline rule speaks; others change what is trained, not how fast.
RULED = ("batch_size", "hidden_sizes", "momentum", "precision")
#: Shares that are beyond what is possible, with room for noise: of a large product's rate for any
#: row, of the eight products' for one that trains a single network.
MOST_OF_PEAK, MOST_OF_PRODUCTS = 1.15, 1.3


@dataclasses.dataclass(frozen=True)
class Line:
    """What the table and the picture show of a row. None where there is nothing to show."""

    name: str
    label: str
    kind: str
    family: str
    status: str  #: ok, invalid, skipped or failed.
    note: str | None = None  #: Why it is not ok, or how it was tuned.
    step_seconds: Estimate | None = None  #: Of one step of one model.
    images_per_second: Estimate | None = None
    to_tutorial: Estimate | None = None
    to_pytorch: Estimate | None = None  #: To the fastest valid PyTorch row under the headline rule.
    of_products: Estimate | None = None  #: Of the rate of G1.
    of_peak: float | None = None  #: Of the rate of G2.
    rate: str | None = None  #: Of a ceiling that has no steps.
    import_seconds: float | None = None
    compile_seconds: float | None = None
    memory: int | None = None
    accuracy: float | None = None  #: Of several models, the mean.


class Summary(NamedTuple):
    """The lines, and the PyTorch row that they are held against."""

    lines: tuple[Line, ...]
    best_pytorch: str | None
    impossible: tuple[str, ...]  #: What cannot be: something was wrong while it was measured.


def summarize(result: Mapping[str, Any]) -> Summary:
    """Works out every figure from the samples of a result."""
    reference = Reference(**result["reference"]) if result["reference"] else None
    times = {row["name"]: epoch_times(row) for row in result["rows"]}
    valid = {row["name"]: is_valid(row.get("scores", ()), reference) for row in result["rows"]}
    contenders = {
        row["name"]: statistics.median(times[row["name"]].values())
        for row in result["rows"]
        if (row["family"], row["kind"], row["status"]) == ("pytorch", "headline", "ok")
        and times[row["name"]]
        and valid[row["name"]] is not False
    }
    best = min(contenders, key=contenders.__getitem__, default=None)
    lines = []
    for row in result["rows"]:
        status = "invalid" if valid[row["name"]] is False else row["status"]
        described = {key: row[key] for key in ("name", "label", "kind", "family")}
        line = Line(**described, status=status, note=row.get("reason"))
        if times[row["name"]]:
            measured = _measured(row, result, status) | _speed(row["name"], result, times, best)
            line = dataclasses.replace(line, **measured)
        lines.append(line)
    return Summary(tuple(lines), best, tuple(_impossible(lines)))


def derived(result: Mapping[str, Any]) -> dict[str, Any]:
    """The figures of `summarize` as plain data, by row: what is kept with the samples."""

    def plain(value: Any) -> Any:
        return value._asdict() if isinstance(value, Estimate) else value

    summary = summarize(result)
    rows = {
        line.name: {
            field.name: plain(getattr(line, field.name)) for field in dataclasses.fields(line)
        }
        for line in summary.lines
    }
    best, impossible = summary.best_pytorch, list(summary.impossible)
    return {"best_pytorch": best, "impossible": impossible, "rows": rows}


def departures(config: Config) -> dict[str, Any]:
    """The settings by which a result is none of the headline rule, and what they are."""
    tutorial = Config()
    return {
        name: value for name in RULED if (value := getattr(config, name)) != getattr(tutorial, name)
    }


def _impossible(lines: Sequence[Line]) -> list[str]:
    said = []
    for line in lines:
        if line.of_peak and line.of_peak > MOST_OF_PEAK:
            said.append(f"{line.name} is at {line.of_peak:.0%} of the machine's peak")
        elif (
            line.kind == "headline" and line.of_products and line.of_products.low > MOST_OF_PRODUCTS
        ):
            said.append(f"{line.name} is at {line.of_products.value:.0%} of its own products")
    return said


def _measured(row: Mapping[str, Any], result: Mapping[str, Any], status: str) -> dict[str, Any]:
    """The fields of a row's line besides its speed."""
    accuracies = [accuracy for _, accuracy in row.get("scores", ())]
    rounds, models = len(row["turns"]), row["models"]
    usual = statistics.median(map(seconds_of_turn, row["turns"]))
    notes = (
        "test accuracy " + ", ".join(f"{a:.1%}" for a in accuracies) if status == "invalid" else "",
        f"{models} models" if models > 1 else "",
        f"median of {rounds} rounds" if rounds < result["plan"]["rounds"] else "",
        tuning(row),
    )
    return {
        "note": row.get("reason") or ", ".join(note for note in notes if note) or None,
        "import_seconds": row["import_seconds"],
        # Compiling beforehand, and what the first call took longer than the later ones.
        "compile_seconds": row["compile_seconds"] + max(0.0, row["first_seconds"] - usual),
        "memory": row.get("peak_memory"),
        "accuracy": statistics.fmean(accuracies) if accuracies else None,
    }


def _speed(
    name: str, result: Mapping[str, Any], times: Mapping[str, dict[int, float]], best: str | None
) -> dict[str, Any]:
    """The fields of a row's line that say how fast it is; `times` are epochs' by row and round."""
    mine, n = times[name], result["machine"]["images"]
    config = Settings.from_json(result["settings"]).config
    if name == "G2":
        return {"rate": f"{_flops(mine) / 1e9:,.0f} GFLOP/s"}
    if name == "G3":  # each number is read and written
        return {"rate": f"{2 * 4 * COPY_SIZE / statistics.median(mine.values()) / 1e9:.1f} GB/s"}
    epoch, peak = estimate(list(mine.values())), times.get("G2")
    steps = steps_per_epoch(config, n)
    return {
        "step_seconds": Estimate(*(seconds / steps for seconds in epoch)),
        "images_per_second": Estimate(n / epoch.value, n / epoch.high, n / epoch.low),
        "to_tutorial": ratio(times.get("P1", {}), mine),
        "to_pytorch": ratio(times[best], mine) if best else None,
        "of_products": ratio(times.get("G1", {}), mine),
        "of_peak": epoch_flops(config, n) / epoch.value / _flops(peak) if peak else None,
    }


def _flops(times: Mapping[int, float]) -> float:
    """Floating-point operations a second in large products that took so long, by round."""
    return 2 * PEAK_SIZE**3 / statistics.median(times.values())


def epoch_times(row: Mapping[str, Any]) -> dict[int, float]:
    """Seconds an epoch of one model, by round."""
    per_call = row.get("models", 1) * row.get("epochs_per_call", 1)
    return {turn["round"]: seconds_of_turn(turn) / per_call for turn in row["turns"]}


def tuning(row: Mapping[str, Any]) -> str | None:
    """How a row with several candidates was run, and how the others fared."""
    if not row.get("trials"):
        variant: str | None = row.get("variant")
        return variant

    def label(trial: Mapping[str, Any]) -> str:
        threads = "1 thread" if trial["threads"] == 1 else f"{trial['threads']} threads"
        return f"{trial['variant']} {threads}" if trial["variant"] else threads

    def fared(trial: Mapping[str, Any]) -> str:
        if "reason" in trial:
            return str(trial["reason"])
        return f"{trial['seconds'] / chosen['seconds']:.2f} x"

    trials = {(trial["variant"], trial["threads"]): trial for trial in row["trials"]}
    chosen = trials.pop((row["variant"], row["threads"]))
    others = [f"{label(trial)} {fared(trial)}" for trial in trials.values()]
    return f"{label(chosen)} (time of others: {', '.join(others)})"
