"""Where a network is trained: on which devices, by which processes."""

import contextlib
from collections.abc import Iterator
from typing import NamedTuple

import jax
from jax.sharding import Mesh

from flax_mnist.devices import processes, runtime, sharding
from flax_mnist.devices.peers import Peers


class Place(NamedTuple):
    """The devices and processes that share each batch."""

    device: runtime.DeviceName = "auto"  #: JAX's choice: TPU, else GPU, else CPU.
    num_devices: int | None = None  #: Of each process; None is all accelerators, or one CPU.
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
    with processes.joined(place.peers), runtime.settings_restored():
        count = place.num_devices
        device = runtime.start_devices(place.device, place.compilation_cache, count or 1)
        with processes.only_first_warns():
            processes.require_alike()
            yield device, sharding.make_mesh(sharding.choose_devices(device, count))
