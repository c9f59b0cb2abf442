"""Results as they are kept: JSON with a version, of which `benchmarks/results/schema.json` is the
schema.

Version 1 is what was stored before results had one; it is read as version 2.
"""

import datetime
import json
import math
import uuid
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.tables.summary import derived
from flax_mnist import files
from flax_mnist.errors import DataError, FlaxMnistError, RequestError

VERSION = 2
#: What version 1 did not have.
SINCE_VERSION_1: Mapping[str, Any] = {
    "partial": None, "others_cores": None, "request": {"kind": "full", "rows": [], "minutes": None},
}  # fmt: skip


def read(path: Path) -> dict[str, Any]:
    """A stored result, as version 2 has it.

    Raises:
        RequestError: there is no such file.
        DataError: it is no result, or a newer version's.
    """
    try:
        result = json.loads(files.read(path))
    except FileNotFoundError as error:
        raise RequestError(f"{path}: there is no such file.") from error
    except ValueError as error:
        raise DataError(f"{path}: is no JSON ({error}).") from error
    no_result = f"{path}: is no result of python -m benchmarks"
    if not isinstance(result, dict) or "rows" not in result:
        raise DataError(f"{no_result}.")
    version = result.get("version", 1)
    if version not in (1, VERSION):
        raise DataError(f"{path}: is of version {version}; this program reads up to {VERSION}.")
    try:
        return complete(_upgraded(result) if version == 1 else result)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise DataError(f"{no_result}: {type(error).__name__} {error}.") from error


def _upgraded(result: Mapping[str, Any]) -> dict[str, Any]:
    rounds = result["plan"]["rounds"]
    return {"version": VERSION, **SINCE_VERSION_1, "rounds_done": rounds, **result}


def complete(result: Mapping[str, Any]) -> dict[str, Any]:
    """A result with the figures that follow from its samples."""
    return {**result, "summary": derived(result)}


def prepare(folder: Path) -> Path:
    """The folder, made if need be, into which results can be written.

    Raises:
        RequestError: they cannot.
    """
    probe = folder / f".{uuid.uuid4().hex}"
    try:
        folder.mkdir(parents=True, exist_ok=True)
        probe.touch()
        probe.unlink()
    except OSError as error:
        raise RequestError(f"{folder}: cannot be written to ({error.strerror}).") from error
    return folder


def fresh(folder: Path, name: str) -> Path:
    """Where a result of this name goes: beside all those that are there already."""
    now = datetime.datetime.now(datetime.UTC).strftime("%Y%m%d-%H%M%S")
    path, number = folder / f"{name}-{now}.json", 1
    while path.exists():
        number += 1
        path = folder / f"{name}-{now}-{number}.json"
    return path


def write(result: Mapping[str, Any], path: Path) -> None:
    """Writes it whole.

    Raises:
        FlaxMnistError: it cannot be written.
    """
    content = json.dumps(_finite(result), allow_nan=False) + "\n"
    files.write_atomically(path, content.encode())


def _finite(value: Any) -> Any:
    """JSON knows no number that is none: null is written instead."""
    if isinstance(value, Mapping):
        return {key: _finite(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value


def require_same(now: Mapping[str, Any], then: Mapping[str, Any], path: Path) -> None:
    """Raises a `FlaxMnistError` unless a result was measured on this machine, by this software."""
    for key in ("device", "cores", "dataset", "images", "versions", "commit"):
        if now[key] != then[key]:
            was, is_ = (json.dumps(machine[key]) for machine in (then, now))
            raise FlaxMnistError(
                f"{path}: was measured with {key} {was}, which is now {is_}. Measure anew."
            )
