"""Where a run ran: versions, device and command, as they stand in `config.json`."""

import contextlib
import importlib.metadata
import os
import platform
import sys
from typing import Any

import jax
from jax.sharding import Mesh

from flax_mnist import __version__
from flax_mnist.config import Config
from flax_mnist.devices.runtime import compiler_options

PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")
# The beginnings of the variables that JAX, Flax and XLA may read.
_READ = ("FLAX_", "JAX_", "NVIDIA_TF32_", "XLA_")


def describe(device: jax.Device, config: Config, mesh: Mesh | None = None) -> dict[str, Any]:
    """The parts `topology` and `environment` of `config.json`; JSON."""
    devices = mesh.size if mesh else 1  # that share each batch
    processes = min(jax.process_count(), devices)
    each = devices // processes
    return {
        "topology": {"processes": processes, "devices": devices, "devices_per_process": each},
        "environment": {
            "python": platform.python_version(),
            "platform": platform.platform(),
            "device": f"{device.platform}: {device.device_kind}",
            "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
            "variables": {
                name: value for name, value in sorted(os.environ.items()) if name.startswith(_READ)
            },
            "compiler_options": compiler_options(config.deterministic),
            "versions": {"flax-mnist": __version__} | {name: version(name) for name in PACKAGES},
            "command": sys.argv[1:],
        },
    }


def version(package: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None
