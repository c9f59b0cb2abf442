"""How rows are compared fairly: a fresh process each, in turns, on the same cores.

1. Each row's process is started alone. It imports, prepares and trains a first epoch, each timed.
2. A row with variants, or one that may be faster on a single thread than on all, runs every way, by
   turns; the fastest stays, the others end. So every framework has all cores and may use fewer.
   Where one thread won, the fastest candidate on several competes once more when all rows have
   been started: at the time its threads may have been caught on one of the host's cores.
3. The rows that are left take turns: forwards in one round, backwards in the next (ABBA), so that
   a machine that slows down or speeds up favours none. A turn is an epoch that is not timed, then
   about a second's worth of timed ones; the device is synchronised before each clock reading.
4. At the end of a round, rows whose turn lagged behind their own best so far have another one,
   and the faster one counts, by the same rule for every row: two virtual cores may share one of
   the host's for some seconds. What was taken again is kept, and its number told.
5. Waiting processes sleep; what they took of the CPU nevertheless is written down.
6. The weights that each row had after the tutorial's five epochs are scored.

Where there is a budget of time, rows are started as long as there is time for the turns of those
that have been started. One that is no main row may take a quarter of what is left, or more where
fewer than four wait: its start, and the fewest turns, must fit into that. The rounds are planned
from how fast the rows have shown to be, and what does not fit is left out and says so.
"""

import dataclasses
import math
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness.entrant import Entrant, blank
from benchmarks.harness.process import RowError
from benchmarks.harness.program import Settings
from benchmarks.harness.schedule import NO_TIME, Budget, Schedule, fitting
from benchmarks.rows import Row

Say = Callable[[str], None]

JUDGING = 0.5  #: Seconds to score a row's weights, besides the epochs that it still has to train.


@dataclasses.dataclass
class Contest:
    """Rows against each other."""

    entrants: list[Entrant]
    settings: Settings
    schedule: Schedule  #: What is left of it by the budget, once the rows have been started.
    cores: int
    say: Say
    budget: Budget = dataclasses.field(default_factory=Budget)
    rounds_done: int = 0
    #: Called when all rows have been started and after each round, as whatever is done may be lost.
    keep: Callable[[], None] = lambda: None

    @property
    def results(self) -> list[dict[str, Any]]:
        """A result for each row, those that could not run included."""
        return [entrant.result for entrant in self.entrants]

    def run(self) -> None:
        try:
            self.start()
            for number in range(self.rounds_done, self.schedule.rounds):
                if not self.take_round(number):
                    break
            for entrant in self.entrants if self.schedule.score else ():
                entrant.finish(self.budget)
            self.keep()
        finally:
            for entrant in self.entrants:
                entrant.end()

    def start(self) -> None:
        """Starts every row, and settles how many rounds there will be, and of whom."""
        # The others are known to be skipped.
        able = [entrant for entrant in self.entrants if entrant.result["status"] == "ok"]
        in_order = sorted(able, key=lambda entrant: entrant.row.rank)
        longest = 0.0
        for number, entrant in enumerate(in_order):
            budget = self.before_rounds()
            if budget.left() <= longest / 2:
                entrant.drop(RowError("skipped", NO_TIME))
            else:
                row, before = entrant.row, budget.left()
                self.say(f"{row.name} {row.label}: starting, {number + 1} of {len(in_order)}")
                self.start_row(entrant, budget, len(in_order) - number)
                if entrant.process:
                    longest = max(longest, (before - budget.left()) / len(entrant.trials))
            self.say(entrant.told())
        for entrant in self.entrants:
            if entrant.reconsider(self.schedule, self.before_rounds()):
                self.say(entrant.told())
        self.plan()
        self.keep()

    def start_row(self, entrant: Entrant, budget: Budget, waiting: int) -> None:
        """Starts a row; of several that wait, one that is no main row has a share of the time."""
        if entrant.row.quick or waiting == 1:
            entrant.start(self.settings, self.schedule, self.cores, budget)
            return
        own = budget.share(waiting)
        entrant.start(self.settings, self.schedule, self.cores, own)
        if entrant.process and self.schedule.least_cost(entrant.epoch_seconds) > own.left():
            entrant.drop(RowError("skipped", own.over))

    def before_rounds(self) -> Budget:
        """What may still go on starting rows: turns of those that are started are kept free."""
        _, spare, *_ = self.schedule.thriftier()
        running = [entrant.epoch_seconds for entrant in self.entrants if entrant.process]
        return self.budget.part(reserve=self.judging() + spare.cost(running))

    def plan(self) -> None:
        """Fits the rounds into the time that is left; rows for which there is none are dropped."""
        if math.isinf(self.budget.left()):
            return
        running = {e.row.name: e.epoch_seconds for e in self.entrants if e.process}
        schedule, staying = fitting(self.schedule, running, self.budget.left() - self.judging())
        if self.rounds_done:  # a table has rounds of one kind
            schedule = self.schedule
        for entrant in self.entrants:
            if entrant.process and entrant.row.name not in staying:
                entrant.drop(RowError("skipped", NO_TIME))
                self.say(entrant.told())
        if schedule != self.schedule:
            self.say(f"{schedule.rounds} rounds with turns of {schedule.turn_seconds:.2g} s fit")
        self.schedule = schedule

    def judging(self) -> float:
        """Seconds that the scores will take at most."""
        if not self.schedule.score:
            return 0.0
        epochs, running = self.settings.config.epochs, [e for e in self.entrants if e.process]
        # Every row has trained at least two by now, and will in each of its turns.
        still = max(0, epochs - 2 - self.schedule.rounds)
        return sum(JUDGING + still * entrant.epoch_seconds for entrant in running)

    def take_round(self, number: int) -> bool:
        """A turn for each row that has one in this round, and others for those that lagged.

        Whether there was time for all of it.
        """
        budget = self.budget.part(reserve=self.judging())
        take_round(
            self.entrants if number % 2 == 0 else self.entrants[::-1],
            number, self.schedule, budget,
        )  # fmt: skip
        self.rounds_done = number + 1
        self.say(f"round {number + 1} of {self.schedule.rounds}")
        self.keep()
        return budget.left() > 0


def take_round(
    entrants: Sequence[Entrant], number: int, schedule: Schedule, budget: Budget
) -> None:
    """A turn for each row that has one in this round, and others for those that lagged."""
    for entrant in entrants:
        if number in schedule.turns_of(slow=entrant.epoch_seconds > schedule.slow_seconds):
            entrant.take_turn(number, schedule, budget)
    for _ in range(schedule.retakes):
        for entrant in entrants:
            if entrant.lags(number, schedule):
                entrant.take_turn(number, schedule, budget)


def measure(
    rows: Sequence[Row],
    settings: Settings,
    schedule: Schedule,
    cores: int,
    say: Say,
    budget: Budget | None = None,
) -> list[dict[str, Any]]:
    """Runs the rows against each other; a result for each, those that could not run included."""
    entrants = [Entrant(row, blank(row)) for row in rows]
    contest = Contest(entrants, settings, schedule, cores, say, budget or Budget())
    contest.run()
    return contest.results
