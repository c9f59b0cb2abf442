"""The folder of a run: `config.json`, `metrics.jsonl`, `weights.safetensors`."""

from __future__ import annotations

import contextlib
import dataclasses
import importlib.metadata
import json
import os
import platform
import sys
import time
from collections.abc import Collection, Iterator
from pathlib import Path
from typing import Any, NamedTuple, TypeVar, get_args

import filelock
import jax

from flax_mnist import __version__
from flax_mnist.config import Config, DatasetName
from flax_mnist.errors import DataError, FlaxMnistError, RequestError
from flax_mnist.files import read, write_atomically
from flax_mnist.model import CLASSES
from flax_mnist.sharding import topology
from flax_mnist.train import Metrics, compiler_options

CONFIG, METRICS, WEIGHTS = "config.json", "metrics.jsonl", "weights.safetensors"
CURVES, LOCK = "loss.png", "lock"

Kind = TypeVar("Kind")

OF_A_RUN = (CONFIG, METRICS, WEIGHTS, "checkpoints", "sweep.jsonl")
"""What stands in a folder where something has been trained."""
PACKAGES = ("jax", "jaxlib", "flax", "optax", "numpy", "tensorflow-datasets")


def create(run_dir: Path | None, dataset_name: str, resume: bool = False) -> Path:
    """Makes the folder, unless it is there to be resumed; `None` is `runs/<dataset>-<timestamp>`.

    Raises:
        RequestError: it holds a run already, or a file stands in its place.
        FlaxMnistError: it cannot be made.
    """
    if run_dir is not None:
        path = Path(os.path.expanduser(run_dir))  # a home that nobody has is a name
        return path if resume else _make(path)
    stem = f"{dataset_name}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [stem] + [f"{stem}-{i}" for i in range(2, 1000)]  # several runs within one second
    for name in names:
        with contextlib.suppress(FileExistsError):
            return _make(Path("runs") / name, exist_ok=False)
    raise FlaxMnistError(f"runs/{stem}: a thousand runs in one second.")


def _make(path: Path, exist_ok: bool = True) -> Path:
    try:
        str(path.absolute()).encode()
    except UnicodeEncodeError as error:
        raise RequestError(
            f"{path}: is no name in UTF-8, as Orbax needs it. Set PYTHONUTF8=1 in the environment."
        ) from error
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError as error:
        if not exist_ok:
            raise
        raise RequestError(f"{path}: is a file, and cannot be the run folder.") from error
    except OSError as error:
        raise FlaxMnistError(f"{path}: cannot be made ({error.strerror}).") from error
    require_no_run(path)
    return path


def require_no_run(path: Path) -> None:
    """Refuses with a `RequestError` a folder that holds a run, what is left of one, or a sweep."""
    if any((path / name).exists() for name in OF_A_RUN):
        raise RequestError(
            f"{path}: holds a run already, or what is left of one. Give another --run-dir, or "
            "--resume to train a run further."
        )


@contextlib.contextmanager
def only_writer(path: Path) -> Iterator[None]:
    """Within, no other process trains in the run folder `path`.

    The operating system frees the lock when the process dies, however it dies.

    Raises:
        RequestError: another process does.
        FlaxMnistError: the folder cannot be written to.
    """
    lock = filelock.FileLock(path / LOCK)
    try:
        lock.acquire(blocking=False)
    except filelock.Timeout as error:
        raise RequestError(f"{path}: another process is training there.") from error
    except OSError as error:
        raise FlaxMnistError(f"{path}: cannot be written to ({error.strerror}).") from error
    try:
        yield
    finally:
        lock.release()


class Checkpoints(NamedTuple):
    """When checkpoints are written, and how many remain: as the flags of that name."""

    every: str
    keep: int


class Record(NamedTuple):
    """What `config.json` says of a run: all that is needed to repeat it, or to use its weights."""

    config: Config
    dataset: DatasetName
    source: str
    """Where the images, or the weights of an imported run, came from."""
    data_dir: Path | None
    class_names: tuple[str, ...]
    checkpoints: Checkpoints | None = None
    """None of an imported run: it was not trained here."""
    devices: int | None = None
    """That shared each batch; read from what `write_config` saw. None where it is not known."""


def write_config(
    path: Path, record: Record, device: jax.Device, known: Collection[str] | None = None
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
        "checkpoints": record.checkpoints._asdict() if record.checkpoints else None,
        "topology": topology(),
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


def metrics_line(metrics: Metrics, dataset_name: str) -> str:
    """An epoch as it stands in `metrics.jsonl`."""
    return json.dumps(metrics._asdict() | {"dataset": dataset_name})


def append_metrics(path: Path, metrics: Metrics, dataset_name: str) -> None:
    """Adds one line to `metrics.jsonl`.

    Raises:
        FlaxMnistError: it cannot be written, or only a part of it; `cut_metrics` removes that.
    """
    file = path / METRICS
    try:
        with file.open("a", encoding="utf-8") as lines:
            lines.write(metrics_line(metrics, dataset_name) + "\n")
    except OSError as error:
        raise FlaxMnistError(f"{file}: cannot be written ({error.strerror}).") from error


def cut_metrics(path: Path, epochs: int) -> None:
    """Leaves in `metrics.jsonl` the lines of the first epochs, so many: later ones are not kept.

    Raises:
        DataError: one of them is missing or damaged.
    """
    file = path / METRICS
    lines = file.read_bytes().splitlines(keepends=True)[:epochs] if file.exists() else []
    write_atomically(file, b"".join(lines))
    there = [row.epoch for row in read_metrics(path)]
    if there != list(range(1, epochs + 1)):
        raise DataError(f"{file}: must have the epochs 1 to {epochs}; it has {there}.")


def read_metrics(path: Path) -> list[Metrics]:
    """The lines of `metrics.jsonl` in the run folder `path`, an epoch each, in order.

    Raises:
        RequestError: the folder holds no metrics: it is no run, or an imported one.
        DataError: a line is damaged; the message names it.
    """
    file = path / METRICS
    try:
        lines = read(file).decode().splitlines()
    except FileNotFoundError as error:
        raise RequestError(f"{path}: holds no training run: it has no {METRICS}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: damaged ({error}).") from error
    rows = []
    for number, line in enumerate(lines, start=1):
        try:
            row = json.loads(line)
            rows.append(Metrics(**{field: row[field] for field in Metrics._fields}))
        except (ValueError, KeyError, TypeError, RecursionError) as error:
            raise DataError(f"{file}: line {number} is damaged ({error!r}).") from error
    return rows


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
        return Record(
            Config(**settings),
            dataset["name"],
            _typed(dataset["source"], str),
            Path(_typed(dataset["data_dir"], str)) if dataset["data_dir"] else None,
            names,
            Checkpoints(_typed(kept["every"], str), _typed(kept["keep"], int)) if kept else None,
            _typed(record["topology"]["devices"], int) if "topology" in record else None,
        )
    except (ValueError, KeyError, TypeError, RecursionError, RequestError) as error:
        file = path / CONFIG if path.is_dir() else path
        raise DataError(f"{file}: damaged ({error!r}).") from error


def _typed(value: Any, kind: type[Kind]) -> Kind:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value
