"""On what machine and with what software a result was measured.

    python -m benchmarks.harness.machine SETTINGS

prints it as JSON. A process of its own: the one that measures must stay small, and looking at
the devices would take hold of them.
"""

import contextlib
import json
import math
import os
import platform
import re
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from benchmarks.harness.program import Settings
from flax_mnist.errors import FlaxMnistError, RequestError

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision", "pillow", "keras",
    "tinygrad", "equinox", "lightning", "scikit-learn",
)  # fmt: skip
VARIABLES = re.compile(
    r"(XLA|JAX|OMP|MKL|OPENBLAS|TORCH|PYTORCH|KMP|GOMP|CUDA|NVIDIA)_|NPROC$|NUM_THREADS$"
)


def cores() -> int:
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def told_by_linux(name: str, file: str) -> str | None:
    """The value of `name` in a file under /proc; None where there is none."""
    try:
        found = re.search(rf"{name}\s*:\s*(.+)", Path(file).read_text())
    except OSError:
        return None
    return found[1].strip() if found else None


def processor() -> str:
    found = told_by_linux("model name", "/proc/cpuinfo")
    return found or platform.processor() or platform.machine()


def memory() -> int | None:
    if not hasattr(os, "sysconf"):  # Windows
        return None
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def load_average() -> float | None:
    """Programs that wanted a core in the last minute, on average."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


@contextlib.contextmanager
def on_cores(count: int | None) -> Iterator[None]:
    """Within, this process and those that it starts have so many cores; None is all of its own.

    Raises:
        RequestError: there are not so many, or the system cannot be told.
    """
    if count is None:
        yield
        return
    if not hasattr(os, "sched_setaffinity"):
        raise RequestError("--threads: this system does not let a process choose its cores.")
    before = os.sched_getaffinity(0)
    if not 1 <= count <= len(before):
        raise RequestError(f"--threads {count}: there are 1 to {len(before)} cores to take.")
    os.sched_setaffinity(0, sorted(before)[:count])
    try:
        yield
    finally:
        os.sched_setaffinity(0, before)


def busy_seconds() -> float | None:
    """What all programs have taken so far of the cores that this process may use."""
    try:
        lines = Path("/proc/stat").read_text().splitlines()
    except OSError:
        return None
    ours = {f"cpu{core}" for core in os.sched_getaffinity(0)}
    taken = [line.split()[1:] for line in lines if line.partition(" ")[0] in ours]
    # User, nice, system, and interrupts; without idling and what another guest has had.
    ticks = sum(int(field) for fields in taken for field in (*fields[:3], *fields[5:7]))
    return ticks / os.sysconf("SC_CLK_TCK")


class Others:
    """What other programs take of the cores from now on."""

    def __init__(self) -> None:
        self.before = self._now()

    @staticmethod
    def _now() -> tuple[float, float, float]:
        ours = os.times()
        return time.monotonic(), busy_seconds() or math.nan, sum(ours[:4])

    def cores(self) -> float | None:
        """How many they had on average; None where the system does not tell."""
        elapsed, busy, ours = (b - a for a, b in zip(self.before, self._now(), strict=True))
        return None if math.isnan(busy) else round(max(0.0, busy - ours) / elapsed, 2)


def commit() -> str | None:
    """Of the sources, marked where they were changed since."""
    git = ("git", "describe", "--always", "--dirty", "--abbrev=12")
    try:
        return subprocess.check_output(git, cwd=ROOT, stderr=subprocess.DEVNULL, text=True).strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def environment() -> dict[str, str]:
    """The variables that change how the frameworks compute."""
    return {name: value for name, value in sorted(os.environ.items()) if VARIABLES.match(name)}


def versions() -> dict[str, str]:
    """Of Python and of the packages that are there."""
    from flax_mnist.devices.environment import version  # imports JAX, which no worker shall hold

    found = {package: version(package) for package in PACKAGES}
    return {"python": platform.python_version()} | {name: v for name, v in found.items() if v}


def describe(settings: Settings) -> dict[str, Any]:
    """All of it; starts JAX on the device, and draws the synthetic digits where nobody has yet."""
    import numpy as np

    from flax_mnist.data.dataset import load_dataset
    from flax_mnist.devices import runtime

    device = runtime.start(settings.device, settings.config, compilation_cache=False)
    dataset = load_dataset(settings.dataset, settings.data_dir)
    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return {
        "dataset": dataset.name,
        "images": len(dataset.train.labels),
        "platform": device.platform,
        "device": processor() if device.platform == "cpu" else device.device_kind,
        "processor": processor(),
        "cores": cores(),
        "memory": memory(),
        "system": platform.platform(),
        "versions": versions(),
        "numpy_blas": f"{blas['name']} {blas['version']}",
        "environment": environment(),
        "commit": commit(),
    }


def slug(machine: dict[str, Any]) -> str:
    """The name of the files of results: the device's, and of a CPU how many cores."""
    cores = f" {machine['cores']} cores" if machine["platform"] == "cpu" else ""
    return re.sub(r"[^a-z0-9]+", "-", (machine["device"] + cores).lower()).strip("-")


def main() -> None:
    try:
        told = describe(Settings.from_json(json.loads(sys.argv[1])))
    except FlaxMnistError as error:
        told = {"error": str(error), "exit_code": error.exit_code}
    json.dump(told, sys.stdout)


if __name__ == "__main__":
    main()
