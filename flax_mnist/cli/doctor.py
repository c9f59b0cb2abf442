"""`flax-mnist doctor`."""

import dataclasses
import platform
from collections.abc import Iterator

from flax_mnist.show import terminal

_OPTIONAL = {
    "torch": "flax-mnist[test]: the PyTorch reference, and reading .pt files",
    "array-record": "reads datasets that tensorflow-datasets has prepared",
    "tensorboardX": "flax-mnist[tensorboard]",
}


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Show versions, devices, the data that is found, and what is missing."""

    def run(self) -> None:
        for name, value in _diagnose():
            terminal.say(f"{name:<20} {value}")


def _diagnose() -> Iterator[tuple[str, str]]:
    """What this machine has and lacks for the program, each as a name and what there is to say."""
    import jax

    from flax_mnist import __version__
    from flax_mnist.data.dataset import KNOWN
    from flax_mnist.data.tfds import find_dataset
    from flax_mnist.devices.environment import PACKAGES, version
    from flax_mnist.files import cache_dir

    yield "flax-mnist", __version__
    yield "Python", f"{platform.python_version()} on {platform.platform()}"
    for package in PACKAGES:
        yield package, version(package) or "NOT INSTALLED"
    for package, use in _OPTIONAL.items():
        yield package, version(package) or f"not installed ({use})"
    try:
        for device in jax.devices():
            yield "device", f"{device.platform}:{device.id} {device.device_kind}"
    except Exception as error:  # RuntimeError, or AssertionError where a plugin is missing
        yield "device", f"NONE: {error}. Look at JAX_PLATFORMS."
    for name in KNOWN:
        yield name, find_dataset(name) or "not on disk: downloaded at first use, or give --data-dir"
    yield "synthetic", "always there"
    yield "cache", str(cache_dir() or "none: no home folder is known. Set HOME or XDG_CACHE_HOME")
