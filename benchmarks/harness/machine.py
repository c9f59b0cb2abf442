"""On what machine and with what software a result was measured.

    python -m benchmarks.harness.machine SETTINGS

prints it as JSON. A process of its own: the one that measures must stay small, and looking at
the devices would take hold of them.
"""

import importlib.metadata
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
    """How many this process may use."""
    if hasattr(os, "sched_getaffinity"):
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def processor() -> str:
    """The CPU's model."""
    try:
        found = re.search(r"model name\s*:\s*(.+)", Path("/proc/cpuinfo").read_text())
    except OSError:
        found = None
    return found[1].strip() if found else platform.processor() or platform.machine()


def memory() -> int | None:
    """Bytes of main memory."""
    try:
        return os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES")
    except (ValueError, OSError):
        return None


def load_average() -> float | None:
    """Programs that wanted a core in the last minute, on average."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None


def commit() -> str | None:
    """Of the sources, marked where they were changed since."""
    try:
        return subprocess.run(
            ("git", "describe", "--always", "--dirty", "--abbrev=12"),
            cwd=ROOT,
            capture_output=True,
            text=True,
            check=True,
        ).stdout.strip()
    except (OSError, subprocess.CalledProcessError):
        return None


def environment() -> dict[str, str]:
    """The variables that change how the frameworks compute."""
    return {name: value for name, value in sorted(os.environ.items()) if VARIABLES.match(name)}


def versions() -> dict[str, str]:
    """Of Python and of the packages that are there."""
    found = {"python": platform.python_version()}
    for package in PACKAGES:
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue
    return found


def numpy_blas() -> str:
    """The library that NumPy multiplies with."""
    import numpy as np

    blas = np.show_config(mode="dicts")["Build Dependencies"]["blas"]
    return f"{blas['name']} {blas['version']}"


def describe(settings: Settings) -> dict[str, Any]:
    """All of it; starts JAX on the device, and draws the synthetic digits where nobody has yet."""
    from flax_mnist.data.dataset import load_dataset
    from flax_mnist.devices import runtime

    device = runtime.start(settings.device, settings.config, compilation_cache=False)
    dataset = load_dataset(settings.dataset, settings.data_dir)
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
        "numpy_blas": numpy_blas(),
        "environment": environment(),
        "commit": commit(),
    }


def slug(machine: dict[str, Any]) -> str:
    """The name of the files of results: the device's, and of a CPU how many cores."""
    name = machine["device"] + (
        f" {machine['cores']} cores" if machine["platform"] == "cpu" else ""
    )
    return re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")


if __name__ == "__main__":
    described = describe(Settings.from_json(json.loads(sys.argv[1])))
    json.dump(described, sys.stdout)
