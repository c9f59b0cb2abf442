"""How fast is this machine at small training steps? One command, one table, one picture, one file.

    python -m benchmarks            everything, in half an hour
    python -m benchmarks --quick    the main rows, in three minutes
    python -m benchmarks compare A.json B.json

How rows are compared stands in `harness/protocol.py`, what they are in `rows.py`.
"""

import sys
from collections.abc import Sequence

from benchmarks import entry

COMPARE = "compare"


def words_of(argv: Sequence[str]) -> tuple[str, str, Sequence[str]]:
    """What these words run, what it is called, and which of them are its flags."""
    if argv[:1] == [COMPARE]:
        return "benchmarks.command.compare:Compare", f"python -m benchmarks {COMPARE}", argv[1:]
    return "benchmarks.command.benchmark:Benchmark", "python -m benchmarks", argv


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the benchmark; 1 if a row failed or is invalid."""
    return entry.run(*words_of(sys.argv[1:] if argv is None else list(argv)))


if __name__ == "__main__":
    sys.exit(main())
