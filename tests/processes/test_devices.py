"""Devices as a program may find them: none, or too small."""

from __future__ import annotations

import re

import jax
import numpy as np
import pytest

from flax_mnist import evaluation
from tests.helpers.command_line import refused, run


def test_without_the_platform_that_is_named_there_is_a_line(data, tmp_path):
    variables = {"JAX_PLATFORMS": "nonsense"}
    done = run("train", "--data-dir", data, "--run-dir", tmp_path / "run", **variables)
    assert (done.returncode, done.stderr) == (
        2, "flax-mnist: JAX finds no device. JAX_PLATFORMS is 'nonsense'.\n",
    )  # fmt: skip
    done = run("doctor", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"device +NONE: .*nonsense", done.stdout)


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 68719476736 bytes."
        ),
        MemoryError(),
        np._core._exceptions._ArrayMemoryError(  # noqa: SLF001  -- what NumPy does raise
            (10**12,), np.dtype("float32")
        ),
    ],
    ids=["on the device", "in Python", "in NumPy"],
)
def test_out_of_memory_is_a_line(capsys, monkeypatch, data, weights, error):
    def exhausted(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(evaluation, "evaluate", exhausted)
    assert refused(capsys, "evaluate", weights, "--data-dir", data) == (
        "1 flax-mnist: out of memory. Try smaller --hidden-sizes or a smaller --batch-size.\n"
    )
