"""One benchmark from its beginning to its end: the rows, whole processes, other sizes."""

import dataclasses
import datetime
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any

from benchmarks.command import report, stored
from benchmarks.command.flags import MINUTES, Flags
from benchmarks.command.progress import Progress
from benchmarks.harness import judge, machine, process
from benchmarks.harness.entrant import Entrant, left_out, resumed
from benchmarks.harness.program import Settings
from benchmarks.harness.protocol import Contest, Say, measure
from benchmarks.harness.schedule import Budget, Schedule
from benchmarks.rows import ROWS, Row
from benchmarks.tables import table
from benchmarks.tables.summary import departures, summarize
from flax_mnist.errors import FlaxMnistError, RequestError, StoppedError

FULL = Schedule()
QUICK = Schedule(
    turn_seconds=0.4, trial_turns=2, slow_seconds=1.0, slow_rounds=3, settle_seconds=0.15, retakes=1
)
SCALING = Schedule(rounds=4, turn_seconds=0.5, slow_rounds=2, score=False)

BATCH_SIZES = tuple(2**k for k in range(4, 14))
MODELS = tuple(2**k for k in range(6))
WHOLE = ("P1", "P3", "J2")
WHOLE_ROUNDS = 3
#: What the rows of a full benchmark may take of its time, and whole processes of what is left then;
#: other sizes have the rest.
ROWS_SHARE, WHOLE_SHARE = 0.7, 0.6
RESULTS = machine.ROOT / "benchmarks" / "results"
SCRATCH = machine.ROOT / "runs" / "benchmarks"

Result = dict[str, Any]
Keep = Callable[[], None]


@dataclasses.dataclass(frozen=True)
class Benchmark(Flags):
    """Compares training loops on this machine: a table, a picture, and every sample as JSON.

    Stored results are compared by `python -m benchmarks compare A.json B.json`.
    """

    def run(self) -> int:
        """Measures, prints and stores; 1 if a row failed, or its result cannot be."""
        return run(self)


def run(flags: Flags) -> int:
    """Measures what the flags ask for, or goes on with it, and prints and stores the result."""
    budget = Budget(flags.seconds)
    progress = Progress(budget)
    known = stored.read(flags.resume) if flags.resume else None
    if known and known["partial"] is None:
        raise RequestError(f"{flags.resume}: is complete; there is nothing to go on with.")
    folder = stored.prepare(_folder(flags))
    threads = known["settings"].get("threads") if known else flags.threads
    with progress.shown(), machine.on_cores(threads):
        progress.say("looking at the machine and the images")
        settings = _resumed_settings(known, flags) if known else flags.settings()
        result = begin(settings, flags)
        if known and flags.resume:
            stored.require_same(result["machine"], known["machine"], flags.resume)
            result |= {key: value for key, value in known.items() if key != "machine"}
        path = flags.resume or stored.fresh(folder, _name(result))
        try:
            measure_all(result, settings, budget, progress.say, lambda: stored.write(result, path))
        except StoppedError as stop:
            raise _stopped(stop, result, path) from stop
    return finish(result, path, flags.summary)


def _folder(flags: Flags) -> Path:
    if flags.resume:
        return flags.resume.parent
    is_headline = flags.kind == "full" and not departures(flags.config)
    return flags.output or (RESULTS if is_headline else SCRATCH)


def _name(result: Mapping[str, Any]) -> str:
    kind = result["request"]["kind"]
    return machine.slug(result["machine"]) + ("" if kind == "full" else f"-{kind}")


def _resumed_settings(known: Mapping[str, Any], flags: Flags) -> Settings:
    """As they were, but for where the images are, which is not kept."""
    settings = Settings.from_json(known["settings"])
    data_dir = flags.settings().data_dir if settings.dataset != "synthetic" else None
    return dataclasses.replace(settings, data_dir=data_dir)


def _stopped(stop: StoppedError, result: Result, path: Path) -> StoppedError:
    """Keeps what there is, and says where."""
    if not any(row["turns"] for row in result["rows"]) and not path.exists():
        return StoppedError(f"{stop} Nothing was measured yet.", stop.exit_code)
    result["partial"] = f"{stop.args[0].rstrip('.')} after {result['rounds_done']} rounds"
    finish(result, path, summary=True)
    said = f"{stop} What was measured is in {path}; --resume {path} goes on with it."
    return StoppedError(said, stop.exit_code)


def finish(result: Result, path: Path, summary: bool) -> int:
    """Stores the result with table and picture, and prints it; 1 if something is wrong with it."""
    complete = stored.complete(result)
    stored.write(complete, path)
    text = report.write(complete, path)
    print(table.one_line(complete) if summary else text)
    print(f"stored as {path} (.md, .png)", file=sys.stderr)
    lines = summarize(complete).lines
    return int(any(line.status in ("failed", "invalid") for line in lines))


def begin(settings: Settings, flags: Flags) -> Result:
    """A result of which nothing is measured yet."""
    load = machine.load_average()  # of others: to look at the machine is work, too
    described = describe(settings)
    found = {"device": described["platform"], "dataset": described["dataset"]}
    return {
        "version": stored.VERSION,
        "partial": "nothing was measured yet",
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "request": {
            "kind": flags.kind,
            "rows": [row.name for row in flags.wanted],
            "minutes": MINUTES[flags.kind] if flags.minutes is None else flags.minutes,
        },
        # Where this machine keeps its data is nobody else's business.
        "settings": dataclasses.asdict(settings) | found | {"data_dir": None},
        "plan": dataclasses.asdict(QUICK if flags.quick else FULL),
        "rounds_done": 0,
        "machine": described,
        "rows": [],
        "reference": None,
        "processes": [],
        "scaling": [],
        "load_average": [load, None],
        "others_cores": None,
        "summary": None,
    }


def describe(settings: Settings) -> dict[str, Any]:
    """What `harness/machine.py` says of this machine, in a process of its own.

    Raises:
        FlaxMnistError: there is no such device, or the images are not there.
    """
    settings_json = json.dumps(dataclasses.asdict(settings))
    command = (sys.executable, "-m", "benchmarks.harness.machine", settings_json)
    done = subprocess.run(command, cwd=machine.ROOT, capture_output=True, text=True, check=False)
    if done.returncode:
        lines = done.stderr.strip().splitlines() or [f"exit code {done.returncode}"]
        raise FlaxMnistError(f"the machine could not be looked at: {lines[-1]}")
    described: dict[str, Any] = json.loads(done.stdout)
    if "error" in described:
        raise (RequestError if described["exit_code"] == 2 else FlaxMnistError)(described["error"])
    return described


def measure_all(result: Result, settings: Settings, budget: Budget, say: Say, keep: Keep) -> None:
    """Fills the result in, and has it kept whenever there is more of it."""
    described, request, others = result["machine"], result["request"], machine.Others()
    found = {"device": described["platform"], "dataset": described["dataset"]}
    settings, cores = dataclasses.replace(settings, **found), described["cores"]
    say(f"{described['device']}, {cores} cores, {described['dataset']}")
    warn_of_others(result["load_average"][0], cores, say)
    is_full = request["kind"] == "full"
    # Table and picture are made, and the others' share is told, when all is measured.
    usable = budget.part(reserve=closing_seconds(budget))
    measure_rows(result, settings, usable.part(ROWS_SHARE) if is_full else usable, say, keep)
    if is_full:
        measured = {row["name"]: row for row in result["rows"]}
        whole_budget = usable.part(WHOLE_SHARE)
        whole_processes(result["processes"], measured, settings, whole_budget, say)
        keep()
        best = summarize(result).best_pytorch
        scaling(result["scaling"], (best, "J2"), settings, cores, usable, say, keep)
    result["load_average"][1], result["others_cores"] = machine.load_average(), others.cores()
    if (taken := result["others_cores"]) is not None and taken > table.BUSY:
        say(f"WARNING: other programs took {taken} of the {cores} cores meanwhile")
    result["partial"] = None


def closing_seconds(budget: Budget) -> float:
    """What the end will take, on a machine that took so long to look at itself."""
    return 4 + 2 * (budget.seconds - budget.left())


def warn_of_others(load: float | None, cores: int, say: Say) -> None:
    if load is not None and load > table.BUSY:
        say(f"WARNING: other programs are running (load average {load}, {cores} cores)")


def measure_rows(result: Result, settings: Settings, budget: Budget, say: Say, keep: Keep) -> None:
    """The rows against each other."""
    request = result["request"]
    wanted = [row for row in ROWS if row.name in request["rows"]]
    chosen = [row for row in wanted if row.quick or request["kind"] != "quick"]
    known = {row["name"]: row for row in result["rows"]}
    done = result["rounds_done"]
    contest = Contest(
        [Entrant(row, resumed(row, known.get(row.name), done)) for row in chosen],
        settings, Schedule(**result["plan"]), result["machine"]["cores"], say, budget, done,
    )  # fmt: skip

    def update() -> None:
        measured = {row["name"]: row for row in contest.results}
        result["rows"] = [
            measured.get(row.name) or left_out(row, "not in --quick") for row in wanted
        ]
        result["plan"] = dataclasses.asdict(contest.schedule)
        result["rounds_done"] = contest.rounds_done
        result["partial"] = f"{contest.rounds_done} of {contest.schedule.rounds} rounds"
        result["reference"] = _reference(result["rows"], settings)

    def update_and_keep() -> None:
        update()
        keep()

    contest.keep = update_and_keep
    try:
        contest.run()
    finally:
        update()


def _reference(rows: Sequence[dict[str, Any]], settings: Settings) -> dict[str, Any] | None:
    reference = judge.reference_of(rows, settings.dataset, settings.config)
    return reference and reference._asdict()


def whole_processes(
    found: list[dict[str, Any]],
    measured: Mapping[str, Any],
    settings: Settings,
    budget: Budget,
    say: Say,
) -> None:
    """What a user waits for, from the start of the process to its end, as the rows were tuned.

    Cold is with nothing compiled before, warm with what the cold process left.
    """
    rows = [row for row in ROWS if row.name in WHOLE and measured.get(row.name, {}).get("turns")]
    for row in rows:
        if not any(process["name"] == row.name for process in found):
            found.append({"name": row.name, "label": row.label, "cold": [], "warm": []})
    by_name = {process["name"]: process for process in found}
    for number in range(min((len(p["warm"]) for p in found), default=0), WHOLE_ROUNDS):
        for row in rows if number % 2 == 0 else reversed(rows):
            kept, threads = by_name[row.name], measured[row.name]["threads"]
            if len(kept["warm"]) <= number:
                _cold_and_warm(row, threads, kept, settings, budget, say)
        say(f"whole processes, round {number + 1} of {WHOLE_ROUNDS}")


def _cold_and_warm(
    row: Row,
    threads: int,
    kept: Mapping[str, list[Any]],
    settings: Settings,
    budget: Budget,
    say: Say,
) -> None:
    """One process of each kind, or none where there is no time for as long as the last took."""
    if budget.left() < sum(kept[kind][-1]["seconds"] for kind in ("cold", "warm") if kept[kind]):
        say(f"{row.name}: no time was left for its whole processes")
        return
    runs = []
    with tempfile.TemporaryDirectory() as cache:
        try:
            for _ in ("cold", "warm"):
                timeout = min(process.PATIENCE, max(1.0, budget.left()))
                runs.append(
                    process.whole_process(row.variants[0], threads, settings, Path(cache), timeout)
                )
        except process.RowError as error:
            say(f"{row.name}: {error}")
            return
    for kind, run in zip(("cold", "warm"), runs, strict=True):
        kept[kind].append(run)


def scaling(
    points: list[dict[str, Any]],
    compared: Sequence[str | None],
    settings: Settings,
    cores: int,
    budget: Budget,
    say: Say,
    keep: Keep,
) -> None:
    """Rates by batch size, of the rows compared, and by number of models, of J4.

    A point is measured only where there is time for as long as the longest took.
    """
    longest, names = 0.0, compared
    there = {(point["key"], point["value"]) for point in points}
    sizes = [("batch_size", size) for size in BATCH_SIZES]
    for key, value in [*sizes, *(("models", models) for models in MODELS)]:
        if (key, value) in there:
            continue
        before = budget.left()
        if before <= longest:
            say(f"{key} {value}: no time was left for it")
            continue
        if key == "models":
            changed, names = dataclasses.replace(settings, models=value), ("J4",)
        else:
            config = dataclasses.replace(settings.config, batch_size=value)
            changed, names = dataclasses.replace(settings, config=config), compared
        rows = [row for row in ROWS if row.name in names]
        measured = measure(rows, changed, SCALING, cores, lambda _: None, budget.part())
        points.append({"key": key, "value": value, "rows": measured})
        longest = max(longest, before - budget.left())
        say(f"{key} {value}")
        keep()
