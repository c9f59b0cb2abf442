"""Data parallelism is placement: the very same step, its batches spread over several devices.

Every device has the state and all images, and takes its share of each batch's rows; XLA adds one
sum of the gradients over all devices. A mean over a batch is one over all its rows, wherever they
are: where the number of devices does not divide a batch, XLA pads it with rows that do not count.
"""

from collections.abc import Callable, Sequence
from typing import TypeVar, cast

import jax
import numpy as np
from jax import Array
from jax.sharding import AxisType, Mesh, NamedSharding, PartitionSpec

from flax_mnist.errors import RequestError

Tree = TypeVar("Tree")  #: Any pytree of arrays.
BATCH = "batch"


def choose_devices(first: jax.Device, per_process: int | None) -> list[jax.Device]:
    """The devices that share each batch, of the same kind as `first`, which is this process's.

    They are `per_process` of each process; `None` is all accelerators, but one CPU device, since a
    second would only share the first one's cores.

    Raises:
        RequestError: this process has fewer.
    """
    there = jax.local_device_count(first.platform)
    count = require_devices(first, per_process or (1 if first.platform == "cpu" else there))
    by_process = [jax.local_devices(i, first.platform) for i in range(jax.process_count())]
    return [device for devices in by_process for device in devices[:count]]


def require_devices(first: jax.Device, count: int) -> int:
    """The number, if this process has so many devices of the kind of `first`.

    Raises:
        RequestError: it has fewer.
    """
    there = jax.local_device_count(first.platform)
    if count > there:
        raise RequestError(f"--num-devices {count}: this process has {there} ({first.platform}).")
    return count


def make_mesh(devices: Sequence[jax.Device]) -> Mesh | None:
    """The mesh over which batches are spread; None for a single device."""
    if len(devices) == 1:
        return None
    return jax.make_mesh((len(devices),), (BATCH,), (AxisType.Auto,), devices=devices)


def shard_batch(mesh: Mesh | None) -> NamedSharding | None:
    """The placement of rows [batches, batch]: of each batch each device has its share."""
    return NamedSharding(mesh, PartitionSpec(None, BATCH)) if mesh else None


def replicated(mesh: Mesh | None) -> NamedSharding | None:
    """The placement of what every device has whole."""
    return NamedSharding(mesh, PartitionSpec()) if mesh else None


def replicate(tree: Tree, mesh: Mesh | None) -> Tree:
    """A pytree of arrays, the same in every process, on every device."""
    placement = replicated(mesh)
    if placement is None:
        return cast(Tree, jax.device_put(tree))
    # `device_put` would send everything around, to see whether it is the same.
    put: Callable[..., Array] = jax.make_array_from_process_local_data
    return cast(Tree, jax.tree.map(lambda leaf: put(placement, np.asarray(leaf)), tree))
