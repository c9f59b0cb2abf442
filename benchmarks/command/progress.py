"""What is said while a benchmark runs, on standard error: standard output is the table."""

import contextlib
import sys
import time
from collections.abc import Iterator
from typing import Any

from benchmarks.harness.schedule import Budget


class Progress:
    """Lines with the time that has passed and that is left; a bar below them on a terminal."""

    def __init__(self, budget: Budget) -> None:
        self.budget = budget
        self.bar: Any = None

    def say(self, text: str) -> None:
        """A line."""
        passed, left = time.monotonic() - self.budget.began, max(0.0, self.budget.left())
        line = f"{passed:5.0f} s, {_time(left)} left  {text}"
        if self.bar:
            self.bar.console.print(line)
            self.bar.update(self.bar.task_ids[0], completed=passed, what=text)
            self.bar.refresh()
        else:
            print(line, file=sys.stderr, flush=True)

    @contextlib.contextmanager
    def shown(self) -> Iterator[None]:
        """Within, there is a bar where standard error is a terminal."""
        if not sys.stderr.isatty():
            yield
            return
        from rich import progress
        from rich.console import Console

        bar = progress.Progress(
            progress.BarColumn(20),
            progress.TaskProgressColumn(),
            console=Console(stderr=True, highlight=False, markup=False, soft_wrap=True),
            transient=True,
            # A thread that draws would take time from what is measured.
            auto_refresh=False,
        )
        bar.add_task("", total=self.budget.seconds, what="")
        with bar:
            self.bar = bar
            try:
                yield
            finally:
                self.bar = None


def _time(seconds: float) -> str:
    return f"at most {seconds:.0f} s" if seconds < 120 else f"at most {seconds / 60:.0f} min"
