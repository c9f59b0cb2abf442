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

from __future__ import annotations

import dataclasses
import json
import math
import os
import selectors
import subprocess
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from benchmarks import machine
from benchmarks.program import Settings
from benchmarks.rows import Row, Variant
from benchmarks.statistics import seconds_of_turn

ROOT = Path(__file__).parents[1]
PATIENCE = 900.0
"""Seconds after which a process that has not answered is given up."""
Say = Callable[[str], None]


@dataclasses.dataclass(frozen=True)
class Plan:
    """How long to look."""

    rounds: int = 7
    turn_seconds: float = 1.0
    """Timed epochs fill about this long; one is the least."""
    trial_turns: int = 3
    """Turns in which variants and numbers of threads compete for a row."""
    warm_seconds: float = 2.0
    """A row whose epoch takes longer has no untimed ones: cold caches are nothing to it."""
    slow_seconds: float = 2.0
    """A row whose epoch takes longer competes by its first epochs."""
    slow_rounds: int = 7
    """Rounds in which such a row has a turn, spread evenly."""
    settle_seconds: float = 0.25
    """Pause before a turn, in which the thread pools of the row before fall asleep. It also
    ends spells in which two virtual cores share one of the host's, kept up by threads that spin."""
    lag: float = 1.25
    """A turn that took more than this times the row's best so far is taken again."""
    retakes: int = 2
    """How many times at most."""
    score: bool = True

    def turns_of(self, slow: bool) -> set[int]:
        """The rounds in which a row has a turn."""
        count = min(self.slow_rounds, self.rounds) if slow else self.rounds
        return {round(i * (self.rounds - 1) / max(1, count - 1)) for i in range(count)}


class RowError(Exception):
    """A row's process skipped its work, failed, or gave no answer; `status` says which."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Process:
    """The parent's end of a worker."""

    def __init__(
        self, variant: Variant, threads: int, settings: Settings, timeout: float = PATIENCE
    ) -> None:
        self.variant, self.threads = variant, threads
        started = time.perf_counter()
        self.process = subprocess.Popen(
            command(variant, settings),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=_errors(),
            env=environment(threads, settings),
            cwd=ROOT,
        )
        self.first = self.read(timeout)
        self.start_seconds = time.perf_counter() - started

    def ask(self, timeout: float = PATIENCE, **request: Any) -> dict[str, Any]:
        """Its answer to a request."""
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise RowError("failed", "its process ended") from None
        return self.read(timeout)

    def read(self, timeout: float) -> dict[str, Any]:
        assert self.process.stdout
        with selectors.DefaultSelector() as selector:
            selector.register(self.process.stdout, selectors.EVENT_READ)
            answered = selector.select(timeout)
        if not answered:
            self.close()
            raise RowError("failed", f"no answer within {timeout:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            self.process.wait(10)  # it has closed its end: what it ends with tells why
            raise RowError("failed", f"its process ended with code {self.process.returncode}")
        answer: dict[str, Any] = json.loads(line)
        for status in ("skipped", "failed"):
            if status in answer:
                self.close()
                raise RowError(status, answer[status])
        return answer

    def close(self) -> None:
        self.process.kill()
        self.process.communicate()


def _errors() -> int | None:
    """Where a worker's standard error goes: libraries warn of much that is no row's fault."""
    return None if os.environ.get("BENCHMARKS_DEBUG") else subprocess.DEVNULL


def command(variant: Variant, settings: Settings, **more: Any) -> list[str]:
    """What starts a worker."""
    job = {
        "entry": variant.entry,
        "options": dict(variant.options),
        "settings": dataclasses.asdict(settings),
        **more,
    }
    return [sys.executable, "-m", "benchmarks.worker", json.dumps(job)]


def environment(threads: int, settings: Settings) -> dict[str, str]:
    """A worker's: the number of threads, and nothing of what an earlier one has compiled."""
    path = [str(ROOT), os.environ.get("PYTHONPATH", "")]
    variables = {**os.environ, "PYTHONPATH": os.pathsep.join(filter(None, path))}
    variables["TORCHINDUCTOR_FORCE_DISABLE_CACHES"] = "1"
    for name in ("OPENBLAS_CORETYPE", "OPENBLAS_L2_SIZE"):
        # OpenBLAS knows the processor better: told another one, NumPy's rows would be handicapped.
        variables.pop(name, None)
    for name in ("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"):
        variables[name] = str(threads)
    if settings.device != "cpu":
        # Rows wait side by side: none may take the accelerator's whole memory beforehand.
        variables.setdefault("XLA_PYTHON_CLIENT_PREALLOCATE", "false")
    return variables


# ---- one row -----------------------------------------------------------------------------------


@dataclasses.dataclass
class Entrant:
    """A row that is being measured."""

    row: Row
    result: dict[str, Any]
    process: Process | None = None
    epoch_seconds: float = 0.0
    """Of one call, as far as it is known."""
    best: float = 0.0
    """Of one call, in its trials or its best turn so far."""
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

    def drop(self, error: RowError) -> None:
        """Nothing more will come of it."""
        self.result |= {"status": error.status, "reason": str(error)}
        self.end()

    def end(self) -> None:
        """Ends its processes."""
        for trial in self.trials:
            trial.end()
        self.process = None


def blank(row: Row) -> dict[str, Any]:
    """The result of a row that has not run yet."""
    described = {key: getattr(row, key) for key in ("name", "label", "kind", "family")}
    return {**described, "status": "ok", "turns": [], "retaken": []}


def left_out(row: Row, reason: str) -> dict[str, Any]:
    """The result of a row that is not to run."""
    return blank(row) | {"status": "skipped", "reason": reason}


def enter(row: Row, settings: Settings, plan: Plan, cores: int) -> Entrant:
    """Starts a row's process: of several candidates the fastest one, when they take turns."""
    entrant = Entrant(row, blank(row))
    candidates = row.candidates(cores, settings.device)
    if isinstance(candidates, str):
        entrant.drop(RowError("skipped", candidates))
        return entrant
    trials = entrant.trials = [Trial(variant, threads) for variant, threads in candidates]
    try:
        for trial in trials:
            trial.begin(settings, fastest(trials))
        compete(trials, plan)
    except BaseException:
        entrant.end()
        raise
    best = fastest(trials)
    if best is None:
        entrant.drop(next(trial.problem for trial in trials if trial.problem))
        return entrant
    entrant.choose(best)
    rival = fastest([trial for trial in trials if trial.threads > best.threads])
    for trial in trials:
        if trial is not best and trial is not rival:
            trial.end()
    return entrant


def reconsider(entrant: Entrant, plan: Plan) -> bool:
    """Where one thread beat several, they compete again; whether they did.

    Several may have been caught on one of the host's cores.
    """
    running = [trial for trial in entrant.trials if trial.process]
    if len(running) < 2:
        return False
    compete(running, plan)
    best = fastest(running)
    for trial in running:
        if trial is not best:
            trial.end()
    if best is None:
        entrant.drop(next(trial.problem for trial in running if trial.problem))
    else:
        entrant.choose(best)
    return True


def compete(trials: Sequence[Trial], plan: Plan) -> None:
    """Candidates take turns, forwards and backwards."""
    for number in range(plan.trial_turns if len(trials) > 1 else 0):
        for trial in trials if number % 2 == 0 else reversed(trials):
            trial.take_turn(plan)


def fastest(trials: Sequence[Trial]) -> Trial | None:
    """Of those that still run."""
    return min((t for t in trials if t.process), key=lambda t: t.seconds, default=None)


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

    def begin(self, settings: Settings, best: Trial | None) -> None:
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

    def take_turn(self, plan: Plan) -> None:
        """Some more calls, where they do not take long."""
        if self.process is None or self.seconds > plan.slow_seconds:
            return
        time.sleep(plan.settle_seconds)
        try:
            self.seconds = min(self.seconds, self.ask(calls_of(self.seconds, plan)))
        except RowError as error:
            self.problem = error
            self.end()

    def ask(self, calls: int = 1, timeout: float = PATIENCE) -> float:
        """Seconds of the fastest of some calls."""
        assert self.process
        return float(min(self.process.ask(warm_up=0, calls=calls, timeout=timeout)["seconds"]))

    def end(self) -> None:
        """Ends its process."""
        if self.process:
            self.process.close()
        self.process = None

    def told(self) -> dict[str, Any]:
        """As it is kept with the results."""
        known = {"reason": str(self.problem)} if self.problem else {"seconds": self.seconds}
        return {"variant": self.variant.label, "threads": self.threads, **known}


def calls_of(seconds: float, plan: Plan) -> int:
    """How many calls a turn times, where one takes so many seconds."""
    return max(1, round(plan.turn_seconds / seconds))


# ---- all rows ----------------------------------------------------------------------------------


def measure(
    rows: Sequence[Row], settings: Settings, plan: Plan, cores: int, say: Say
) -> list[dict[str, Any]]:
    """Runs the rows against each other; a result for each, those that could not run included."""
    entrants: list[Entrant] = []
    try:
        for row in rows:
            entrants.append(enter(row, settings, plan, cores))
            say(progress(entrants[-1]))
        for entrant in entrants:
            if reconsider(entrant, plan):
                say(progress(entrant))
        for number in range(plan.rounds):
            take_round(entrants if number % 2 == 0 else entrants[::-1], number, plan)
            say(f"round {number + 1} of {plan.rounds}")
        for entrant in entrants:
            finish(entrant, plan)
    finally:
        for entrant in entrants:
            entrant.end()
    return [entrant.result for entrant in entrants]


def progress(entrant: Entrant) -> str:
    """What became of a row's start."""
    if entrant.process is None:
        return f"{entrant.row.name} {entrant.result['status']}: {entrant.result['reason']}"
    chosen = [entrant.result["variant"]] if entrant.result["variant"] else []
    chosen.append(f"threads {entrant.result['threads']}")
    return f"{entrant.row.name} {', '.join(chosen)}: {entrant.epoch_seconds:.3g} s"


def take_round(entrants: Sequence[Entrant], number: int, plan: Plan) -> None:
    """A turn for each row that has one in this round, and others for those that lagged."""
    for entrant in entrants:
        if number in plan.turns_of(slow=entrant.epoch_seconds > plan.slow_seconds):
            take_turn(entrant, number, plan)
    for _ in range(plan.retakes):
        for entrant in entrants:
            if lags(entrant, number, plan):
                take_turn(entrant, number, plan)


def lags(entrant: Entrant, number: int, plan: Plan) -> bool:
    """Whether a row's turn in this round took far longer than its best."""
    turns = entrant.result["turns"]
    return (
        entrant.process is not None
        and bool(turns)
        and turns[-1]["round"] == number
        and seconds_of_turn(turns[-1]) > plan.lag * entrant.best
    )


def take_turn(entrant: Entrant, number: int, plan: Plan) -> None:
    """A turn, or another one, of which the faster counts."""
    if entrant.process is None:
        return
    time.sleep(plan.settle_seconds)
    warm_up = int(entrant.epoch_seconds <= plan.warm_seconds)
    calls = calls_of(entrant.epoch_seconds, plan)
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


def finish(entrant: Entrant, plan: Plan) -> None:
    """Scores a row and ends its process."""
    if entrant.process is None:
        return
    try:
        if plan.score:
            # Its peak memory is no longer of interest: judging takes more than training.
            entrant.result["scores"] = entrant.process.ask(score=True)["scores"]
    except RowError as error:
        entrant.drop(error)
        return
    entrant.end()


# ---- whole processes ---------------------------------------------------------------------------


def whole_process(
    variant: Variant, threads: int, settings: Settings, cache: Path
) -> dict[str, Any]:
    """Seconds from the start of a process to its end: imports, data, five epochs, score.

    Args:
        variant: what runs.
        threads: that it may use.
        settings: `compilation_cache` is switched on.
        cache: JAX's compilation cache; an empty folder makes a cold start.

    Raises:
        RowError: it failed.
    """
    settings = dataclasses.replace(settings, compilation_cache=True)
    variables = environment(threads, settings) | {
        "JAX_COMPILATION_CACHE_DIR": str(cache),
        # What the command line sets for its own folder.
        "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0",
        "JAX_PERSISTENT_CACHE_MIN_ENTRY_SIZE_BYTES": "-1",
    }
    start = time.perf_counter()
    try:
        done = subprocess.run(
            command(variant, settings, whole=True),
            env=variables,
            cwd=ROOT,
            stdout=subprocess.PIPE,
            stderr=_errors(),
            check=False,
            timeout=PATIENCE,
        )
    except subprocess.TimeoutExpired as error:
        raise RowError("failed", f"no end within {PATIENCE:.0f} s") from error
    seconds = time.perf_counter() - start
    if done.returncode:
        raise RowError("failed", f"its process ended with code {done.returncode}")
    return {"seconds": seconds, **json.loads(done.stdout)}
