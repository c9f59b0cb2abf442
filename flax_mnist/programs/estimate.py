"""What a step costs on a machine that need not be there, as its compiler sees it."""

import math
from collections import Counter
from collections.abc import Sequence
from typing import NamedTuple

import jax

from flax_mnist.config import Config
from flax_mnist.data.order import steps_per_epoch
from flax_mnist.devices import targets
from flax_mnist.devices.memory import MEMORY_SHARE
from flax_mnist.errors import RequestError
from flax_mnist.programs.compilation import (
    MNIST_IMAGES,
    SHAPES,
    compile_sweep,
    compile_training,
)
from flax_mnist.programs.inspection import count_by_hand
from flax_mnist.programs.operations import Loop, Operation, cycles_of, loops_of, step_of
from flax_mnist.sweeps.plan import fitting


class Estimate(NamedTuple):
    """A training, or the training of a sweep's members, compiled for a target."""

    config: Config
    target: str
    devices: int
    members: int | None  #: Of a sweep, that are trained together.
    loops: list[Loop]  #: The operations of an epoch.
    memory: int  #: Bytes on each device.
    seconds: float  #: That the compiler took.

    @property
    def operations(self) -> list[Operation]:
        """Those of a step, in order."""
        return step_of(self.loops).operations

    @property
    def cycles(self) -> int | None:
        """Of the operations of a step, as far as the compiler estimates them."""
        known = [op.cycles for op in self.operations if op.cycles is not None]
        return sum(known) if known else None

    @property
    def unknown(self) -> Counter[str]:
        """Of what operations the compiler estimates no cycles."""
        return Counter(op.what for op in self.operations if op.cycles is None)

    @property
    def step_us(self) -> float | None:
        """Microseconds of a step, of an epoch's average, where cycles and clock are known."""
        clock = targets.facts(self.target).clock
        if self.cycles is None or clock is None:
            return None
        steps = steps_per_epoch(self.config, MNIST_IMAGES)
        return cycles_of(self.loops) / steps / clock / 1e3

    @property
    def images_per_second(self) -> float | None:
        """Of all members together, that follow from `step_us`."""
        if self.step_us is None:
            return None
        images = MNIST_IMAGES / steps_per_epoch(self.config, MNIST_IMAGES)
        return (self.members or 1) * images / self.step_us * 1e6

    @property
    def collectives(self) -> list[tuple[str, int]]:
        """Those of a step, and the bytes that each device puts in."""
        return [(op.collective, op.read) for op in self.operations if op.collective]

    @property
    def figures(self) -> list[tuple[str, float]]:
        """What a step costs."""
        members = self.members or 1
        flops = members * count_by_hand(self.config)[0] / self.devices
        moved = sum(op.read + op.written for op in self.operations)
        figures = [
            ("operations of a step", len(self.operations)),
            ("  of which the compiler estimates no cycles", self.unknown.total()),
            ("cycles of the others, by the compiler", self.cycles),
            ("microseconds of a step that follow, over an epoch", self.step_us),
            ("images a second that follow", self.images_per_second),
            ("FLOPs of a step's products on each device, by hand", math.ceil(flops)),
            ("bytes that its operations read and write there", moved),
            ("bytes of memory there, by the compiler", self.memory),
            ("  of so many", targets.facts(self.target).memory),
            ("collectives of a step", len(self.collectives)),
            ("  bytes that each device puts in", sum(n for _, n in self.collectives)),
            ("seconds to compile", round(self.seconds, 1)),
        ]
        return [(what, n) for what, n in figures if n is not None]


def estimate(config: Config, target: str, members: int | None = None) -> Estimate:
    """Compiles a training for a target, or the training of so many members of a sweep.

    The images are MNIST's in number. For float64 `jax_enable_x64` must be on.

    Raises:
        RequestError: see `targets.find_devices`; or a sweep would train fewer or more members at
            once there, in groups: at least one on each device, at most what `fitting` says.
    """
    devices = targets.find_devices(target)
    if members is None:
        compilation = compile_training(config, devices)
    else:
        _require_at_once(config, target, members, devices)
        compilation = compile_sweep(config, members, devices)
    loops = loops_of(compilation.program)
    memory, seconds = compilation.memory, compilation.seconds
    return Estimate(config, target, len(devices), members, loops, memory, seconds)


def _require_at_once(
    config: Config, target: str, members: int, devices: Sequence[jax.Device]
) -> None:
    """Refuses what `sweep` would not train in one group there."""
    if members < len(devices):
        raise RequestError(
            f"members is {members}: fewer than the {len(devices)} devices of {target}. "
            "Inspect fewer devices."
        )
    free = MEMORY_SHARE * targets.facts(target).memory
    platform = devices[0].platform
    most = fitting([config], SHAPES.counts, len(devices), platform, free)
    if members > most:
        raise RequestError(f"members is {members:,}: {target} trains at most {most:,} at once.")
