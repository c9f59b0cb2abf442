"""Checkpoints: a run's progress in its folder, as it was after a step, or not at all.

`checkpoints/4690.safetensors` is the one after step 4,690, counted from the beginning of the run.
It is a safetensors file that any reader of the format opens: the leaves of state and losses by
their paths, and as metadata

    epoch, step, seconds   as in `Progress`
    run                    what the checkpoint belongs to: settings and dataset, JSON
    sha256                 of all bytes of the file but these 64 digits

A file gets its name only when it is whole, and nothing in it is believed before the digest is
found right: safetensors itself does not notice a flipped bit.
"""

import hashlib
import itertools
import json
import math
import os
import re
import shutil
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray

from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.errors import DataError, FlaxMnistError, FlaxMnistWarning, RequestError
from flax_mnist.files import read, write_atomically
from flax_mnist.train import Losses, State

FOLDER = "checkpoints"
PARTIAL, DAMAGED = ".partial", ".damaged"
Arrays = dict[str, NDArray[Any]]  #: By the paths to them in the state.
_NAME = re.compile(r"(0|[1-9][0-9]*)\.safetensors")
# Stands there once: within JSON's strings, those of `run` too, a quote follows a backslash.
_BEFORE_DIGEST, _DIGITS = b'"sha256":"', 64


class Progress(NamedTuple):
    """Where a run stands: all that is needed to go on from there as if it had never stopped."""

    state: State
    losses: Losses  #: Of the unfinished epoch.
    epoch: int = 0  #: Epochs finished.
    step: int = 0  #: Steps done in the unfinished epoch.
    seconds: float = 0.0  #: Wall time of training in the unfinished epoch.


class Checkpoint(NamedTuple):
    """What a file holds."""

    epoch: int
    step: int
    seconds: float  #: These three as in `Progress`.
    run: dict[str, Any]  #: What the checkpoint belongs to.
    arrays: Arrays  #: The leaves of state and losses.


def save(run_dir: Path, step: int, progress: Progress, run: Mapping[str, Any], keep: int) -> None:
    """Adds the checkpoint after a step, counted since the run began, to the folder of a run.

    `run` is JSON that `restore` must be given again. The oldest checkpoints are removed, so that
    `keep` of them remain, at least 1.

    Raises:
        FlaxMnistError: it cannot be written, or a weight is not finite; those before it are
            untouched.
    """
    arrays = arrays_of((progress.state, progress.losses))
    if not _are_finite(arrays):
        raise FlaxMnistError(
            f"The weights are not finite after step {step:,}; nothing was saved. "
            "Try a smaller --learning-rate."
        )
    epoch, done, seconds = progress.epoch, progress.step, float(progress.seconds)
    write(run_dir, step, Checkpoint(epoch, done, seconds, dict(run), arrays), keep)


def write(run_dir: Path, step: int, checkpoint: Checkpoint, keep: int) -> None:
    """As `save`, of whatever arrays; they need not be finite.

    Raises:
        FlaxMnistError: it cannot be written; those before it are untouched.
    """
    path = _path(run_dir, step)
    metadata = {
        "epoch": str(checkpoint.epoch),
        "step": str(checkpoint.step),
        "seconds": str(checkpoint.seconds),
        "run": json.dumps(checkpoint.run),
        "sha256": "0" * _DIGITS,
    }
    try:
        path.parent.mkdir(exist_ok=True)
        _remove_partial(run_dir)
        write_atomically(path, _sealed(safetensors.numpy.save(checkpoint.arrays, metadata)))
        for old in [_path(run_dir, step) for step in steps(run_dir)[:-keep]]:
            if old.is_dir():  # somebody has put a folder in its place
                shutil.rmtree(old)
            else:
                old.unlink()
    except OSError as error:
        raise FlaxMnistError(f"{path}: cannot be written ({error.strerror}).") from error


def restore(run_dir: Path, like: Progress, run: Mapping[str, Any]) -> Progress | None:
    """The newest checkpoint that is whole, as arrays on the default device.

    It is None if there was never a checkpoint. Damaged ones that are newer are set aside, with a
    warning for each. `like` is progress of the same structure, shapes and dtypes, `run` what was
    given to `save`.

    Raises:
        FlaxMnistError: there are checkpoints, and none is whole.
        RequestError: it belongs to another run, and the message lists the differences; or it was
            saved by one of the first builds.
    """
    tree = (like.state, like.losses)

    def fits(found: Checkpoint) -> None:
        specs, wanted = _specs(found.arrays), _specs(arrays_of(tree))
        require_same(found.run | specs, {**run, **wanted})

    found = newest(run_dir, fits)
    if found is None:
        return None
    state, losses = jax.tree.map(jax.numpy.asarray, tree_of(found.arrays, tree))
    return Progress(state, losses, found.epoch, found.step, found.seconds)


def newest(
    run_dir: Path, fits: Callable[[Checkpoint], None], finite: bool = True
) -> Checkpoint | None:
    """The newest checkpoint that is whole, and for which `fits` does not raise; else as `restore`.

    One whose numbers must be `finite`, and are not, is no whole one.
    """
    _refuse_folders(run_dir)
    _remove_partial(run_dir)
    wrong: dict[Path, str] = {}
    for path in [_path(run_dir, step) for step in reversed(steps(run_dir))]:
        try:
            found = read_checkpoint(path, finite)
        except DataError as error:
            wrong[path] = str(error)
            continue
        try:
            fits(found)
        except RequestError as error:
            raise RequestError(f"{path}: {error}") from error
        for damaged, reason in wrong.items():
            aside = _set_aside(damaged)
            warnings.warn(
                f"{reason} It is set aside as {aside.name}; going on from {path.name}.",
                FlaxMnistWarning,
                stacklevel=3,
            )
        return found
    before = sorted((run_dir / FOLDER).glob(f"*{DAMAGED}*"))
    reasons = [*wrong.values(), *(f"{path}: was set aside as damaged." for path in before)]
    if reasons:
        reasons.append("No checkpoint is whole. Train again, with another --run-dir.")
        raise FlaxMnistError(" ".join(reasons))
    return None


def identity(config: Config, dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint belongs to, as `save` and `restore` are given it.

    All settings but those of its end, which may change, the dataset's name, and which images and
    labels it has.
    """
    return config.lasting() | {"dataset": dataset.name, "images": dataset.digest()}


def steps(run_dir: Path) -> list[int]:
    """The checkpoints there are in the folder of a run, whole or not, in order."""
    names = (_NAME.fullmatch(path.name) for path in (run_dir / FOLDER).glob("*"))
    return sorted(int(name[1]) for name in names if name)


def read_checkpoint(path: Path, finite: bool = True) -> Checkpoint:
    """Reads a file of `save`'s, or of `write`'s, whose numbers need not be `finite`.

    Raises:
        DataError: it is missing, or not what was saved.
    """
    try:
        content = read(path)
    except FileNotFoundError as error:
        raise DataError(f"{path}: is missing.") from error
    if _BEFORE_DIGEST not in content or content != _sealed(content):
        raise DataError(f"{path}: is damaged: it is not what was saved.")
    try:
        arrays = safetensors.numpy.load(content)
        header = json.loads(content[8 : 8 + int.from_bytes(content[:8], "little")])
        said = header["__metadata__"]
        epoch, step, seconds = int(said["epoch"]), int(said["step"]), float(said["seconds"])
        run = json.loads(said["run"])
    except (safetensors.SafetensorError, LookupError, TypeError, ValueError) as error:
        raise DataError(f"{path}: cannot be loaded ({error!r:.200}).") from error
    except RecursionError as error:
        raise DataError(f"{path}: cannot be loaded (it is nested too deeply).") from error
    if not (epoch >= 0 and step >= 0 and 0 <= seconds < math.inf and isinstance(run, dict)):
        raise DataError(f"{path}: is no checkpoint: its metadata make no sense.")
    if finite and not _are_finite(arrays):
        raise DataError(f"{path}: not all of its numbers are finite.")
    return Checkpoint(epoch, step, seconds, run, arrays)


def _sealed(content: bytes) -> bytes:
    """A file with the digest that it must have: SHA-256 of all that stands around it."""
    at = content.index(_BEFORE_DIGEST) + len(_BEFORE_DIGEST)
    before, after = memoryview(content)[:at], memoryview(content)[at + _DIGITS :]
    digest = hashlib.sha256(before)
    digest.update(after)
    return b"".join([before, digest.hexdigest().encode(), after])


def arrays_of(tree: Any) -> Arrays:
    """The leaves of a pytree of arrays, by their paths, in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree.flatten_with_path(tree)
    # safetensors writes the memory as it lies and knows no strides.
    return {jax.tree_util.keystr(path): np.asarray(leaf, order="C") for path, leaf in leaves}


def tree_of(arrays: Arrays, like: Any) -> Any:
    """The pytree of which `arrays_of` made the arrays, of the structure of `like`."""
    return jax.tree.map_with_path(lambda path, _: arrays[jax.tree_util.keystr(path)], like)


def _are_finite(arrays: Arrays) -> bool:
    return all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")


def require_same(found: Mapping[str, Any], wanted: Mapping[str, Any]) -> None:
    """Refuses with a `RequestError` a checkpoint that is whole but of another run."""
    needed: dict[str, Any] = json.loads(json.dumps(dict(wanted)))
    # A version of before had not all the settings of today, but did what they say by default.
    unsaid = {name: value for name, value in vars(Config()).items() if name in needed}
    saved = {**unsaid, **found}
    differences = [
        f"{name} is {saved.get(name)} there and {needed.get(name)} here"
        for name in needed | saved
        if saved.get(name) != needed.get(name)
    ]
    if differences:
        raise RequestError(f"is a checkpoint of another run: {'; '.join(differences)}.")


def _specs(arrays: Arrays) -> dict[str, list[Any]]:
    return {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}


def _refuse_folders(run_dir: Path) -> None:
    """Raises the `RequestError` of a run that was saved when checkpoints were folders."""
    for path in sorted((run_dir / FOLDER).glob("*")):
        if path.name.isdigit() and path.is_dir():
            raise RequestError(
                f"{path}: was saved by one of the first builds of this program, whose runs cannot "
                "be resumed. Train again, with another --run-dir."
            )


def _remove_partial(run_dir: Path) -> None:
    """Removes what a killed process had not finished saving."""
    for path in (run_dir / FOLDER).glob(f"*{PARTIAL}"):
        path.unlink()


def _set_aside(path: Path) -> Path:
    """Renames a damaged checkpoint, so that it is no longer one, and returns its new path."""
    endings = itertools.chain([""], (f"-{i}" for i in itertools.count(2)))
    names = (path.with_name(f"{path.name}{DAMAGED}{ending}") for ending in endings)
    return path.rename(next(name for name in names if not os.path.lexists(name)))


def _path(run_dir: Path, step: int) -> Path:
    return run_dir / FOLDER / f"{step}.safetensors"
