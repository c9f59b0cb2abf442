"""The candidates for a row: each variant, on each number of threads, until one of them has won."""

import dataclasses
import math
import time
from collections.abc import Sequence
from typing import Any

from benchmarks.harness.process import PATIENCE, Process, RowError
from benchmarks.harness.program import Settings
from benchmarks.harness.schedule import Schedule
from benchmarks.rows import Variant


@dataclasses.dataclass(eq=False)
class Trial:
    """A candidate for a row: one of its variants, on so many threads."""

    variant: Variant
    threads: int
    process: Process | None = None
    problem: RowError | None = None
    first_seconds: float = 0.0
    """Of its first call, which may compile."""
    seconds: float = math.inf
    """Of its fastest later call: whatever else the machine did meanwhile only added to it."""

    def begin(self, settings: Settings, best: "Trial | None") -> None:
        """Starts its process and makes two calls, unless the best one so far is far ahead."""
        try:
            self.process = Process(self.variant, self.threads, settings)
            self.first_seconds = self.ask()
            # Compiling takes all of a row's candidates about as long.
            if best and self.first_seconds > max(1, 3 * best.first_seconds):
                said = f"{self.first_seconds:.1f} s, not {best.first_seconds:.1f}"
                raise RowError("failed", f"given up: its first call took {said}")  # noqa: TRY301
            # Threads that wait for a busy core can take minutes over an epoch.
            self.seconds = self.ask(timeout=20 + 10 * best.seconds if best else PATIENCE)
        except RowError as error:
            self.problem = error
            self.end()

    def take_turn(self, schedule: Schedule) -> None:
        """Some more calls, where they do not take long."""
        if self.process is None or self.seconds > schedule.slow_seconds:
            return
        time.sleep(schedule.settle_seconds)
        try:
            self.seconds = min(self.seconds, self.ask(schedule.calls_of(self.seconds)))
        except RowError as error:
            self.problem = error
            self.end()

    def ask(self, calls: int = 1, timeout: float = PATIENCE) -> float:
        """Seconds of the fastest of some calls."""
        assert self.process
        return float(min(self.process.ask(warm_up=0, calls=calls, timeout=timeout)["seconds"]))

    def end(self) -> None:
        if self.process:
            self.process.close()
        self.process = None

    def told(self) -> dict[str, Any]:
        """As it is kept with the results."""
        known = {"reason": str(self.problem)} if self.problem else {"seconds": self.seconds}
        return {"variant": self.variant.label, "threads": self.threads, **known}


def compete(trials: Sequence[Trial], schedule: Schedule) -> None:
    """Candidates take turns, forwards and backwards."""
    for number in range(schedule.trial_turns if len(trials) > 1 else 0):
        for trial in trials if number % 2 == 0 else reversed(trials):
            trial.take_turn(schedule)


def fastest(trials: Sequence[Trial]) -> Trial | None:
    """Of those that still run."""
    return min((t for t in trials if t.process), key=lambda t: t.seconds, default=None)
