"""How fast is this machine at small training steps? One command, one table, one picture, one file.

    python -m benchmarks            everything, about half an hour on two cores
    python -m benchmarks --quick    the main rows, under three minutes

How rows are compared stands in `harness/protocol.py`, what they are in `rows.py`.
"""

import argparse
import dataclasses
import datetime
import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, get_args

from benchmarks import report
from benchmarks.harness import judge, machine, process, protocol
from benchmarks.harness.program import Settings
from benchmarks.harness.schedule import Schedule
from benchmarks.rows import ROWS
from benchmarks.tables.summary import summarize
from flax_mnist.config import DatasetName

FULL = Schedule()
QUICK = Schedule(
    turn_seconds=0.4, trial_turns=2, slow_seconds=1.0, slow_rounds=3, settle_seconds=0.15, retakes=1
)
SCALING = Schedule(rounds=4, turn_seconds=0.5, slow_rounds=2, score=False)

BATCH_SIZES = tuple(2**k for k in range(4, 14))
MODELS = tuple(2**k for k in range(6))
WHOLE = ("P1", "P3", "J2")
WHOLE_ROUNDS = 3
STARTED = time.perf_counter()
RESULTS = Path(__file__).parent / "results"
SCRATCH = machine.ROOT / "runs" / "benchmarks"


def parse(argv: Sequence[str]) -> argparse.Namespace:
    """The command line. argparse, since a bare accelerator machine need not have tyro."""
    parser = argparse.ArgumentParser(
        prog="python -m benchmarks",
        description="Compares training loops on this machine; prints a table and stores the rest.",
    )
    add = parser.add_argument
    add("--quick", action="store_true", help="the main rows only, in 3 minutes")
    names = [row.name for row in ROWS]
    only = f"only these of {', '.join(names)}"
    add("--rows", nargs="+", metavar="NAME", choices=names, help=only)
    output = "folder for the results (default: benchmarks/results; runs/benchmarks for a part)"
    add("--output", type=Path, metavar="DIR", help=output)
    add("--dataset", choices=get_args(DatasetName), help="images to train on")
    data = "folder with the four IDX files (default: $FLAX_MNIST_DATA_DIR; without, synthetic)"
    add("--data-dir", metavar="DIR", default=os.environ.get("FLAX_MNIST_DATA_DIR"), help=data)
    add("--device", choices=("auto", "cpu", "gpu", "tpu"), default="auto", help="default: auto")
    add("--models", type=int, default=Settings.models, help="trained at once by J4 and P8")
    return parser.parse_args(argv)


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 1 if a row failed or is invalid."""
    args = parse(sys.argv[1:] if argv is None else argv)
    settings = Settings(
        dataset=args.dataset or ("mnist" if args.data_dir else "synthetic"),
        data_dir=args.data_dir and str(Path(args.data_dir).expanduser().resolve()),
        device=args.device,
        models=args.models,
    )
    try:
        result = run(args, settings)
    except subprocess.CalledProcessError as error:
        lines = error.stderr.strip().splitlines()
        say(f"benchmarks: {lines[-1] if lines else error}")
        return 1
    partial = args.quick or args.rows
    folder = args.output or (SCRATCH if partial else RESULTS)
    folder.mkdir(parents=True, exist_ok=True)
    suffix = "-quick" if args.quick else ""
    path = folder / f"{machine.slug(result['machine'])}{suffix}.json"
    path.write_text(json.dumps(result) + "\n")
    print(report.write(result, path))
    say(f"stored as {path} (.md, .png)")
    return int(any(line.status in ("failed", "invalid") for line in summarize(result).lines))


def run(args: argparse.Namespace, settings: Settings) -> dict[str, Any]:
    """Measures everything that was asked for; the result as it is stored."""
    load_average = machine.load_average()
    described = describe(settings)
    found = {"device": described["platform"], "dataset": described["dataset"]}
    settings = dataclasses.replace(settings, **found)
    say(f"{described['device']}, {described['cores']} cores, {described['dataset']}")
    schedule, cores = QUICK if args.quick else FULL, described["cores"]
    wanted = [row for row in ROWS if not args.rows or row.name in args.rows]
    chosen = [row for row in wanted if row.quick or args.rows or not args.quick]
    results = protocol.measure(chosen, settings, schedule, cores, say)
    measured = {row["name"]: row for row in results}
    rows = [measured.get(row.name) or protocol.left_out(row, "not in --quick") for row in wanted]
    result: dict[str, Any] = {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        # Where this machine keeps its data is nobody else's business.
        "settings": dataclasses.asdict(settings) | {"data_dir": None},
        "plan": dataclasses.asdict(schedule),
        "machine": described,
        "rows": rows,
        "processes": [],
        "scaling": [],
    }
    reference = judge.reference_of(rows, settings.dataset, settings.config)
    result["reference"] = reference and reference._asdict()
    if not (args.quick or args.rows):
        result["processes"] = whole_processes(measured, settings)
        result["scaling"] = scaling(summarize(result).best_pytorch, settings, cores)
    result["load_average"] = [load_average, machine.load_average()]
    return result


def describe(settings: Settings) -> dict[str, Any]:
    """What `harness/machine.py` says of this machine, in a process of its own."""
    settings_json = json.dumps(dataclasses.asdict(settings))
    command = (sys.executable, "-m", "benchmarks.harness.machine", settings_json)
    done = subprocess.run(command, cwd=machine.ROOT, capture_output=True, text=True, check=True)
    described: dict[str, Any] = json.loads(done.stdout)
    return described


def whole_processes(measured: Mapping[str, Any], settings: Settings) -> list[dict[str, Any]]:
    """What a user waits for, from the start of the process to its end, as the rows were tuned.

    Cold is with nothing compiled before, warm with what the cold process left.
    """
    rows = [row for row in ROWS if row.name in WHOLE and measured.get(row.name, {}).get("turns")]
    found: dict[str, dict[str, Any]] = {
        row.name: {"name": row.name, "label": row.label, "cold": [], "warm": []} for row in rows
    }
    for number in range(WHOLE_ROUNDS):
        for row in rows if number % 2 == 0 else reversed(rows):
            variant, threads = row.variants[0], measured[row.name]["threads"]
            with tempfile.TemporaryDirectory() as cache:
                try:
                    for kind in ("cold", "warm"):
                        run = process.whole_process(variant, threads, settings, Path(cache))
                        found[row.name][kind].append(run)
                except process.RowError as error:
                    say(f"{row.name}: {error}")
        say(f"whole processes, round {number + 1} of {WHOLE_ROUNDS}")
    return list(found.values())


def scaling(best_pytorch: str | None, settings: Settings, cores: int) -> list[dict[str, Any]]:
    """Rates by batch size, of J2 and the best PyTorch row, and by number of models, of J4."""
    points = []

    def measure(key: str, value: int, names: Sequence[str | None], **changes: Any) -> None:
        rows = [row for row in ROWS if row.name in names]
        changed = dataclasses.replace(settings, **changes)
        measured = protocol.measure(rows, changed, SCALING, cores, lambda _: None)
        points.append({"key": key, "value": value, "rows": measured})
        say(f"{key} {value}")

    for size in BATCH_SIZES:
        config = dataclasses.replace(settings.config, batch_size=size)
        measure("batch_size", size, (best_pytorch, "J2"), config=config)
    for models in MODELS:
        measure("models", models, ("J4",), models=models)
    return points


def say(text: str) -> None:
    """Progress, on standard error: standard output is the table."""
    print(f"{time.perf_counter() - STARTED:5.0f} s  {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
