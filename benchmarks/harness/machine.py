"""On what machine and with what software a result was measured.

    python -m benchmarks.harness.machine SETTINGS

prints it as JSON. A process of its own: the one that measures must stay small, and looking at
the devices would take hold of them.
"""

import json
import os
import platform
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

from benchmarks.harness.program import Settings

ROOT = Path(__file__).parents[2]
PACKAGES = (
    "jax", "jaxlib", "flax", "optax", "numpy", "torch", "torchvision", "pillow", "keras",
    "tinygrad",
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


if __name__ == "__main__":
    json.dump(describe(Settings.from_json(json.loads(sys.argv[1]))), sys.stdout)
