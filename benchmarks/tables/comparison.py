"""From several results to how fast each row is in one as against another.

A ratio is that of the medians of two runs. All intervals together hold with 95 % (Bonferroni), so
that among many rows none is taken for different by chance. On one machine an interval also reaches
over what the machine itself did differently, which the ceilings tell: none of them runs a loop's
code; and, for a row that was tuned otherwise in the two, over what the one would have been as the
other was, which its trials tell: of candidates that are nearly as fast, chance chooses one.
"""

import dataclasses
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from benchmarks.harness.program import Settings
from benchmarks.tables.statistics import Estimate, ratio_of_runs
from benchmarks.tables.summary import epoch_times

CONFIDENCE = 0.95
NO_SETTINGS = ("data_dir", "compilation_cache")  #: Of a result, that are none of a measurement.

Result = Mapping[str, Any]
Rows = Mapping[str, Mapping[str, Any]]


@dataclasses.dataclass(frozen=True)
class Pair:
    """A row in a result, against the same row in the first one."""

    name: str
    label: str
    is_ceiling: bool
    speed: Estimate  #: How many times as fast it is.

    @property
    def verdict(self) -> str:
        """What is sure: slower, faster, or nothing."""
        if self.is_ceiling:
            return ""
        return "slower" if self.speed.high < 1 else "faster" if self.speed.low > 1 else ""

    def is_slower_by(self, percent: float) -> bool:
        """Whether it is surely slower, and by more than that."""
        return self.verdict == "slower" and self.speed.value < 1 - percent / 100


def compare(results: Sequence[Result], names: Sequence[str] = ()) -> list[dict[str, Pair]]:
    """For each result but the first its rows against the first's, by name; all, or those named.

    Rows that are not valid in both, or have fewer than three turns in one, are left out.
    """
    first, *others = results
    usable = [_usable(result) for result in results]
    shared = [[name for name in usable[0] if name in rows] for rows in usable[1:]]
    confidence = 1 - (1 - CONFIDENCE) / max(1, sum(map(len, shared)))
    compared = []
    for other, there, rows in zip(others, shared, usable[1:], strict=True):
        pairs = {name: _pair(usable[0][name], rows[name], confidence) for name in there}
        found = {name: pair for name, pair in pairs.items() if pair}
        if _same_machine(first, other):
            found = _over_choices(_over_drift(found), usable[0], rows)
        compared.append({name: pair for name, pair in found.items() if not names or name in names})
    return compared


def _usable(result: Result) -> dict[str, dict[str, Any]]:
    """The valid rows by name, with the seconds that each turn took for an image."""
    images, rows = result["machine"]["images"], {}
    for row in result["rows"]:
        if result["summary"]["rows"][row["name"]]["status"] == "ok" and row["turns"]:
            seconds = [epoch / images for epoch in epoch_times(row).values()]
            rows[row["name"]] = {**row, "seconds": seconds}
    return rows


def _pair(a: Mapping[str, Any], b: Mapping[str, Any], confidence: float) -> Pair | None:
    speed = ratio_of_runs(a["seconds"], b["seconds"], confidence)
    return speed and Pair(a["name"], a["label"], a["family"] == "ceilings", speed)


def _same_machine(a: Result, b: Result) -> bool:
    return all(a["machine"][key] == b["machine"][key] for key in ("device", "cores"))


def _widened(pair: Pair, down: float, up: float) -> Pair:
    value, low, high = pair.speed
    return dataclasses.replace(pair, speed=Estimate(value, low / down, high * up))


def _over_drift(pairs: Mapping[str, Pair]) -> dict[str, Pair]:
    """The intervals over what the machine did differently in the two runs."""
    drifts = [1.0, *(pair.speed.value for pair in pairs.values() if pair.is_ceiling)]
    return {
        name: pair if pair.is_ceiling else _widened(pair, max(drifts), 1 / min(drifts))
        for name, pair in pairs.items()
    }


def _over_choices(pairs: Mapping[str, Pair], before: Rows, after: Rows) -> dict[str, Pair]:
    """The intervals over what a row would have been, tuned as it was in the other run."""
    return {
        name: _widened(
            pair, _slower_as(before[name], after[name]), _slower_as(after[name], before[name])
        )
        for name, pair in pairs.items()
    }


def _slower_as(other: Mapping[str, Any], row: Mapping[str, Any]) -> float:
    """How many times as long the row took in its trials as the other was tuned; 1 if unknown."""
    seconds = {
        (trial["variant"], trial["threads"]): trial["seconds"]
        for trial in row.get("trials", ())
        if "seconds" in trial
    }
    chosen, otherwise = ((r["variant"], r["threads"]) for r in (row, other))
    return max(1.0, seconds.get(otherwise, 0.0) / seconds[chosen]) if chosen in seconds else 1.0


def differences(first: Result, other: Result) -> list[str]:
    """Settings, software and machine in which two results differ, and rows that ran otherwise."""
    shared = _measured(first) & _measured(other)
    before, after = (dict(_described(result, shared)) for result in (first, other))
    return [
        f"{key} {before.get(key, 'none')} -> {after.get(key, 'none')}"
        for key in dict.fromkeys((*before, *after))
        if before.get(key) != after.get(key)
    ]


def _measured(result: Result) -> set[str]:
    return {row["name"] for row in result["rows"] if row["turns"]}


def _described(result: Result, rows: set[str]) -> Iterator[tuple[str, Any]]:
    # What a result was stored without was not to be chosen then.
    settings = dataclasses.asdict(Settings.from_json(result["settings"]))
    machine = result["machine"]
    for key, value in {**settings["config"], **settings}.items():
        if key not in (*NO_SETTINGS, "config"):
            yield key, value
    for key in ("device", "cores", "system", "images", "numpy_blas", "commit"):
        yield key, machine.get(key)
    yield from machine["versions"].items()
    yield from machine.get("environment", {}).items()
    for row in result["rows"]:
        if row["name"] in rows:
            for key in ("variant", "threads"):
                yield f"{row['name']} {key}", row[key]
