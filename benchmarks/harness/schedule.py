"""How long each row is looked at, and what of it fits into the time there is."""

import dataclasses
import math
import statistics
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Self


@dataclasses.dataclass(frozen=True)
class Schedule:
    rounds: int = 7
    turn_seconds: float = 1.0  #: Timed epochs fill about this long; one is the least.
    trial_turns: int = 3  #: Turns in which variants and numbers of threads compete for a row.
    #: A row whose epoch takes longer has no untimed ones: cold caches are nothing to it.
    warm_seconds: float = 2.0
    slow_seconds: float = 2.0  #: A row whose epoch takes longer competes by its first epochs.
    slow_rounds: int = 7  #: Rounds in which such a row has a turn, spread evenly.
    #: Pause before a turn, in which the thread pools of the row before fall asleep. It also
    #: ends spells in which two virtual cores share one of the host's, kept up by threads that spin.
    settle_seconds: float = 0.25
    #: A turn that took more than this times the row's best so far is taken again.
    lag: float = 1.25
    retakes: int = 2  #: How many times at most.
    score: bool = True  #: Whether the weights are judged.

    def turns_of(self, slow: bool) -> set[int]:
        """The rounds in which a row has a turn."""
        count = min(self.slow_rounds, self.rounds) if slow else self.rounds
        return {round(i * (self.rounds - 1) / max(1, count - 1)) for i in range(count)}

    def calls_of(self, seconds: float) -> int:
        """How many calls a turn times, where one takes so many seconds."""
        return max(1, round(self.turn_seconds / seconds))

    def turn_cost(self, seconds: float) -> float:
        """Seconds that a turn takes of a row whose call takes so many."""
        warm_up = seconds if seconds <= self.warm_seconds else 0.0
        return self.settle_seconds + warm_up + self.calls_of(seconds) * seconds

    def cost(self, seconds: Sequence[float]) -> float:
        """Seconds that all rounds take of rows whose calls take so many."""
        return RETAKEN * sum(
            self.turn_cost(s) * len(self.turns_of(slow=s > self.slow_seconds)) for s in seconds
        )

    def least_cost(self, seconds: float) -> float:
        """Seconds that the fewest and shortest turns take of a row whose call takes so many."""
        *_, thriftiest = self.thriftier()
        return thriftiest.cost([seconds])

    def thriftier(self) -> Iterator[Self]:
        """This schedule, and others that take less and less time."""
        yield self
        fewest = min(FEWEST_ROUNDS, self.rounds)
        spare = dataclasses.replace(self, slow_rounds=min(fewest, self.slow_rounds))
        yield spare
        for turn_seconds in (self.turn_seconds / 2, self.turn_seconds / 4):
            yield dataclasses.replace(spare, turn_seconds=turn_seconds)
        for rounds in range(self.rounds - 1, fewest - 1, -1):
            yield dataclasses.replace(spare, turn_seconds=self.turn_seconds / 4, rounds=rounds)


NO_TIME = "no time was left for it"
SHARE = 0.25  #: The most of the time left that one row may take, where at least four wait.
OVER_SHARE = "over its share of the time"
RETAKEN = 1.25  #: What rounds take more than planned: turns that are taken again, and waiting.
FEWEST_ROUNDS = 3  #: Of which there is a median that one bad turn does not decide.


def fitting(
    schedule: Schedule, epochs: Mapping[str, float], seconds: float
) -> tuple[Schedule, set[str]]:
    """What can be done in so many seconds with rows whose calls take so long, by their names.

    Turns are made shorter, then fewer; where three rounds of the shortest do not fit, the slowest
    rows go. Returns the schedule and the names of the rows that stay.
    """
    staying = dict(epochs)
    *_, thriftiest = schedule.thriftier()
    while staying and thriftiest.cost(list(staying.values())) > seconds:
        del staying[max(staying, key=staying.__getitem__)]
    for thrifty in schedule.thriftier():
        if thrifty.cost(list(staying.values())) <= seconds:
            return thrifty, set(staying)
    return thriftiest, set(staying)


@dataclasses.dataclass
class Budget:
    """Time that may be spent, from the moment that this is made."""

    seconds: float = math.inf
    began: float = dataclasses.field(default_factory=time.monotonic)
    over: str = NO_TIME  #: What is said of that for which it is too short.

    def left(self) -> float:
        """Seconds; below 0 where more was spent."""
        return self.began + self.seconds - time.monotonic()

    def part(self, share: float = 1.0, reserve: float = 0.0) -> "Budget":
        """So much of what is left, but for a reserve in seconds."""
        return Budget(share * (self.left() - reserve), time.monotonic(), self.over)

    def share(self, rows: int) -> "Budget":
        """What one of so many rows may take of what is left."""
        return dataclasses.replace(self.part(max(SHARE, 1 / rows)), over=OVER_SHARE)


def seconds_of_turn(turn: Mapping[str, Any]) -> float:
    """The median over the turn's calls, in seconds."""
    return float(statistics.median(turn["seconds"]))
