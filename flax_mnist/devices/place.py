"""Where a network is trained: on which devices, by which processes."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from flax_mnist.devices import agreement, memory, processes, runtime, sharding
from flax_mnist.devices.peers import Peers


class Place(NamedTuple):
    """The devices and processes that share each batch, or the members of a sweep."""

    device: runtime.DeviceName = "auto"  #: JAX's choice: TPU, else GPU, else CPU.
    #: Of each process; None is all accelerators, or one CPU, in a sweep one a core.
    num_devices: int | None = None
    peers: Peers | None = None  #: The processes that train together with this one.
    #: Whether compiled programs are kept in the user's cache folder for the next start.
    compilation_cache: bool = True


@contextlib.contextmanager
def entered(place: Place) -> Iterator[tuple[jax.Device, Mesh | None]]:
    """Within, JAX computes there; yields one of this process's devices, and the mesh of all.

    JAX's settings are afterwards what they were before. No process but the first one warns.

    Raises:
        RequestError: there are no such devices, or processes have unequal numbers of them.
        FlaxMnistError: another process is gone.
    """
    count = place.num_devices
    with _started(place, count or 1) as device:
        processes.require_alike()
        yield device, sharding.make_mesh(sharding.choose_devices(device, count))


@contextlib.contextmanager
def entered_by_many(place: Place) -> Iterator[tuple[jax.Device, list[jax.Device]]]:
    """As `entered`, for many networks: each device trains its own, and a CPU has one a core.

    Processes may have unequal numbers of devices; yields those of all.
    """
    with _started(place, place.num_devices or memory.cores()) as device:
        there = jax.local_device_count(device.platform)
        count = sharding.require_devices(device, place.num_devices or there)
        counts = agreement.all_gather(np.array(count))
        by_process = [jax.local_devices(i, device.platform) for i in range(len(counts))]
        yield device, [d for ds, n in zip(by_process, counts, strict=True) for d in ds[:n]]


@contextlib.contextmanager
def _started(place: Place, cpu_devices: int) -> Iterator[jax.Device]:
    with processes.joined(place.peers), runtime.settings_restored():
        device = runtime.start_devices(place.device, place.compilation_cache, cpu_devices)
        with processes.only_first_warns():
            yield device
