"""`python -m benchmarks compare`."""

import dataclasses
import math
import sys
from pathlib import Path
from typing import Annotated

import tyro

from benchmarks.command import stored
from benchmarks.harness import machine
from benchmarks.rows import named
from benchmarks.tables import comparison, comparison_table
from flax_mnist.cli.flags import by_default, optional
from flax_mnist.errors import FlaxMnistError, RequestError

SCRATCH = machine.ROOT / "runs" / "benchmarks"


@dataclasses.dataclass(frozen=True)
class Compare:
    """Compares stored results, row by row: how many times as fast as in the first one."""

    results: Annotated[
        tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE.json")
    ] = ()
    """What python -m benchmarks has stored; the others are compared with the first."""
    rows: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME", help_behavior_hint="")] = ()
    """Only these rows."""
    fail_if_slower: Annotated[float | None, optional("PERCENT")] = None
    """Exit code 1 if a row is surely slower, and by more than so many percent."""
    output: Annotated[Path | None, by_default("FILE.png", "comparison.png in runs/benchmarks")] = (
        None
    )
    """The picture of the ratios."""

    def __post_init__(self) -> None:
        if len(self.results) < 2:
            raise RequestError("two results are needed: python -m benchmarks compare A.json B.json")
        if self.fail_if_slower is not None and not 0 <= self.fail_if_slower < 100:
            raise RequestError(f"fail-if-slower is {self.fail_if_slower:g}; it is 0 to 100.")
        _ = named(self.rows)

    def run(self) -> int:
        """Prints the table and draws the picture; 1 if a row is slower than it may be."""
        results = [stored.read(path) for path in self.results]
        names = [row.name for row in named(self.rows)] if self.rows else []
        compared = comparison.compare(results, names)
        print(comparison_table.render(results, [str(path) for path in self.results], compared))
        self.draw(compared)
        if self.fail_if_slower is None:
            return 0
        return self.judge(compared, self.fail_if_slower)

    def draw(self, compared: list[dict[str, comparison.Pair]]) -> None:
        """The picture, if there is something to draw and to draw with."""
        if not any(compared):
            return
        path = self.output or stored.prepare(SCRATCH) / "comparison.png"
        try:
            comparison_table.draw(compared, path)
        except ImportError as error:
            print(f"no picture: {error}", file=sys.stderr)
        except (OSError, ValueError) as error:
            raise FlaxMnistError(f"{path}: cannot be written ({error}).") from error
        else:
            print(f"drawn as {path}", file=sys.stderr)

    def judge(self, compared: list[dict[str, comparison.Pair]], percent: float) -> int:
        """Tells of the rows that are slower than they may be; 1 if there are any."""
        if not all(compared):
            print("nothing could be compared, so nothing is known to be as fast", file=sys.stderr)
            return 1
        found = [
            (pair, path)
            for path, pairs in zip(self.results[1:], compared, strict=True)
            for pair in pairs.values()
            if pair.is_slower_by(percent)
        ]
        for pair, path in found:
            slower = math.ceil(100 * (1 - pair.speed.value))
            print(f"{pair.name} is {slower} % slower in {path}", file=sys.stderr)
        return int(bool(found))
