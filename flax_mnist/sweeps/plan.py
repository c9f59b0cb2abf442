"""Which members of a sweep are trained at a time, and where."""

import dataclasses
import itertools
import math
from collections.abc import Sequence
from typing import NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from flax_mnist.config import Config
from flax_mnist.devices import memory
from flax_mnist.devices.footprint import peak_memory
from flax_mnist.devices.memory import member_bytes, shared_bytes, state_bytes

#: Members for each device in a group. More would make no step faster, but every checkpoint larger.
AT_ONCE = {"cpu": 64, "gpu": 256, "tpu": 256}


class Group(NamedTuple):
    """Members of one network and batch size that are trained at the same time."""

    start: int  #: Number of the first one in the sweep, from 0.
    members: Sequence[Config]
    template: Config  #: Stands for all: it has a momentum, and so a velocity, if any member has.

    @property
    def stop(self) -> int:
        """Number of the first member that comes after them."""
        return self.start + len(self.members)


class Plan(NamedTuple):
    """Which members are trained together, and where."""

    groups: list[Group]  #: In turn; none is larger than the first of its network and batch size.
    mesh: Mesh  #: The devices over which each group is spread.
    #: Estimate of the memory that is needed: on this process's accelerators together, or of a CPU's
    #: all that this process will have.
    bytes: int

    @property
    def members(self) -> list[Config]:
        """All of them, in order."""
        return [member for group in self.groups for member in group.members]

    @property
    def together(self) -> bool:
        """Whether a device takes each step for all its members at once: see `for_each`."""
        return bool(self.mesh.devices[0].platform != "cpu")

    def group_after(self, done: int) -> Group:
        """The one whose first member comes when so many are done."""
        return next(group for group in self.groups if group.start == done)

    def lanes(self, group: Group) -> int:
        """How many train at a time: the members, and the last one again to fill up the devices."""
        largest = max(len(g.members) for g in self.groups if g.template == group.template)
        return self.mesh.size * math.ceil(largest / self.mesh.size)


def kinds(members: Sequence[Config]) -> list[Group]:
    """The members of each network and batch size, which stand together."""
    momentum = max(config.momentum for config in members)
    groups, start = [], 0
    for _, alike in itertools.groupby(members, lambda c: (c.hidden_sizes, c.batch_size)):
        own = list(alike)
        template = dataclasses.replace(own[0], momentum=momentum)
        groups.append(Group(start, own, template))
        start += len(own)
    return groups


def fitting(
    members: Sequence[Config], counts: tuple[int, int], devices: int, platform: str, free: float
) -> int:
    """How many members a group has at most: `AT_ONCE`, or what fits, and at least 1.

    `counts` are those of the images for training and for testing; on each of the devices `free`
    bytes may be filled: see `flax_mnist.devices.memory.memory`.
    """
    each = min(
        (free - shared_bytes(kind.template, counts)) / member_bytes(kind.template, counts, platform)
        for kind in kinds(members)
    )
    return max(1, math.floor(min(each, AT_ONCE[platform]))) * devices


def make_plan(
    members: Sequence[Config],
    counts: tuple[int, int],
    devices: Sequence[jax.Device],
    group_size: int,
) -> Plan:
    """Groups of at most so many members, of much the same size, spread over the devices."""
    groups = [
        Group(kind.start + first, kind.members[first : first + size], kind.template)
        for kind in kinds(members)
        for size in [_even(len(kind.members), group_size)]
        for first in range(0, len(kind.members), size)
    ]
    alone = all(device.process_index == devices[0].process_index for device in devices)
    # A device without a member would train one again, beside those that have one.
    used = devices[: max(len(group.members) for group in groups)] if alone else devices
    mesh = Mesh(np.array(used), "members")
    plan = Plan(groups, mesh, 0)
    here = sum(device.process_index == jax.process_index() for device in used)
    platform = used[0].platform
    is_host = platform == "cpu"  # whose memory is the process's own
    held_back = memory.HELD_BACK if is_host and len(groups) > 1 else 0

    def needed(group: Group) -> int:
        """Bytes of one of the devices."""
        config, members = group.template, plan.lanes(group) // mesh.size
        each = member_bytes(config, counts, platform) + held_back * state_bytes(config)
        return shared_bytes(config, counts) + members * each

    others = (peak_memory() or 0) + memory.COMPILING if is_host else 0
    return plan._replace(bytes=others + here * max(map(needed, groups)))


def _even(members: int, most: int) -> int:
    """The size of groups that are as few, and as much alike, as may be."""
    return math.ceil(members / math.ceil(members / most))
