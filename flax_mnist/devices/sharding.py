"""Data parallelism is placement: the very same step, its batches spread over several devices.

Every device has the state and all images, and takes its share of each batch's rows; XLA adds one
sum of the gradients over all devices. A mean over a batch is one over all its rows, wherever they
are: where the number of devices does not divide a batch, XLA pads it with rows that do not count.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import TypeVar, cast

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, NamedSharding, PartitionSpec

from flax_mnist.errors import RequestError

Tree = TypeVar("Tree")
BATCH = "batch"


def choose_devices(first: jax.Device, per_process: int | None) -> list[jax.Device]:
    """The devices that share each batch.

    Args:
        first: a device of the kind that is asked for, of this process.
        per_process: so many of every process; `None` is all accelerators, but one CPU device, since
            a second would only share the first one's cores.

    Raises:
        RequestError: this process has fewer.
    """
    there = len(jax.local_devices(backend=first.platform))
    count = per_process or (1 if first.platform == "cpu" else there)
    if count > there:
        raise RequestError(f"--num-devices {count}: this process has {there} ({first.platform}).")
    by_process: dict[int, list[jax.Device]] = {}
    for device in jax.devices(first.platform):
        by_process.setdefault(device.process_index, []).append(device)
    return [device for devices in by_process.values() for device in devices[:count]]


@contextlib.contextmanager
def over(devices: Sequence[jax.Device]) -> Iterator[None]:
    """Within, batches are spread over the devices; with a single one nothing is different."""
    if len(devices) == 1:
        yield
        return
    mesh = jax.make_mesh((len(devices),), (BATCH,), (AxisType.Auto,), devices=devices)
    with jax.set_mesh(mesh):
        yield


def shard_batch(rows: Array) -> Array:
    """The rows of a batch, int32 `[batch]`, inside `jit`: of many devices each has its share."""
    if BATCH not in jax.sharding.get_abstract_mesh().axis_names:
        return rows
    return cast(Array, jax.lax.with_sharding_constraint(rows, PartitionSpec(BATCH)))


def replicated() -> NamedSharding | None:
    """The placement of what every device has whole; None where there is but one device."""
    mesh = jax.sharding.get_mesh()
    return None if mesh.empty else NamedSharding(mesh, PartitionSpec())


def replicate(tree: Tree) -> Tree:
    """A pytree of arrays, the same in every process, on every device."""
    placement = replicated()
    if placement is None:
        return cast(Tree, jax.device_put(tree))
    # `device_put` would send everything around, to see whether it is the same.
    put: Callable[..., Array] = jax.make_array_from_process_local_data
    return cast(Tree, jax.tree.map(lambda leaf: put(placement, np.asarray(leaf)), tree))


def topology() -> dict[str, int]:
    """Processes and devices that share each batch, as they stand in `config.json`."""
    devices = jax.sharding.get_mesh().size or 1
    processes = min(jax.process_count(), devices)
    return {
        "processes": processes,
        "devices": devices,
        "devices_per_process": devices // processes,
    }
