"""What runs on accelerators compiles for them, and is what it is meant to be.

The compilers are in JAX's plugins; where one is missing its tests are skipped.
`nox -s accelerators` installs them.
"""

from __future__ import annotations

import jax
import pytest

from flax_mnist import Config
from flax_mnist.devices.memory import member_bytes, shared_bytes
from flax_mnist.devices.targets import facts
from flax_mnist.programs.compilation import (
    SHAPES,
    compile_evaluation,
    compile_prediction,
    compile_sweep,
    compile_training,
)
from flax_mnist.programs.estimate import estimate
from flax_mnist.programs.operations import step_of
from tests.helpers.accelerators import GPU, POD, SLICE, TPU, devices_of, dtypes, loops

pytestmark = pytest.mark.long
#: What a gradient step of the tutorial's network sends, and its loss: float32.
GRADIENTS_AND_LOSS = 4 * (109_386 + 1)
#: Of a step; whoever needs more says here why.
MOST_OPERATIONS = {TPU: 28, GPU: 29}
MOST_CYCLES = 52_941

ONE_DEVICE = pytest.mark.parametrize("target", [TPU, GPU])


@ONE_DEVICE
@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(precision="bfloat16", momentum=0.9),
        Config(precision="float64"),
        Config(deterministic=True),
        Config(optimizer="adam", schedule="cosine", warmup=1),
    ],
    ids=["float32", "bfloat16", "float64", "deterministic", "adam"],
)
def test_a_training_is_compiled_in_each_precision(target, config):
    devices = devices_of(target)
    x64 = config.sums_in_float64
    with jax.enable_x64(x64), jax.numpy_dtype_promotion("standard"):
        compilation = compile_training(config, devices)
        found = loops(compilation)
        assert step_of(found).times >= 900  # of 938 steps the last ones are ragged
        assert [op.collective for loop in found for op in loop.operations if op.collective] == []
        # Without it nothing may be wider: a leak would cost a TPU, which emulates it, a lot.
        if not config.sums_in_float64:
            assert dtypes(compilation).isdisjoint({"f64", "s64", "u64"})
        elif target == GPU:  # a TPU's compiler makes pairs of float32 of it
            assert "f64" in dtypes(compilation)


@ONE_DEVICE
@pytest.mark.parametrize("compiled", [compile_evaluation, compile_prediction])
def test_evaluate_and_predict_are_compiled(target, compiled):
    (device,) = devices_of(target)
    compilation = compiled(Config(), device)
    assert compilation.memory < facts(target).memory
    assert dtypes(compilation).isdisjoint({"f64", "s64", "u64"})


@ONE_DEVICE
def test_no_operation_is_added_unnoticed(target):
    devices_of(target)
    found = estimate(Config(), target)
    assert len(found.operations) <= MOST_OPERATIONS[target]
    assert found.cycles is None or found.cycles <= MOST_CYCLES


@pytest.mark.parametrize("target", [SLICE, POD, f"{GPU}:4"])
def test_data_parallel_steps_share_their_gradients_once_and_nothing_else(target):
    devices = devices_of(target)
    found = loops(compile_training(Config(), devices))
    step = step_of(found)
    shared = [(op.collective, op.read) for op in step.operations if op.collective]
    assert shared == [("all-reduce", GRADIENTS_AND_LOSS)]
    all_reduces = [
        loop.times for loop in found for op in loop.operations if op.collective == "all-reduce"
    ]
    assert sum(all_reduces) == 938  # one a batch, the ragged one too
    others = [
        op for loop in found for op in loop.operations if op.collective not in (None, "all-reduce")
    ]
    # Once an epoch: the rows of the ragged batch, to the devices that take them.
    assert sum(op.read for op in others) <= 4 * 64


@pytest.mark.parametrize("target", [TPU, SLICE, GPU])
def test_a_sweep_shares_nothing_and_needs_the_memory_that_is_estimated(target):
    devices = devices_of(target)
    members = 8 * len(devices)
    compilation = compile_sweep(Config(), members, devices)
    assert [op for loop in loops(compilation) for op in loop.operations if op.collective] == []
    estimated = shared_bytes(Config(), SHAPES.counts) + 8 * member_bytes(Config(), SHAPES.counts)
    assert compilation.memory < estimated
