"""What a training step becomes: from `train_step` to the program that the machine runs."""

import functools
import math
import re
import textwrap
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.stages import Compiled, Traced
from rich import box

from flax_mnist.config import PIXELS, Config
from flax_mnist.data.order import steps_per_epoch
from flax_mnist.devices.runtime import compiler_options
from flax_mnist.model import make_model
from flax_mnist.programs.compilation import MNIST_IMAGES
from flax_mnist.programs.hlo import Instruction, Program, program_of
from flax_mnist.programs.operations import fused, purpose
from flax_mnist.show import text
from flax_mnist.train import init_state, make_optimizer, train_step

_LIBRARY = re.compile("gemm|matmul|dot")  # In the name of what is called.


def tabulate(config: Config) -> str:
    """Flax's table of the layers: the inputs, outputs and parameters of each, for a batch."""
    model = make_model(config)
    inputs = jnp.zeros((config.batch_size, PIXELS), model.param_dtype)
    plain, in_ascii = {"force_terminal": False}, {"box": box.ASCII}
    key = jax.random.key(0)
    return model.tabulate(key, inputs, console_kwargs=plain, table_kwargs=in_ascii).strip("\n")


def trace_step(config: Config) -> Traced:
    """`train_step` on a batch, as JAX traces it: `jaxpr` is all it computes, gradients included.

    A schedule is that of MNIST's epochs: for other numbers of images it has other constants.
    """
    optimizer = make_optimizer(config, steps_per_epoch(config, MNIST_IMAGES))
    return train_step.trace(
        init_state(config, optimizer),
        jax.ShapeDtypeStruct((config.batch_size, 28, 28), jnp.uint8),
        jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
        model=make_model(config),
        optimizer=optimizer,
    )


def compile_step(traced: Traced) -> Compiled:
    """The step as XLA compiles it, with the options that an epoch is compiled with."""
    compiled: Compiled = traced.lower().compile(compiler_options=compiler_options())
    return compiled


def count_by_hand(config: Config) -> tuple[int, str]:
    """FLOPs of a step's matrix products, each an addition and a multiplication, and the sum itself.

    A layer has one product in the forward pass and one for the gradient of its kernel. All but the
    first have a third one, for the gradient of their input: images are not trained.
    """
    products = [2] + [3] * len(config.hidden_sizes)
    terms = [(n, *layer) for n, layer in zip(products, config.layers, strict=True)]
    total = 2 * config.batch_size * sum(math.prod(term) for term in terms)
    written = " + ".join(" x ".join(map(str, term)) for term in terms)
    return total, f"2 x {config.batch_size} x ({written})"


class Product(NamedTuple):
    """A matrix product in an optimised program."""

    source: str  #: The pass and the layer that it comes from.
    operands: tuple[str, ...]  #: Two, as HLO writes types: `f32[64,784]`.
    result: str
    flops: int
    #: What the HLO says of who computes it: the kind of a fusion, the target of a call, or `dot`,
    #: which the backend does as it thinks best.
    by: str


def find_products(program: Program) -> list[Product]:
    """The matrix products of an optimised program of a step, in its order.

    They are instructions of their own, calls to a library, or inside of fusions.
    """
    return [
        _product(program, inner, _computed_by(instruction))
        for instruction in program.of(program.entry)
        for inner in (instruction, *fused(program, instruction))
        if inner.opcode == "dot" or _LIBRARY.search(inner.kind)
    ]


def _product(program: Program, instruction: Instruction, by: str) -> Product:
    operands = [program.instructions[i].results[0] for i in instruction.operands[:2]]
    result = instruction.results[0]
    # 2 m k n, which the sizes mk, kn and mn give in whatever order the axes lie.
    sizes = (math.prod(array.shape) for array in (*operands, result))
    a, b = map(str, operands)
    source = purpose(instruction.origin) if instruction.origin else "not said"
    return Product(source, (a, b), str(result), 2 * math.isqrt(math.prod(sizes)), by)


def _computed_by(instruction: Instruction) -> str:
    kind = instruction.config.get("fusion_backend_config", {}).get("kind") or instruction.kind
    return kind.strip("_").removesuffix("_fusion") or instruction.opcode


class Step:
    """A training step of a config, traced, and compiled where that is asked for."""

    def __init__(self, config: Config) -> None:
        self.config = config

    @functools.cached_property
    def traced(self) -> Traced:
        """See `trace_step`."""
        return trace_step(self.config)

    @functools.cached_property
    def compiled(self) -> Compiled:
        """See `compile_step`."""
        return compile_step(self.traced)

    @property
    def jaxpr(self) -> str:
        """The jaxpr, in JAX's own notation."""
        return str(self.traced.jaxpr.pretty_print(use_color=False))

    @property
    def products(self) -> list[Product]:
        """The matrix products; see `find_products`."""
        return find_products(program_of(self.compiled))

    @property
    def figures(self) -> list[tuple[str, float]]:
        """What the step costs: FLOPs by hand and by XLA, bytes moved and bytes held."""
        counted = self.compiled.cost_analysis() or {}
        memory = self.compiled.memory_analysis()
        figures = [
            ("FLOPs of the products, by hand", count_by_hand(self.config)[0]),
            ("FLOPs of the whole step, by XLA", counted.get("flops")),
            ("exponentials and logarithms, by XLA", counted.get("transcendentals")),
            ("bytes that its instructions read and write, by XLA", counted.get("bytes accessed")),
        ]
        if memory:
            figures += [
                ("bytes of memory: state and batch", memory.argument_size_in_bytes),
                ("  given up for the next state (donated)", memory.alias_size_in_bytes),
                ("  besides, in between", memory.temp_size_in_bytes),
            ]
        return [(what, n) for what, n in figures if n is not None]


def describe_cost(step: Step) -> str:
    """The figures of a compiled step, and how those by hand come about, in 80 columns."""
    _, written = count_by_hand(step.config)
    options = ", ".join(f"{name}={value}" for name, value in compiler_options().items())
    table = text.table([(what, f"{n:,.0f}") for what, n in step.figures], "<>")
    notes = (
        f"By hand: {written}.",
        "A layer has a product in the forward pass and two in the backward pass; the first has one "
        "there, as nobody needs the gradient of the images.",
        f"Compiled as an epoch is, with {options or 'no options'}.",
    )
    filled = (textwrap.fill(n, 79, break_long_words=False, break_on_hyphens=False) for n in notes)
    return f"{table}\n\n" + "\n".join(filled)
