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
"""

import dataclasses
import math
import time
from collections.abc import Callable, Sequence
from typing import Any

from benchmarks.harness import machine
from benchmarks.harness.process import PATIENCE, Process, RowError
from benchmarks.harness.program import Settings
from benchmarks.harness.schedule import Schedule, seconds_of_turn
from benchmarks.rows import Row, Variant

Say = Callable[[str], None]


@dataclasses.dataclass(eq=False)
class Trial:
    """A candidate for a row: one of its variants, on so many threads."""

    variant: Variant
    threads: int
    process: Process | None = None
    problem: RowError | None = None
    first_seconds: float = 0.0  #: Of its first call, which may compile.
    #: Of its fastest later call: whatever else the machine did meanwhile only added to it.
    seconds: float = math.inf

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
            self.end(error)

    def take_turn(self, schedule: Schedule) -> None:
        """Some more calls, where they do not take long."""
        if self.process is None or self.seconds > schedule.slow_seconds:
            return
        time.sleep(schedule.settle_seconds)
        try:
            self.seconds = min(self.seconds, self.ask(schedule.calls_of(self.seconds)))
        except RowError as error:
            self.end(error)

    def ask(self, calls: int = 1, timeout: float = PATIENCE) -> float:
        """Seconds of the fastest of some calls."""
        assert self.process
        return float(min(self.process.ask(warm_up=0, calls=calls, timeout=timeout)["seconds"]))

    def end(self, problem: RowError | None = None) -> None:
        self.problem = self.problem or problem
        if self.process:
            self.process.close()
        self.process = None

    def told(self) -> dict[str, Any]:
        """As it is kept with the results."""
        known = {"reason": str(self.problem)} if self.problem else {"seconds": self.seconds}
        return {"variant": self.variant.label, "threads": self.threads, **known}


def fastest(trials: Sequence[Trial]) -> Trial | None:
    """Of those that still run."""
    return min((t for t in trials if t.process), key=lambda t: t.seconds, default=None)


@dataclasses.dataclass
class Entrant:
    """A row that is being measured."""

    row: Row
    result: dict[str, Any]
    process: Process | None = None
    epoch_seconds: float = 0.0  #: Of one call, as far as it is known.
    best: float = 0.0  #: Of one call, in its trials or its best turn so far.
    trials: list[Trial] = dataclasses.field(default_factory=list)

    def choose(self, trial: Trial) -> None:
        """The row is what this candidate makes of it."""
        assert trial.process
        self.process = trial.process
        self.epoch_seconds = self.best = trial.seconds
        self.result |= {
            "variant": trial.variant.label,
            "threads": trial.threads,
            "first_seconds": trial.first_seconds,
            **trial.process.first,
        }
        if len(self.trials) > 1:
            self.result["trials"] = [trial.told() for trial in self.trials]

    def settle(self, trials: Sequence[Trial], schedule: Schedule, keep_rival: bool = False) -> None:
        """Candidates take turns and the fastest is chosen; the row is given up where none runs.

        The others end, but for a rival: the fastest on more threads than the chosen one.
        """
        for number in range(schedule.trial_turns if len(trials) > 1 else 0):
            for trial in trials if number % 2 == 0 else reversed(trials):
                trial.take_turn(schedule)
        best = fastest(trials)
        if best is None:
            self.drop(next(trial.problem for trial in trials if trial.problem))
            return
        self.choose(best)
        more_threads = [trial for trial in trials if trial.threads > best.threads]
        rival = fastest(more_threads) if keep_rival else None
        for trial in trials:
            if trial not in (best, rival):
                trial.end()

    def drop(self, error: RowError) -> None:
        self.result |= {"status": error.status, "reason": str(error)}
        self.end()

    def end(self) -> None:
        for trial in self.trials:
            trial.end()
        self.process = None


def blank(row: Row) -> dict[str, Any]:
    described = {key: getattr(row, key) for key in ("name", "label", "kind", "family")}
    return {**described, "status": "ok", "turns": [], "retaken": []}


def left_out(row: Row, reason: str) -> dict[str, Any]:
    return blank(row) | {"status": "skipped", "reason": reason}


def enter(entrant: Entrant, settings: Settings, schedule: Schedule, cores: int) -> None:
    """Starts a row's process: of several candidates the fastest one, when they take turns."""
    candidates = entrant.row.candidates(cores, settings.device)
    if isinstance(candidates, str):
        entrant.drop(RowError("skipped", candidates))
        return
    entrant.trials = [Trial(variant, threads) for variant, threads in candidates]
    for trial in entrant.trials:
        trial.begin(settings, fastest(entrant.trials))
    entrant.settle(entrant.trials, schedule, keep_rival=True)


def reconsider(entrant: Entrant, schedule: Schedule) -> bool:
    """Where one thread beat several, they compete again; whether they did.

    Several may have been caught on one of the host's cores.
    """
    running = [trial for trial in entrant.trials if trial.process]
    if len(running) < 2:
        return False
    entrant.settle(running, schedule)
    return True


def measure(
    rows: Sequence[Row], settings: Settings, schedule: Schedule, cores: int, say: Say
) -> list[dict[str, Any]]:
    """Runs the rows against each other; a result for each, those that could not run included."""
    entrants = [Entrant(row, blank(row)) for row in rows]
    try:
        for entrant in entrants:
            enter(entrant, settings, schedule, cores)
            say(progress(entrant))
        for entrant in entrants:
            if reconsider(entrant, schedule):
                say(progress(entrant))
        for number in range(schedule.rounds):
            take_round(entrants if number % 2 == 0 else entrants[::-1], number, schedule)
            say(f"round {number + 1} of {schedule.rounds}")
        for entrant in entrants:
            finish(entrant, schedule)
    finally:
        for entrant in entrants:
            entrant.end()
    return [entrant.result for entrant in entrants]


def progress(entrant: Entrant) -> str:
    """What became of a row's start."""
    if entrant.process is None:
        return f"{entrant.row.name} {entrant.result['status']}: {entrant.result['reason']}"
    variant = f"{entrant.result['variant']}, " if entrant.result["variant"] else ""
    how = f"{variant}threads {entrant.result['threads']}"
    return f"{entrant.row.name} {how}: {entrant.epoch_seconds:.3g} s"


def take_round(entrants: Sequence[Entrant], number: int, schedule: Schedule) -> None:
    """A turn for each row that has one in this round, and others for those that lagged."""
    for entrant in entrants:
        if number in schedule.turns_of(slow=entrant.epoch_seconds > schedule.slow_seconds):
            take_turn(entrant, number, schedule)
    for _ in range(schedule.retakes):
        for entrant in entrants:
            if lags(entrant, number, schedule):
                take_turn(entrant, number, schedule)


def lags(entrant: Entrant, number: int, schedule: Schedule) -> bool:
    """Whether a row's turn in this round took far longer than its best."""
    return any(
        turn["round"] == number and seconds_of_turn(turn) > schedule.lag * entrant.best
        for turn in entrant.result["turns"][-1:]
    )


def take_turn(entrant: Entrant, number: int, schedule: Schedule) -> None:
    """A turn, or another one, of which the faster counts."""
    if entrant.process is None:
        return
    time.sleep(schedule.settle_seconds)
    warm_up = int(entrant.epoch_seconds <= schedule.warm_seconds)
    calls = schedule.calls_of(entrant.epoch_seconds)
    try:
        answer = entrant.process.ask(warm_up=warm_up, calls=calls)
    except RowError as error:
        entrant.drop(error)
        return
    entrant.result["peak_memory"] = answer["peak_memory"]
    taken = {
        "round": number,
        "seconds": answer["seconds"],
        "idle_cpu_seconds": answer["idle_cpu_seconds"],
        "load_average": machine.load_average(),
    }
    turns = entrant.result["turns"]
    if turns and turns[-1]["round"] == number:
        taken, slower = sorted((turns.pop(), taken), key=seconds_of_turn)
        entrant.result["retaken"].append(slower)
    turns.append(taken)
    entrant.best = min(entrant.best, seconds_of_turn(taken))


def finish(entrant: Entrant, schedule: Schedule) -> None:
    if entrant.process and schedule.score:
        try:
            # Its peak memory is no longer of interest: judging takes more than training.
            entrant.result["scores"] = entrant.process.ask(score=True)["scores"]
        except RowError as error:
            entrant.drop(error)
    entrant.end()
