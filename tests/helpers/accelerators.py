"""Compilers of machines that are not there, where JAX's plugins for them are installed."""

from __future__ import annotations

from collections import Counter

import pytest

from flax_mnist.devices.targets import find_devices
from flax_mnist.errors import RequestError
from flax_mnist.programs.hlo import program_of
from flax_mnist.programs.operations import Loop, loops_of

TPU, SLICE, POD, GPU = "tpu-v5e", "tpu-v5e:2x2", "tpu-v5e:4x4", "h100"


def devices_of(target: str):
    """Of a target; the test is skipped, with the reason, where there is no compiler for it."""
    try:
        return find_devices(target)
    except RequestError as error:
        pytest.skip(str(error))


def loops(compilation) -> list[Loop]:
    return loops_of(program_of(compilation.compiled))


def steps(found: list[Loop]) -> int:
    """How often the network's first layer is computed."""
    forward = "forward Dense_0"
    return sum(loop.times for loop in found if any(forward in op.what for op in loop.operations))


def collectives(found: list[Loop]) -> Counter[tuple[str, int]]:
    """How often each is done in an epoch, by its kind and the bytes that a device puts in."""
    counts: Counter[tuple[str, int]] = Counter()
    for loop in found:
        for op in loop.operations:
            if op.collective:
                counts[op.collective, op.read] += loop.times
    return counts


def dtypes(compilation) -> set[str]:
    """All that occur in a program."""
    instructions = program_of(compilation.compiled).instructions.values()
    return {array.dtype for i in instructions for array in i.results}
