"""Compilers of machines that are not there, where JAX's plugins for them are installed."""

from __future__ import annotations

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


def dtypes(compilation) -> set[str]:
    """All that occur in a program."""
    instructions = program_of(compilation.compiled).instructions.values()
    return {array.dtype for i in instructions for array in i.results}
