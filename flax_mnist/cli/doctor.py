"""`flax-mnist doctor`."""

import dataclasses
import json
import os
import platform
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated

from flax_mnist.cli.flags import Switch, by_default
from flax_mnist.data import default_dir
from flax_mnist.errors import FlaxMnistError
from flax_mnist.show import terminal

_OPTIONAL = {
    "torch": "flax-mnist[test]: the PyTorch reference, and reading .pt files",
    "array-record": "reads datasets that tensorflow-datasets has prepared",
    "tensorboardX": "flax-mnist[tensorboard]",
}


#: Images; none is the place where they would be looked for.
NamedDir = Annotated[Path | None, by_default("DIR|FILE", f"${default_dir.VARIABLE}")]


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Show versions, devices, the data that is found, and what is missing.

    Examples::

        flax-mnist doctor
        flax-mnist doctor --data-dir /data/mnist
    """

    data_dir: NamedDir = dataclasses.field(default_factory=default_dir.named)
    """Folder or file to look at: which dataset it holds, and in which form."""
    json: Switch = False
    """Print one JSON object a finding, with its name and its value."""

    def run(self) -> None:
        for name, value in _diagnose(self.data_dir):
            if self.json:
                terminal.say(json.dumps({"name": name, "value": value}))
            else:
                terminal.say(f"{name:<20} {value}")


def _diagnose(data_dir: Path | None) -> Iterator[tuple[str, str]]:
    """What this machine has and lacks for the program, each as a name and what there is to say."""
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
    for device in _devices():
        yield "device", device
    if data_dir is not None:
        yield "data-dir", _look_at(data_dir)
    for name in KNOWN:
        yield name, find_dataset(name) or "not on disk: downloaded at first use, or give --data-dir"
    yield "synthetic", "always there"
    yield "cache", str(cache_dir() or "none: no home folder is known. Set HOME or XDG_CACHE_HOME")


def _devices() -> list[str]:
    import jax

    try:
        return [f"{device.platform}:{device.id} {device.device_kind}" for device in jax.devices()]
    except Exception as error:  # RuntimeError, or AssertionError where a plugin is missing
        return [f"NONE: {error}. Look at JAX_PLATFORMS."]


def _look_at(data_dir: Path) -> str:
    """Which dataset is there, in which form."""
    from flax_mnist.data.dataset import identify

    path = Path(os.path.expanduser(data_dir))
    try:
        dataset = identify(path)
    except FlaxMnistError as error:
        return f"NOTHING: {error}"
    n_train, n_test = dataset.counts
    return f"{path}: {dataset.form} of {dataset.name}, {n_train:,} and {n_test:,} images"
