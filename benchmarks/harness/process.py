"""The process of a row, seen from the one that measures; its own end is `worker.py`."""

import contextlib
import dataclasses
import json
import os
import queue
import signal
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

from benchmarks.harness.machine import ROOT
from benchmarks.harness.program import Settings
from benchmarks.rows import Variant

PATIENCE = 900.0  #: Seconds after which a process that has not answered is given up.
#: Where a worker's standard error goes: libraries warn of much that is no row's fault.
ERRORS = None if os.environ.get("BENCHMARKS_DEBUG") else subprocess.DEVNULL
#: In a group of its own: Ctrl-C is for the process that measures, which ends the others.
COMMON: dict[str, Any] = {
    "stdout": subprocess.PIPE, "stderr": ERRORS, "cwd": ROOT, "start_new_session": True,
}  # fmt: skip


class RowError(Exception):
    """A row's process skipped its work, failed, or gave no answer; `status` says which."""

    def __init__(self, status: str, reason: str) -> None:
        super().__init__(reason)
        self.status = status


class Process:
    """A worker that has prepared its row and waits for requests.

    Raises:
        RowError: it could not prepare it.
    """

    def __init__(
        self, variant: Variant, threads: int, settings: Settings, timeout: float = PATIENCE
    ) -> None:
        job, variables = command(variant, settings), environment(threads, settings)
        self.process = subprocess.Popen(job, stdin=subprocess.PIPE, env=variables, **COMMON)
        # A thread, since a pipe that is waited for with a time-out is what Windows lacks.
        self._lines: queue.SimpleQueue[bytes] = queue.SimpleQueue()
        self._reader = threading.Thread(target=self._read_lines, daemon=True)
        self._reader.start()
        try:
            self.first = self._read(timeout)  #: What it said when it was ready: times, and more.
        except BaseException:  # a signal, for one
            self.close()
            raise

    def ask(self, timeout: float = PATIENCE, **request: Any) -> dict[str, Any]:
        """Its answer to a request.

        Raises:
            RowError: there is none within so many seconds, or not the one that was asked for.
        """
        assert self.process.stdin
        try:
            self.process.stdin.write(json.dumps(request).encode() + b"\n")
            self.process.stdin.flush()
        except BrokenPipeError:
            raise RowError("failed", "its process ended") from None
        return self._read(timeout)

    def _read_lines(self) -> None:
        assert self.process.stdout
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(b"")

    def _read(self, timeout: float) -> dict[str, Any]:
        try:
            line = self._lines.get(timeout=max(0.0, timeout))
        except queue.Empty:
            self.close()
            raise RowError("failed", f"no answer within {max(0.0, timeout):.0f} s") from None
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
        if self.process.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                if hasattr(os, "killpg"):
                    os.killpg(self.process.pid, signal.SIGKILL)  # a loader's workers too
                else:
                    self.process.kill()
        self._reader.join()
        self.process.communicate()


def command(variant: Variant, settings: Settings, **more: Any) -> list[str]:
    row = {"entry": variant.entry, "options": dict(variant.options)}
    job = row | {"settings": dataclasses.asdict(settings)} | more
    return [sys.executable, "-m", "benchmarks.harness.worker", json.dumps(job)]


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


def whole_process(
    variant: Variant, threads: int, settings: Settings, cache: Path, timeout: float = PATIENCE
) -> dict[str, Any]:
    """Seconds from the start of a process to its end: imports, data, five epochs, score.

    `cache` is JAX's compilation cache, which is switched on; an empty folder makes a cold start.

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
    job = command(variant, settings, whole=True)
    start = time.perf_counter()
    try:
        done = subprocess.run(job, env=variables, check=True, timeout=timeout, **COMMON)
    except subprocess.TimeoutExpired as error:
        raise RowError("failed", f"no end within {timeout:.0f} s") from error
    except subprocess.CalledProcessError as error:
        raise RowError("failed", f"its process ended with code {error.returncode}") from error
    return {"seconds": time.perf_counter() - start, **json.loads(done.stdout)}
