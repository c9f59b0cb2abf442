"""What runs on accelerators compiles for them, and is what it is meant to be.

The compilers are in JAX's plugins; where one is missing its tests are skipped.
`nox -s accelerators` installs them.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from flax_mnist import Config
from flax_mnist.devices.memory import MEMORY_SHARE, member_bytes
from flax_mnist.devices.targets import facts
from flax_mnist.programs.compilation import (
    SHAPES,
    Compilation,
    compile_evaluation,
    compile_lowered,
    compile_prediction,
    compile_sweep,
    compile_training,
)
from flax_mnist.programs.operations import cycles_of, step_of
from flax_mnist.sweeps.plan import AT_ONCE, fitting
from tests.helpers.accelerators import (
    GPU,
    POD,
    SLICE,
    TPU,
    asked_once,
    collectives,
    devices_of,
    dtypes,
    loops,
    steps,
)

pytestmark = pytest.mark.long
IMAGES = sum(array.nbytes for array in SHAPES.train)
PARAMETERS = 109_386
STEPS = 938
#: Of a step of the tutorial's; whoever needs more says here why.
MOST_OPERATIONS = {TPU: 16, GPU: 28}
MOST_CYCLES = 19_600

IN_FLOAT64 = {"float64": Config(precision="float64"), "deterministic": Config(deterministic=True)}
PRECISIONS = {
    "float32": Config(),
    "bfloat16": Config(precision="bfloat16", momentum=0.9),
    **IN_FLOAT64,
}
ONE_DEVICE = pytest.mark.parametrize("target", [TPU, GPU])


@pytest.fixture(autouse=True, scope="module")
def _compiled_once(kept: Path) -> Iterator[None]:
    limit = jax.config.jax_traceback_in_locations_limit
    jax.config.update("jax_traceback_in_locations_limit", 0)
    with pytest.MonkeyPatch.context() as patch:
        once = asked_once(kept / "accelerators", compile_lowered)
        patch.setattr("flax_mnist.programs.compilation.compile_lowered", once)
        yield
    jax.config.update("jax_traceback_in_locations_limit", limit)


@contextlib.contextmanager
def settings(config: Config):
    """Those of JAX that a command makes for it."""
    with jax.enable_x64(config.sums_in_float64), jax.numpy_dtype_promotion("standard"):
        yield


def require_no_leak(compilation: Compilation, precision: str, target: str) -> None:
    """A float64 that slipped in would cost an accelerator a lot, and a TPU emulates it."""
    wide = dtypes(compilation) & {"f64", "s64", "u64"}
    if precision not in IN_FLOAT64:
        assert wide == set()
    elif target.startswith(GPU):  # a TPU's compiler makes pairs of float32 of it
        assert "f64" in wide


@ONE_DEVICE
@pytest.mark.parametrize("precision", PRECISIONS)
def test_a_training_is_compiled_in_each_precision(target, precision):
    config, devices = PRECISIONS[precision], devices_of(target)
    with settings(config):
        compilation = compile_training(config, devices)
    found = loops(compilation)
    assert steps(found) == STEPS
    assert collectives(found) == {}
    assert compilation.memory < facts(target).memory
    require_no_leak(compilation, precision, target)
    if precision == "float32":
        step = step_of(found)
        assert len(step.operations) <= MOST_OPERATIONS[target]
        assert cycles_of([step._replace(times=1)]) <= MOST_CYCLES


@ONE_DEVICE
@pytest.mark.parametrize("precision", PRECISIONS)
@pytest.mark.parametrize("compiled", [compile_evaluation, compile_prediction])
def test_evaluate_and_predict_are_compiled(target, precision, compiled):
    config, (device,) = PRECISIONS[precision], devices_of(target)
    with settings(config):
        compilation = compiled(config, device)
    assert compilation.memory < facts(target).memory
    require_no_leak(compilation, precision, target)


@pytest.mark.parametrize(
    ("target", "precision", "sent"),
    [
        (SLICE, "float32", {4 * (PARAMETERS + 1): STEPS}),  # the gradients, and the loss
        # Two types are not added up in one: the losses are when all steps are done.
        (SLICE, "bfloat16", {2 * PARAMETERS: STEPS, 4 * STEPS: 1}),
        (POD, "float32", {4 * (PARAMETERS + 1): STEPS}),
        (POD, "bfloat16", {2 * PARAMETERS: STEPS, 4 * STEPS: 1}),
        (f"{GPU}:4", "float32", {4 * (PARAMETERS + 1): STEPS}),
        (f"{GPU}:4", "bfloat16", {2 * PARAMETERS: STEPS, 4 * STEPS: 1}),
        (f"{GPU}:4", "float64", {8 * (PARAMETERS + 1): STEPS}),
        (f"{GPU}:4", "deterministic", {8 * PARAMETERS: STEPS, 4 * STEPS: 1}),
    ],
)
def test_devices_share_their_gradients_once_a_batch_and_nothing_else(target, precision, sent):
    config, devices = PRECISIONS[precision], devices_of(target)
    with settings(config):
        compilation = compile_training(config, devices)
    found = loops(compilation)
    assert collectives(found) == {("all-reduce", nbytes): n for nbytes, n in sent.items()}
    assert sum(op.collective is not None for op in step_of(found).operations) == 1
    require_no_leak(compilation, precision, target)


@ONE_DEVICE
def test_an_optimizer_with_a_schedule_is_compiled(target):
    config = Config(optimizer="adam", schedule="cosine", warmup=1)
    devices = devices_of(target)
    with settings(config):
        assert steps(loops(compile_training(config, devices))) == STEPS


@pytest.mark.parametrize(
    ("target", "members", "config"),
    [
        (TPU, 8, Config(momentum=0.9)),
        (TPU, 32, Config()),
        (GPU, 8, Config(optimizer="adam")),
        (GPU, 64, Config(hidden_sizes=(512, 256))),
        (GPU, 256, Config(precision="bfloat16")),
        (GPU, 8, Config(deterministic=True)),
    ],
)
def test_a_sweep_needs_the_memory_that_is_estimated(target, members, config):
    devices = devices_of(target)
    with settings(config):
        compilation = compile_sweep(config, members, devices)
    assert steps(loops(compilation)) == STEPS
    each = (compilation.memory - IMAGES) / members
    estimated = member_bytes(config, SHAPES.counts, devices[0].platform)
    assert estimated == pytest.approx(each, rel=0.25)


@pytest.mark.parametrize("target", [SLICE, f"{GPU}:4"])
def test_the_devices_of_a_sweep_tell_each_other_nothing(target):
    compilation = compile_sweep(Config(), 4, devices_of(target))
    assert steps(loops(compilation)) == STEPS
    assert collectives(loops(compilation)) == {}


def test_the_largest_group_that_is_estimated_to_fit_does():
    """Of large networks; it would take a TPU's compiler some minutes."""
    devices = devices_of(GPU)
    config = Config(hidden_sizes=(4096, 4096))
    free = MEMORY_SHARE * facts(GPU).memory
    members = fitting([config], SHAPES.counts, 1, "gpu", free)
    assert 100 < members < AT_ONCE["gpu"]
    assert compile_sweep(config, members, devices).memory < free
