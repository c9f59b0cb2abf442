"""A fresh process for a row: prepares it, then trains epochs whenever it is asked to.

    python -m benchmarks.harness.worker JOB

Reads a JSON object a line from standard input and answers each with one on standard output. Between
two requests it waits for the next line, and so takes no time from the rows that run meanwhile; how
much it took nevertheless it tells. With `"whole": true` in the job it trains the tutorial's epochs,
scores them and ends: what a user waits for.
"""

import importlib
import json
import os
import sys
import time
from typing import Any

from benchmarks.harness import machine
from benchmarks.harness.judge import score
from benchmarks.harness.program import Program, Settings, UnavailableError, Weights
from flax_mnist.data.dataset import Dataset, load_dataset
from flax_mnist.devices.footprint import peak_memory


def time_call(program: Program) -> float:
    """Seconds of one call of `program.epoch`, the device idle before and after."""
    program.wait()
    start = time.perf_counter()
    program.epoch()
    program.wait()
    return time.perf_counter() - start


class Worker:
    """A row's program, and what is known of it so far."""

    def __init__(self, job: dict[str, Any]) -> None:
        self.settings = Settings.from_json(job["settings"])
        module, name = job["entry"].split(":")
        start = time.perf_counter()
        program_class = getattr(importlib.import_module(module), name)
        imported = time.perf_counter()
        self.dataset: Dataset = load_dataset(self.settings.dataset, self.settings.data_dir)
        loaded = time.perf_counter()
        self.program: Program = program_class(self.dataset, self.settings, **job["options"])
        self.program.wait()
        prepared = time.perf_counter()
        self.calls = 0
        self.trained: list[Weights] | None = None
        self.first = {
            "import_seconds": imported - start,
            "data_seconds": loaded - imported,
            "prepare_seconds": prepared - loaded,
            "compile_seconds": self.program.compile_seconds,
            "models": self.program.models,
            "epochs_per_call": self.program.epochs_per_call,
            "device": self.program.device,
            "environment": machine.environment(),
        }
        self.busy_until = time.process_time()

    def train(self, calls: int) -> list[float]:
        """Seconds of each call; keeps the weights as they are after the tutorial's epochs."""
        seconds = []
        for _ in range(calls):
            seconds.append(time_call(self.program))
            self.calls += 1
            if self.calls * self.program.epochs_per_call == self.settings.config.epochs:
                self.trained = self.program.weights()
        return seconds

    def answer(self, request: dict[str, Any]) -> dict[str, Any]:
        """`{"warm_up": n, "calls": n}` or `{"score": true}`."""
        reply: dict[str, Any] = {"idle_cpu_seconds": time.process_time() - self.busy_until}
        if "score" in request:
            reply["scores"] = self.scores()
        else:
            self.train(request["warm_up"])
            reply["seconds"] = self.train(request["calls"])
        reply["peak_memory"] = self.program.device_memory() or peak_memory()
        self.busy_until = time.process_time()
        return reply

    def scores(self) -> list[tuple[float, float]]:
        """Test loss and accuracy of each model after the tutorial's epochs, trained now if need be.

        Empty where nothing is trained.
        """
        if not self.program.weights():
            return []
        while self.trained is None:
            self.train(1)
        return [score(weights, self.dataset.test) for weights in self.trained]


def main() -> None:
    # Standard output is for the answers alone: what libraries print there goes to standard error.
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)
    job = json.loads(sys.argv[1])

    def send(reply: dict[str, Any]) -> None:
        print(json.dumps(reply), file=answers, flush=True)

    try:
        worker = Worker(job)
        if job.get("whole"):
            worker.train(worker.settings.config.epochs)
            send({"scores": worker.scores()})
            return
        send(worker.first)
        for line in sys.stdin:
            send(worker.answer(json.loads(line)))
    except UnavailableError as reason:
        send({"skipped": str(reason)})
    except Exception as error:
        lines = str(error).strip().splitlines() or [""]
        send({"failed": f"{type(error).__name__}: {lines[0][:200]}"})
        raise


if __name__ == "__main__":
    main()
