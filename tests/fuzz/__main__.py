"""Damages valid files at random and reads them: a reader answers, or raises an error of ours.

    python -m tests.fuzz [--seconds 60] [--seed 0] [--readers NAME...] [--output DIR]

An exception of any other type is a defect: the file that shows it is kept in DIR, the traceback is
printed, and the exit code is 1. The same seed makes the same files. What stands on stderr is said
by libtiff.
"""

from __future__ import annotations

import argparse
import collections
import sys
import tempfile
import time
import traceback
from pathlib import Path

from flax_mnist.errors import FlaxMnistError
from tests.fuzz.damage import contents
from tests.fuzz.readers import READERS, Reader


def attempt(reader: Reader, content: bytes, folder: Path) -> str:
    """Reads it: `read` or `refused`; any other exception passes."""
    path = folder / reader.file
    path.write_bytes(content)
    try:
        reader.read(path)
    except FlaxMnistError:
        return "refused"
    return "read"


def fuzz(name: str, seed: int, seconds: float, output: Path) -> collections.Counter[str]:
    """Tries a reader for so long, prints what came of it, and counts it by outcome."""
    reader = READERS[name]
    outcomes: collections.Counter[str] = collections.Counter()
    slowest, begin = 0.0, time.monotonic()
    with tempfile.TemporaryDirectory() as folder:
        for number, content in enumerate(contents(reader, seed)):
            start = time.monotonic()
            if start > begin + seconds:
                break
            try:
                outcomes[attempt(reader, content, Path(folder))] += 1
            except Exception:
                outcomes["FAILED"] += 1
                kept = output / f"{name.replace(' ', '-')}-{seed}-{number}"
                kept.write_bytes(content)
                print(f"{name}: kept as {kept}\n{traceback.format_exc(limit=-4)}")
            slowest = max(slowest, time.monotonic() - start)
    rate = outcomes.total() / (time.monotonic() - begin)
    what = ", ".join(f"{count:,} {outcome}" for outcome, count in sorted(outcomes.items()))
    print(f"{name:<13} {rate:7,.0f} files/s, slowest {slowest:.2f} s: {what}", flush=True)
    return outcomes


def main(argv: list[str] | None = None) -> int:
    parser = argparse.ArgumentParser(prog="python -m tests.fuzz", description=__doc__)
    parser.add_argument("--seconds", type=float, default=60, help="in all (default: 60)")
    parser.add_argument("--seed", type=int, default=0, help="of the damage (default: 0)")
    parser.add_argument("--readers", nargs="+", choices=READERS, default=list(READERS))
    parser.add_argument("--output", type=Path, default=Path(), metavar="DIR", help="for findings")
    asked = parser.parse_args(argv)
    asked.output.mkdir(parents=True, exist_ok=True)
    each = asked.seconds / len(asked.readers)
    outcomes = [fuzz(name, asked.seed, each, asked.output) for name in asked.readers]
    return 1 if any(outcome["FAILED"] for outcome in outcomes) else 0


if __name__ == "__main__":
    sys.exit(main())
