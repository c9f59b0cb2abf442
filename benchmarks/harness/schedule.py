"""How long each row is looked at."""

import dataclasses
import statistics
from collections.abc import Mapping
from typing import Any


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


def seconds_of_turn(turn: Mapping[str, Any]) -> float:
    """The median over the turn's calls, in seconds."""
    return float(statistics.median(turn["seconds"]))
