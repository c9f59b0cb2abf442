"""What a run was: its `config.json`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import importlib.resources
import json
import os
import platform
import sys
from collections.abc import Collection
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import jax
from jax.sharding import Mesh

from flax_mnist import __version__
from flax_mnist.config import CheckpointPolicy, Config, DatasetName
from flax_mnist.devices.runtime import compiler_options
from flax_mnist.devices.sharding import topology
from flax_mnist.errors import DataError, RequestError
from flax_mnist.files import read, write_atomically
from flax_mnist.model import CLASSES
from flax_mnist.store.run_folder import CONFIG

Kind = TypeVar("Kind")
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")


class Record(NamedTuple):
    """What `config.json` says of a run: all that is needed to repeat it, or to use its weights."""

    config: Config
    dataset: DatasetName
    source: str
    """Where the images, or the weights of an imported run, came from."""
    data_dir: Path | None
    class_names: tuple[str, ...]
    checkpoints: CheckpointPolicy | None = None
    """None of an imported run: it was not trained here."""
    devices: int | None = None
    """That shared each batch; read from what `write_config` saw. None where it is not known."""


def write_config(
    path: Path,
    record: Record,
    device: jax.Device,
    mesh: Mesh | None = None,
    known: Collection[str] | None = None,
) -> None:
    """Writes `config.json` into the run folder `path`, versions and device included.

    Of the settings only those `known`, where it is given: of imported weights nobody can say more.
    """
    settings = dataclasses.asdict(record.config)
    content = {
        "config": {k: v for k, v in settings.items() if known is None or k in known},
        "dataset": {
            "name": record.dataset,
            "source": record.source,
            "data_dir": str(Path(os.path.expanduser(record.data_dir)).resolve())
            if record.data_dir
            else None,
            "class_names": record.class_names,
        },
        "checkpoints": dataclasses.asdict(record.checkpoints) if record.checkpoints else None,
        "topology": topology(mesh),
        "environment": environment(device),
    }
    write_atomically(path / CONFIG, (json.dumps(content, indent=2) + "\n").encode())


def environment(device: jax.Device) -> dict[str, Any]:
    """Versions and device, as they stand in `config.json`."""
    return {
        "python": platform.python_version(),
        "platform": platform.platform(),
        "device": f"{device.platform}: {device.device_kind}",
        "XLA_FLAGS": os.environ.get("XLA_FLAGS", ""),
        "compiler_options": compiler_options(),
        "versions": {"flax-mnist": __version__} | {name: version(name) for name in PACKAGES},
        "command": sys.argv[1:],
    }


def version(package: str) -> str | None:
    """The installed version of a package; None if it is not installed."""
    with contextlib.suppress(importlib.metadata.PackageNotFoundError):
        return importlib.metadata.version(package)
    return None


def read_config(path: Path) -> Record:
    """Reads what `write_config` wrote into the run folder `path`, or a file of its own.

    Raises:
        RequestError: the folder holds no run.
        DataError: its `config.json` is damaged.
    """
    return parse_config(read_config_text(path), path)


def read_config_text(path: Path) -> str:
    """The content of `config.json` in the run folder `path`, or of a file of its own.

    Raises:
        RequestError: the folder holds no run.
        DataError: it cannot be read.
    """
    file = path / CONFIG if path.is_dir() else path
    try:
        return read(file).decode()
    except FileNotFoundError as error:
        raise RequestError(f"{path}: is no run folder: it has no {CONFIG}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: damaged ({error}).") from error


def parse_config(text: str, path: Path) -> Record:
    """What the content of `config.json` says of the run at `path`.

    Raises:
        DataError: it is damaged.
    """
    try:
        record = json.loads(text)
        settings, dataset = record["config"], record["dataset"]
        get_args(DatasetName).index(dataset["name"])  # raises ValueError for any other
        names = tuple(_typed(name, str) for name in dataset["class_names"])
        dict(
            zip(range(CLASSES), names, strict=True)
        )  # raises ValueError where it is no such number
        kept = record["checkpoints"]
        policy = (
            CheckpointPolicy(_typed(kept["every"], str), _typed(kept["keep"], int))
            if kept
            else None
        )
        return Record(
            Config(**settings),
            dataset["name"],
            _typed(dataset["source"], str),
            Path(_typed(dataset["data_dir"], str)) if dataset["data_dir"] else None,
            names,
            policy,
            _typed(record["topology"]["devices"], int) if "topology" in record else None,
        )
    except (ValueError, KeyError, TypeError, RecursionError, RequestError) as error:
        file = path / CONFIG if path.is_dir() else path
        raise DataError(f"{file}: damaged ({error!r}).") from error


def _typed(value: Any, kind: type[Kind]) -> Kind:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value


def read_environment(path: Path) -> dict[str, Any]:
    """What `config.json` in the run folder `path` says of versions, device and command.

    Raises:
        DataError: it keeps none.
    """
    environment = json.loads(read_config_text(path)).get("environment")
    if not isinstance(environment, dict):
        raise DataError(f"{path / CONFIG}: damaged: it has no environment.")
    return environment
