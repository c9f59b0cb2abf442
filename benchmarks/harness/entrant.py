"""A row that is being measured: the candidates for it, the one that was chosen, and its turns."""

import dataclasses
import math
import time
from collections.abc import Mapping, Sequence
from typing import Any

from benchmarks.harness import machine
from benchmarks.harness.process import PATIENCE, Process, RowError
from benchmarks.harness.program import Settings
from benchmarks.harness.schedule import Budget, Schedule, seconds_of_turn
from benchmarks.rows import Row, Variant


def patience(budget: Budget) -> float:
    """Seconds to wait for an answer."""
    return min(PATIENCE, budget.left())


def in_time(problem: RowError, budget: Budget) -> RowError:
    """What went wrong, or that it was only given too little time."""
    return problem if budget.left() > 0 else RowError("skipped", budget.over)


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

    def begin(self, settings: Settings, best: "Trial | None", budget: Budget) -> None:
        """Starts its process and makes two calls, unless the best one so far is far ahead."""
        try:
            self.process = Process(self.variant, self.threads, settings, patience(budget))
            self.first_seconds = self.ask(timeout=patience(budget))
            # Compiling takes all of a row's candidates about as long.
            if best and self.first_seconds > max(1, 3 * best.first_seconds):
                said = f"{self.first_seconds:.1f} s, not {best.first_seconds:.1f}"
                raise RowError("failed", f"given up: its first call took {said}")  # noqa: TRY301
            # Threads that wait for a busy core can take minutes over an epoch.
            enough = 20 + 10 * best.seconds if best else PATIENCE
            self.seconds = self.ask(timeout=min(enough, patience(budget)))
        except RowError as error:
            self.end(in_time(error, budget))

    def take_turn(self, schedule: Schedule, budget: Budget) -> None:
        """Some more calls, where they do not take long."""
        cost = schedule.turn_cost(self.seconds)
        if self.process is None or self.seconds > schedule.slow_seconds or budget.left() < cost:
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

    @property
    def is_known(self) -> bool:
        """Whether it was started before, by a benchmark that is now gone on with."""
        return "threads" in self.result

    def start(self, settings: Settings, schedule: Schedule, cores: int, budget: Budget) -> None:
        """Starts the row's process: of several candidates the fastest, when they take turns.

        Another candidate is tried only where there is time for as long as the first one took, and
        for the fewest turns besides.
        """
        candidates = self.row.candidates(cores, settings.device)
        if isinstance(candidates, str):
            self.drop(RowError("skipped", candidates))
            return
        trials = [Trial(variant, threads) for variant, threads in candidates]
        if self.is_known:
            chosen = (self.result["variant"], self.result["threads"])
            trials = [trial for trial in trials if (trial.variant.label, trial.threads) == chosen]
        self.trials, longest = trials, 0.0
        for trial in self.trials:
            best = fastest(self.trials)
            own = budget.part(reserve=schedule.least_cost(best.seconds) if best else 0.0)
            if own.left() <= longest:
                trial.end(RowError("skipped", budget.over))
                continue
            before = own.left()
            trial.begin(settings, best, own)
            longest = max(longest, before - own.left())
        self.settle(self.trials, schedule, budget, keep_rival=True)

    def settle(
        self,
        trials: Sequence[Trial],
        schedule: Schedule,
        budget: Budget,
        keep_rival: bool = False,
    ) -> None:
        """Candidates take turns and the fastest is chosen; the row is given up where none runs.

        The others end, but for a rival: the fastest on more threads than the chosen one.
        """
        for number in range(schedule.trial_turns if len(trials) > 1 else 0):
            for trial in trials if number % 2 == 0 else reversed(trials):
                trial.take_turn(schedule, budget)
        best = fastest(trials)
        if best is None:
            problems = (trial.problem for trial in trials if trial.problem)
            self.drop(next(problems, RowError("failed", "what it was is not there any more")))
            return
        self.choose(best)
        more_threads = [trial for trial in trials if trial.threads > best.threads]
        rival = fastest(more_threads) if keep_rival else None
        for trial in trials:
            if trial not in (best, rival):
                trial.end()

    def choose(self, trial: Trial) -> None:
        """The row is what this candidate makes of it."""
        assert trial.process
        self.process = trial.process
        self.epoch_seconds = self.best = trial.seconds
        if self.is_known and len(self.trials) == 1 and self.result["turns"]:
            return
        self.result |= {
            "variant": trial.variant.label,
            "threads": trial.threads,
            "first_seconds": trial.first_seconds,
            **trial.process.first,
        }
        if len(self.trials) > 1:
            self.result["trials"] = [trial.told() for trial in self.trials]

    def reconsider(self, schedule: Schedule, budget: Budget) -> bool:
        """Where one thread beat several, they compete again; whether they did.

        Several may have been caught on one of the host's cores.
        """
        running = [trial for trial in self.trials if trial.process]
        if len(running) < 2:
            return False
        self.settle(running, schedule, budget)
        return True

    def take_turn(self, number: int, schedule: Schedule, budget: Budget) -> None:
        """A turn, or another one, of which the faster counts; none where there is no time."""
        if self.process is None or budget.left() < schedule.turn_cost(self.epoch_seconds):
            return
        time.sleep(schedule.settle_seconds)
        warm_up = int(self.epoch_seconds <= schedule.warm_seconds)
        calls = schedule.calls_of(self.epoch_seconds)
        try:
            answer = self.process.ask(patience(budget), warm_up=warm_up, calls=calls)
        except RowError as error:
            self.drop(in_time(error, budget))
            return
        self.result["peak_memory"] = answer["peak_memory"]
        taken = {
            "round": number,
            "seconds": answer["seconds"],
            "idle_cpu_seconds": answer["idle_cpu_seconds"],
            "load_average": machine.load_average(),
        }
        turns = self.result["turns"]
        if turns and turns[-1]["round"] == number:
            taken, slower = sorted((turns.pop(), taken), key=seconds_of_turn)
            self.result["retaken"].append(slower)
        turns.append(taken)
        self.best = min(self.best, seconds_of_turn(taken))

    def lags(self, number: int, schedule: Schedule) -> bool:
        """Whether its turn in this round took far longer than its best."""
        return any(
            turn["round"] == number and seconds_of_turn(turn) > schedule.lag * self.best
            for turn in self.result["turns"][-1:]
        )

    def finish(self, budget: Budget) -> None:
        """Has its weights judged, and ends its process."""
        if self.process:
            try:
                # Its peak memory is no longer of interest: judging takes more than training.
                answer = self.process.ask(patience(budget), score=True)
                self.result["scores"] = answer["scores"]
            except RowError as error:
                self.drop(in_time(error, budget))
        self.end()

    def drop(self, error: RowError) -> None:
        """Gives the row up. What it has measured stays where only the time was too short."""
        if error.status != "skipped" or not self.result["turns"]:
            self.result |= {"status": error.status, "reason": str(error)}
        self.end()

    def end(self) -> None:
        for trial in self.trials:
            trial.end()
        self.process = None

    def told(self) -> str:
        """What became of its start."""
        if self.process is None:
            return f"{self.row.name} {self.result['status']}: {self.result['reason']}"
        variant = f"{self.result['variant']}, " if self.result["variant"] else ""
        how = f"{variant}threads {self.result['threads']}"
        return f"{self.row.name} {how}: {self.epoch_seconds:.3g} s"


def blank(row: Row) -> dict[str, Any]:
    described = {key: getattr(row, key) for key in ("name", "label", "kind", "family")}
    return {**described, "status": "ok", "turns": [], "retaken": []}


def left_out(row: Row, reason: str) -> dict[str, Any]:
    return blank(row) | {"status": "skipped", "reason": reason}


def resumed(row: Row, known: Mapping[str, Any] | None, rounds: int) -> dict[str, Any]:
    """What is known of a row before round `rounds`, by a benchmark that was stopped."""
    if known is None:
        return blank(row)
    kept = {
        key: [turn for turn in known[key] if turn["round"] < rounds] for key in ("turns", "retaken")
    }
    return {**known, **kept}
