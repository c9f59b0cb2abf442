"""The one clock that every row is timed with."""

import statistics
import time
from collections.abc import Mapping
from typing import Any

from benchmarks.harness.program import Program


def time_call(program: Program) -> float:
    """Seconds of one call of `program.epoch`, the device idle before and after."""
    program.wait()
    start = time.perf_counter()
    program.epoch()
    program.wait()
    return time.perf_counter() - start


def seconds_of_turn(turn: Mapping[str, Any]) -> float:
    """The median over the turn's calls, in seconds."""
    return float(statistics.median(turn["seconds"]))
