"""Checkpoints: a run's progress in its folder, as it was after a step, or not at all.

Orbax writes each into a folder of its own. What Orbax does not promise is done here: a flipped bit,
a missing file or an array of another shape is noticed, because a checkpoint counts only if its
manifest does, and a manifest holds the SHA-256 of every other file. A folder without one was never
finished: the manifest is written last, and only then the folder gets its name.

    checkpoints/4690/            the step, counted from the beginning of the run
      manifest.json              what is in it and what it belongs to; its own SHA-256 below
      progress/arrays.safetensors
      (Orbax's own files)
"""

from __future__ import annotations

import contextlib
import dataclasses
import hashlib
import json
import os
import shutil
import warnings
from collections.abc import Awaitable, Callable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple
from unittest import mock

import jax
import numpy as np
import safetensors.numpy
from numpy.typing import NDArray
from orbax.checkpoint import v1 as ocp

from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.errors import DataError, FlaxMnistError, FlaxMnistWarning, RequestError
from flax_mnist.files import read, write_atomically
from flax_mnist.train import Losses, State


class Progress(NamedTuple):
    """Where a run stands: all that is needed to go on from there as if it had never stopped."""

    state: State
    losses: Losses
    """Of the unfinished epoch."""
    epoch: int = 0
    """Epochs finished."""
    step: int = 0
    """Steps done in the unfinished epoch."""
    seconds: float = 0.0
    """Wall time of training in the unfinished epoch."""


FOLDER, MANIFEST = "checkpoints", "manifest.json"
PROGRESS, ARRAYS = "progress", "arrays.safetensors"


UNFINISHED, DAMAGED = "unfinished", "damaged"
Arrays = dict[str, NDArray[Any]]


class Manifest(NamedTuple):
    """What `manifest.json` says."""

    epoch: int
    step: int
    seconds: float
    """These three as in `Progress`."""
    run: dict[str, Any]
    """What the checkpoint belongs to: settings and dataset."""
    arrays: dict[str, list[Any]]
    """Name, dtype and shape of each leaf of state and losses."""
    files: dict[str, str]
    """SHA-256 of every other file in the folder."""


@contextlib.contextmanager
def saving(
    run_dir: Path, run: Mapping[str, Any], keep: int
) -> Iterator[Callable[[int, Progress], None]]:
    """Yields a `save` of step and progress that returns at once: the training goes on meanwhile.

    The next call and the end of the block wait for it, and raise what it has raised. Where several
    processes train together, `save` itself waits: see `_orbax`.

    Args:
        run_dir: as for `save`.
        run: as for `save`.
        keep: as for `save`.
    """
    is_alone = jax.process_count() == 1
    pending: list[Future[None]] = []

    def wait() -> None:
        while pending:
            pending.pop().result()

    with ThreadPoolExecutor(max_workers=1) as thread:

        def save_soon(step: int, progress: Progress) -> None:
            wait()
            # Copies: the memory is donated to the next steps.
            state, losses = jax.tree.map(np.array, (progress.state, progress.losses))
            held = progress._replace(state=state, losses=losses)
            pending.append(thread.submit(save, run_dir, step, held, run, keep))
            if not is_alone:
                wait()

        try:
            yield save_soon
        finally:
            wait()


def save(run_dir: Path, step: int, progress: Progress, run: Mapping[str, Any], keep: int) -> None:
    """Adds a checkpoint, and removes the oldest ones beyond `keep`.

    Args:
        run_dir: folder of the run.
        step: done since the run began; the checkpoint's name.
        progress: what is kept.
        run: JSON that `restore` must be given again.
        keep: how many checkpoints remain, at least 1.

    Raises:
        FlaxMnistError: it cannot be written; those before it are untouched.
    """
    arrays = _arrays(progress)
    folder = run_dir / FOLDER
    unfinished = (folder / UNFINISHED).absolute()
    if not _are_finite(arrays):
        raise FlaxMnistError(
            f"The weights are not finite after step {step:,}; nothing was saved. "
            "Try a smaller --learning-rate."
        )
    try:
        folder.mkdir(exist_ok=True)
        remove_unfinished(run_dir)
        with _orbax():
            ocp.save_checkpointables(unfinished, {PROGRESS: arrays})
        manifest = Manifest(
            progress.epoch,
            progress.step,
            progress.seconds,
            dict(run),
            _specs(arrays),
            _digests(unfinished),
        )
        write_atomically(unfinished / MANIFEST, _sealed(manifest))
        os.replace(unfinished, folder / str(step))
        for old in steps(run_dir)[:-keep]:
            # Renamed first: a folder with a step's name is whole, whenever the process is killed.
            os.replace(folder / str(old), unfinished)
            shutil.rmtree(unfinished)
    except FlaxMnistError:
        raise
    except Exception as error:  # whatever Orbax makes of a full disk
        reason = error.strerror if isinstance(error, OSError) and error.strerror else repr(error)
        raise FlaxMnistError(f"{folder / str(step)}: cannot be written ({reason}).") from error


def restore(run_dir: Path, like: Progress, run: Mapping[str, Any]) -> Progress | None:
    """The newest checkpoint that is whole, as arrays on the default device.

    Damaged ones that are newer are set aside, with a warning for each.

    Args:
        run_dir: folder of the run.
        like: progress of the same structure, shapes and dtypes.
        run: as it was given to `save`.

    Returns:
        None if there was never a checkpoint.

    Raises:
        FlaxMnistError: there are checkpoints, and none is whole.
        RequestError: it belongs to another run; the message lists the differences.
    """
    wrong: dict[Path, str] = {}
    found = [run_dir / FOLDER / str(step) for step in reversed(steps(run_dir))]
    for path in found:
        try:
            manifest, arrays = _load(path)
        except DataError as error:
            wrong[path] = str(error)
            continue
        _require_same(path, manifest, like, run)
        for damaged, reason in wrong.items():
            aside = _set_aside(damaged)
            warnings.warn(
                f"{reason} It is set aside as {aside.name}; going on from {path.name}.",
                FlaxMnistWarning,
                stacklevel=2,
            )
        tree = jax.tree.structure((like.state, like.losses))
        state, losses = jax.tree.unflatten(
            tree, [jax.numpy.asarray(arrays[name]) for name in _arrays(like)]
        )
        return Progress(state, losses, manifest.epoch, manifest.step, manifest.seconds)
    before = sorted((run_dir / FOLDER).glob(f"*.{DAMAGED}*"))
    if found or before:
        reasons = [*wrong.values(), *(f"{path}: was set aside as damaged." for path in before)]
        raise FlaxMnistError(
            " ".join([*reasons, "No checkpoint is whole. Train again, with another --run-dir."])
        )
    return None


def identity(config: Config, dataset: Dataset) -> dict[str, Any]:
    """What a checkpoint belongs to, as `save` and `restore` are given it.

    All settings but the number of epochs, which may grow, the dataset's name, and which images and
    labels it has.
    """
    settings = dataclasses.asdict(config)
    del settings["epochs"]
    return settings | {"dataset": dataset.name, "images": dataset.digest()}


def steps(run_dir: Path) -> list[int]:
    """The checkpoints there are in the folder of a run, whole or not, in order."""
    names = [path.name for path in (run_dir / FOLDER).glob("*")]
    return sorted(int(name) for name in names if name.isascii() and name.isdigit())


def remove_unfinished(run_dir: Path) -> None:
    """Removes what a killed process had not finished saving, or removing."""
    for path in (run_dir / FOLDER).glob(f"{UNFINISHED}*"):
        shutil.rmtree(path)


class _AsSafetensors(ocp.handlers.CheckpointableHandler[Arrays, Arrays]):  # type: ignore[misc]
    """How Orbax keeps `Arrays`: in one safetensors file.

    Its own format makes a small state take four times as long.
    """

    async def save(self, directory: Any, checkpointable: Arrays) -> Awaitable[None]:
        async def write() -> None:
            folder = await directory.await_creation()
            (folder / ARRAYS).write_bytes(safetensors.numpy.save(checkpointable))

        return write()

    async def load(
        self, directory: Any, abstract_checkpointable: Arrays | None = None
    ) -> Awaitable[Arrays]:
        async def read() -> Arrays:
            return safetensors.numpy.load((directory / ARRAYS).read_bytes())

        return read()

    async def metadata(self, directory: Any) -> Arrays:
        raise NotImplementedError

    def is_handleable(self, checkpointable: Any) -> bool:
        return isinstance(checkpointable, dict)

    def is_abstract_handleable(self, abstract_checkpointable: Any) -> bool | None:
        return isinstance(abstract_checkpointable, dict)


@contextlib.contextmanager
def _orbax() -> Iterator[None]:
    """Within, Orbax keeps `Arrays`, and takes this process for the only one.

    It would have all processes save together, to one disk that all of them see; but each has the
    whole state, and the first writes it. All threads of this process take it for that meanwhile.
    """
    context = ocp.Context()
    # Nothing but ours: it would make one of each handler that it knows, a fifth of a save's time.
    context.checkpointables.registry = ocp.handlers.local_registry(include_global_registry=False)
    context.checkpointables.registry.add(_AsSafetensors)
    with mock.patch.object(jax, "process_count", return_value=1), context:
        yield


def _load(path: Path) -> tuple[Manifest, Arrays]:
    """A checkpoint that is whole."""
    manifest = read_manifest(path / MANIFEST)
    try:
        digests = _digests(path)
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error
    for name in sorted(manifest.files.keys() | digests.keys()):
        if name not in digests:
            raise DataError(f"{path / name}: is missing.")
        if manifest.files.get(name) != digests[name]:
            raise DataError(f"{path / name}: is damaged: it is not what was saved.")
    try:
        with _orbax():
            arrays: Arrays = ocp.load_checkpointables(path.absolute(), {PROGRESS: {}})[PROGRESS]
    except Exception as error:  # whatever Orbax and safetensors make of a file they do not know
        raise DataError(f"{path}: cannot be loaded ({error!r:.200}).") from error
    if json.loads(json.dumps(_specs(arrays))) != manifest.arrays:
        raise DataError(f"{path}: its arrays are not those that its manifest names.")
    if not _are_finite(arrays):
        raise DataError(f"{path}: not all of its numbers are finite.")
    return manifest, arrays


def _are_finite(arrays: Arrays) -> bool:
    return all(np.isfinite(array).all() for array in arrays.values() if array.dtype.kind == "f")


def read_manifest(file: Path) -> Manifest:
    """Reads a `manifest.json`.

    Raises:
        DataError: it is missing, or not what was written.
    """
    try:
        content, _, seal = read(file).partition(b"\n")
    except FileNotFoundError as error:
        raise DataError(f"{file}: is missing.") from error
    if hashlib.sha256(content).hexdigest().encode() + b"\n" != seal:
        raise DataError(f"{file}: is damaged: it is not what was saved.")
    try:
        manifest = Manifest(**json.loads(content))
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: is no manifest ({error}).") from error
    if not all(isinstance(p, dict) for p in (manifest.run, manifest.arrays, manifest.files)):
        raise DataError(f"{file}: is no manifest: run, arrays and files must be objects.")
    return manifest


def _sealed(manifest: Manifest) -> bytes:
    content = json.dumps(manifest._asdict()).encode()
    return content + b"\n" + hashlib.sha256(content).hexdigest().encode() + b"\n"


def _require_same(path: Path, manifest: Manifest, like: Progress, run: Mapping[str, Any]) -> None:
    """Refuses a checkpoint that is whole but of another run."""
    saved = manifest.run | manifest.arrays
    wanted = json.loads(json.dumps({**run, **_specs(_arrays(like))}))
    differences = [
        f"{name} is {saved.get(name)} there and {wanted.get(name)} here"
        for name in wanted | saved
        if saved.get(name) != wanted.get(name)
    ]
    if differences:
        raise RequestError(f"{path}: is a checkpoint of another run: {'; '.join(differences)}.")


def _set_aside(path: Path) -> Path:
    """Renames a damaged checkpoint, so that it is no longer one, and returns its new path."""
    others = len(list(path.parent.glob(f"{path.name}.{DAMAGED}*")))
    aside = path.with_name(f"{path.name}.{DAMAGED}" + (f"-{others + 1}" if others else ""))
    path.rename(aside)
    return aside


def _arrays(progress: Progress) -> Arrays:
    """The leaves of state and losses, by their paths, in the order of `jax.tree.leaves`."""
    leaves, _ = jax.tree.flatten_with_path((progress.state, progress.losses))
    return {jax.tree_util.keystr(path): np.asarray(leaf) for path, leaf in leaves}


def _specs(arrays: Arrays) -> dict[str, list[Any]]:
    return {name: [str(array.dtype), list(array.shape)] for name, array in arrays.items()}


def _digests(folder: Path) -> dict[str, str]:
    """SHA-256 of every file in the folder but the manifest, by its path there."""
    files = sorted(path for path in folder.rglob("*") if path.is_file())
    return {
        path.relative_to(folder).as_posix(): hashlib.sha256(path.read_bytes()).hexdigest()
        for path in files
        if path != folder / MANIFEST
    }
