"""The programs that runs are made of, compiled for devices that need not be there."""

import time
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Sharding, SingleDeviceSharding
from jax.stages import Compiled, Lowered

from flax_mnist.config import Config
from flax_mnist.data.dataset import DIGITS, Dataset, Split
from flax_mnist.data.order import steps_per_epoch
from flax_mnist.devices import sharding
from flax_mnist.devices.runtime import compiler_options
from flax_mnist.devices.sharding import Tree
from flax_mnist.evaluation import evaluate, predict
from flax_mnist.model import Params, make_model
from flax_mnist.programs.hlo import Program, parse, serialized
from flax_mnist.runs import loop
from flax_mnist.store.checkpoint import Progress
from flax_mnist.sweep import shardings
from flax_mnist.sweeps.group import lower_chunk
from flax_mnist.sweeps.plan import make_plan
from flax_mnist.train import make_optimizer

MNIST_IMAGES = 60_000  #: For training.
#: Of MNIST's size; NumPy takes no memory for zeros. A schedule is that of its epochs.
SHAPES = Dataset(
    "synthetic",
    "shapes alone",
    DIGITS,
    Split(np.zeros((MNIST_IMAGES, 28, 28), np.uint8), np.zeros(MNIST_IMAGES, np.int32)),
    Split(np.zeros((10_000, 28, 28), np.uint8), np.zeros(10_000, np.int32)),
)


class Compilation(NamedTuple):
    """What a compiler made of a program."""

    hlo: bytes  #: See `program`; a serialized `HloModuleProto`.
    memory: int  #: Bytes on each device while it runs.
    seconds: float  #: That the compiler took.

    @property
    def program(self) -> Program:
        """The optimised program."""
        return parse(self.hlo)


def compile_training(config: Config, devices: Sequence[jax.Device]) -> Compilation:
    """An epoch of `train` on MNIST, each batch shared by the devices."""
    mesh = sharding.make_mesh(devices)
    place = sharding.replicated(mesh) or SingleDeviceSharding(devices[0])
    progress = _begin(config)
    on_devices = progress._replace(
        state=_shapes(progress.state, place), losses=_shapes(progress.losses, place)
    )
    lowered = loop.lower_chunk(config, on_devices, SHAPES.train, MNIST_IMAGES, mesh)
    return compile_lowered(lowered, config, devices)


def compile_sweep(config: Config, members: int, devices: Sequence[jax.Device]) -> Compilation:
    """An epoch of a `sweep` of so many members, which are spread over the devices."""
    plan = make_plan([config] * members, SHAPES.counts, devices, group_size=members)
    _, common = shardings(plan.mesh)
    train = _shapes(SHAPES.train, common)
    lowered = lower_chunk(plan, plan.groups[0], train, len(train.labels))
    return compile_lowered(lowered, config, devices)


def compile_evaluation(config: Config, device: jax.Device) -> Compilation:
    """`evaluate` on MNIST's images for testing."""
    params, (images, labels) = _evaluated(config, device)
    function = jax.jit(evaluate, static_argnames="model")
    lowered = function.lower(params, images, labels, model=make_model(config))
    return compile_lowered(lowered, config, [device])


def compile_prediction(config: Config, device: jax.Device) -> Compilation:
    """`predict` on them."""
    params, (images, _) = _evaluated(config, device)
    lowered = predict.lower(params, images, model=make_model(config))
    return compile_lowered(lowered, config, [device])


def compile_lowered(lowered: Lowered, config: Config, devices: Sequence[jax.Device]) -> Compilation:
    """A program that was lowered for these devices, as a run of `config` has it compiled."""
    options = compiler_options(config.deterministic, devices[0].platform)
    start = time.perf_counter()
    compiled = lowered.compile(compiler_options=options)
    seconds = time.perf_counter() - start
    return Compilation(serialized(compiled), _memory(compiled), seconds)


def _evaluated(config: Config, device: jax.Device) -> tuple[Params, Split]:
    return _shapes((_begin(config).state.params, SHAPES.test), SingleDeviceSharding(device))


def _begin(config: Config) -> Progress:
    return loop.begin(config, make_optimizer(config, steps_per_epoch(config, MNIST_IMAGES)))


def _shapes(tree: Tree, place: Sharding) -> Tree:
    """Of arrays what a compiler is told of them."""
    shapes: Tree = jax.tree.map(
        lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype, sharding=place), tree
    )
    return shapes


def _memory(compiled: Compiled) -> int:
    needed: Any = compiled.memory_analysis()
    return int(
        needed.argument_size_in_bytes
        + needed.output_size_in_bytes
        - needed.alias_size_in_bytes
        + needed.temp_size_in_bytes
        + needed.generated_code_size_in_bytes
    )
