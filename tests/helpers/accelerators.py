"""Compilers of machines that are not there, where JAX's plugins for them are installed."""

from __future__ import annotations

import hashlib
import inspect
import json
import os
from collections import Counter
from collections.abc import Callable
from pathlib import Path

import jax
import pytest

from flax_mnist.devices import runtime
from flax_mnist.devices.targets import find_devices
from flax_mnist.errors import RequestError
from flax_mnist.files import write_atomically
from flax_mnist.programs import compilation, hlo
from flax_mnist.programs.compilation import Compilation
from flax_mnist.programs.operations import Loop, loops_of

TPU, SLICE, POD, GPU = "tpu-v5e", "tpu-v5e:2x2", "tpu-v5e:4x4", "h100"


def devices_of(target: str):
    """Of a target; the test is skipped, with the reason, where there is no compiler for it."""
    try:
        return find_devices(target)
    except RequestError as error:
        pytest.skip(str(error))


def asked_once(folder: Path, compiler: Callable[..., Compilation]) -> Callable[..., Compilation]:
    """A compiler that is asked once for a program: libtpu takes up to a minute to answer.

    JAX's own cache cannot read what was compiled for a device that is not there. The names of a
    program's operations count; the lines that they are in should not be in it. So does the code
    that asks, and that makes figures of the answer.
    """
    folder.mkdir(exist_ok=True)
    asking = tuple(map(inspect.getsource, (compilation, hlo)))

    def answer(lowered, config, devices) -> Compilation:
        program = lowered.as_text(debug_info=True)
        device = devices[0]
        asked = (
            program, runtime.compiler_options(config.deterministic, device.platform),
            device.device_kind, device.client.platform_version, jax.__version__,
            os.environ.get("XLA_FLAGS"), os.environ.get("LIBTPU_INIT_ARGS"), asking,
        )  # fmt: skip
        file = folder / hashlib.sha256(repr(asked).encode()).hexdigest()
        if not file.exists():
            module, *figures = compiler(lowered, config, devices)
            write_atomically(file, json.dumps(figures).encode() + b"\n" + module)
        figures, _, module = file.read_bytes().partition(b"\n")
        return Compilation(module, *json.loads(figures))

    return answer


def loops(compiled: Compilation) -> list[Loop]:
    return loops_of(compiled.program)


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


def dtypes(compiled: Compilation) -> set[str]:
    """All that occur in a program."""
    instructions = compiled.program.instructions.values()
    return {array.dtype for i in instructions for array in i.results}
