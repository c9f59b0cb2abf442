"""The one clock that every row is timed with."""

from __future__ import annotations

import time

from benchmarks.program import Program


def time_calls(program: Program, calls: int) -> list[float]:
    """Seconds of each of `calls` calls of `program.epoch`, the device idle before and after.

    A row is stopped after every epoch, as the tutorial is by printing the loss.
    """
    seconds = []
    program.wait()
    for _ in range(calls):
        start = time.perf_counter()
        program.epoch()
        program.wait()
        seconds.append(time.perf_counter() - start)
    return seconds
