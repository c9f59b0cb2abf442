"""How many networks fit on a device at once."""

import dataclasses
import math
import os
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from flax_mnist.config import CLASSES, PIXELS, Config
from flax_mnist.train import GATHERED

#: Of a device's memory, what a sweep may fill: it is only estimated, and not all of it is free.
MEMORY_SHARE = 0.5


def cpu_devices(members: int) -> int:
    """Into how many devices to divide a CPU.

    One for each core: two that share a step gain little, but each can train a member by itself.
    """
    affinity = getattr(os, "sched_getaffinity", None)  # Linux alone has it
    cores = len(affinity(0)) if affinity else os.cpu_count() or 1
    return min(cores, members)


def memory(device: jax.Device) -> float:
    """Bytes that a sweep may fill on the device; infinite where the system does not say."""
    limit = (device.memory_stats() or {}).get("bytes_limit")
    if limit is None and hasattr(os, "sysconf"):  # CPU devices share the machine's
        pages, size = os.sysconf("SC_PHYS_PAGES"), os.sysconf("SC_PAGE_SIZE")
        limit = pages * size / jax.local_device_count(device.platform)
    return math.inf if limit is None else MEMORY_SHARE * limit


def member_bytes(config: Config, counts: tuple[int, int]) -> int:
    """Estimate of what a device needs for a member while it is trained; see `make_plan`."""
    n_train, n_test = counts
    units = PIXELS + sum(config.hidden_sizes) + CLASSES
    weights = config.weights + units
    # The state before an epoch, after it, and in it beside the gradients.
    means = {"sgd": 1 if config.momentum else 0}.get(config.optimizer, 2)
    states = 3 * weights * (1 + means) + weights
    activations = config.batch_size * (2 * units - PIXELS)  # the inputs need no gradients
    probabilities, order = CLASSES * n_test, 4 * n_train
    gathered = PIXELS * max(config.batch_size, min(GATHERED, n_train))
    return _width(config) * (states + activations + probabilities) + gathered + order


def shared_bytes(config: Config, counts: tuple[int, int]) -> int:
    """Estimate of what a device needs besides its members: the images, and one member's test."""
    units = PIXELS + sum(config.hidden_sizes) + CLASSES
    image_and_label = PIXELS + 4  # uint8 and int32
    return image_and_label * sum(counts) + _width(config) * counts[1] * units


def _width(config: Config) -> int:
    return 8 if config.sums_in_float64 else 4


class Plan(NamedTuple):
    """Which members are trained together, and where."""

    groups: list[Sequence[Config]]  #: In turn; only the last may be smaller than the first.
    template: Config  #: Stands for all: it has a momentum, and so a velocity, if any of them has.
    mesh: Mesh  #: The devices over which each group is spread.
    bytes: int  #: Estimate of the memory that is needed on all of them together.


def make_plan(
    members: Sequence[Config], counts: tuple[int, int], devices: Sequence[jax.Device], free: float
) -> Plan:
    """All members in one group, or where they do not fit, in groups of much the same size.

    They are spread over the devices, on each of which `free` bytes may be filled: see `memory`.
    `counts` are those of the images for training and for testing.
    """
    template = dataclasses.replace(members[0], momentum=max(c.momentum for c in members))
    shared, own = shared_bytes(template, counts), member_bytes(template, counts)
    on_a_device = max(1, math.floor(min(len(members), (free - shared) / own)))
    size = math.ceil(len(members) / math.ceil(len(members) / (on_a_device * len(devices))))
    groups = [members[start : start + size] for start in range(0, len(members), size)]
    mesh = Mesh(np.array(devices[:size]), "members")
    return Plan(groups, template, mesh, mesh.size * (shared + math.ceil(size / mesh.size) * own))


def lanes(plan: Plan) -> int:
    """How many train at a time: the members of a group, and some again to fill up the devices."""
    devices = plan.mesh.size
    return devices * math.ceil(len(plan.groups[0]) / devices)
