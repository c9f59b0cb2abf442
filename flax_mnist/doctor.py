"""What this machine has and lacks for the program."""

from __future__ import annotations

import platform

import jax
from rich.table import Table

from flax_mnist import __version__, run_dir
from flax_mnist.cache import cache_dir
from flax_mnist.data import find_dataset

_OPTIONAL = {
    "torch": "flax-mnist[test]: the PyTorch reference",
    "array-record": "reads datasets that tensorflow-datasets has prepared",
    "tensorboardX": "flax-mnist[tensorboard]",
}


def diagnose() -> Table:
    """Versions, devices, data and what is missing, as a table of two columns."""
    table = Table(show_header=False, box=None, padding=(0, 2, 0, 0))
    table.add_row("flax-mnist", __version__)
    table.add_row("Python", f"{platform.python_version()} on {platform.platform()}")
    for package in run_dir.PACKAGES:
        table.add_row(package, run_dir.version(package) or "NOT INSTALLED")
    for package, use in _OPTIONAL.items():
        table.add_row(package, run_dir.version(package) or f"not installed ({use})")
    for device in jax.devices():
        table.add_row("device", f"{device.platform}:{device.id} {device.device_kind}")
    for name in ("mnist", "fashion_mnist", "kmnist"):
        place = find_dataset(name)
        table.add_row(name, place or "not on disk: downloaded at first use, or give --data-dir")
    table.add_row("synthetic", "always there")
    table.add_row("cache", str(cache_dir()))
    return table
