"""What this machine has and lacks for the program."""

from __future__ import annotations

import platform
from collections.abc import Iterator

import jax

from flax_mnist import __version__, run_dir
from flax_mnist.cache import cache_dir
from flax_mnist.data import find_dataset

_OPTIONAL = {
    "torch": "flax-mnist[test]: the PyTorch reference, and reading .pt files",
    "array-record": "reads datasets that tensorflow-datasets has prepared",
    "tensorboardX": "flax-mnist[tensorboard]",
}


def diagnose() -> Iterator[tuple[str, str]]:
    """Versions, devices, data and what is missing, each as a name and what there is to say."""
    yield "flax-mnist", __version__
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    for package in run_dir.PACKAGES:
        yield package, run_dir.version(package) or "NOT INSTALLED"
    for package, use in _OPTIONAL.items():
        yield package, run_dir.version(package) or f"not installed ({use})"
    try:
        for device in jax.devices():
            yield "device", f"{device.platform}:{device.id} {device.device_kind}"
    except Exception as error:  # RuntimeError, or AssertionError where a plugin is missing
        yield "device", f"NONE: {error}. Look at JAX_PLATFORMS."
    for name in ("mnist", "fashion_mnist", "kmnist"):
        place = find_dataset(name)
        yield name, place or "not on disk: downloaded at first use, or give --data-dir"
    yield "synthetic", "always there"
    yield "cache", str(cache_dir())
