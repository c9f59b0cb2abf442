"""What a training step becomes: from `train_step` to the program that the machine runs."""

from __future__ import annotations

import math
import re
from itertools import pairwise
from typing import NamedTuple

import jax
import jax.numpy as jnp
from jax.stages import Compiled, Traced

from flax_mnist.config import Config
from flax_mnist.model import CLASSES, PIXELS, make_model
from flax_mnist.train import compiler_options, init_state, make_optimizer, train_step


def tabulate(config: Config) -> str:
    """Flax's table of the layers: the inputs, outputs and parameters of each, for a batch."""
    model = make_model(config)
    inputs = jnp.zeros((config.batch_size, PIXELS), model.param_dtype)
    plain = {"force_terminal": False}
    return model.tabulate(jax.random.key(0), inputs, console_kwargs=plain).strip("\n")


def trace_step(config: Config) -> Traced:
    """`train_step` on a batch, as JAX traces it: `jaxpr` is all it computes, gradients included."""
    traced: Traced = train_step.trace(
        init_state(config),
        jax.ShapeDtypeStruct((config.batch_size, 28, 28), jnp.uint8),
        jax.ShapeDtypeStruct((config.batch_size,), jnp.int32),
        model=make_model(config),
        optimizer=make_optimizer(config),
    )
    return traced


def compile_step(traced: Traced) -> Compiled:
    """The step as XLA compiles it, with the options that an epoch is compiled with."""
    compiled: Compiled = traced.lower().compile(compiler_options=compiler_options())
    return compiled


def count_by_hand(config: Config) -> tuple[int, str]:
    """FLOPs of a step's matrix products, each an addition and a multiplication, and the sum itself.

    A layer has one product in the forward pass and one for the gradient of its kernel. All but the
    first have a third one, for the gradient of their input: images are not trained.
    """
    layers = list(pairwise((PIXELS, *config.hidden_sizes, CLASSES)))
    products = [2] + [3] * (len(layers) - 1)
    terms = [(n, *layer) for n, layer in zip(products, layers, strict=True)]
    total = 2 * config.batch_size * sum(math.prod(term) for term in terms)
    written = " + ".join(" x ".join(map(str, term)) for term in terms)
    return total, f"2 x {config.batch_size} x ({written})"


class Product(NamedTuple):
    """A matrix product in an optimised program."""

    source: str
    """The pass and the layer that it comes from."""
    operands: tuple[str, ...]
    """Two, as XLA writes types: `f32[64,784]`."""
    result: str
    by: str
    """What the HLO says of who computes it: the kind of a fusion, the target of a call, or `dot`,
    which the backend does as it thinks best."""

    @property
    def flops(self) -> int:
        """2 m k n, which the sizes mk, kn and mn give in whatever order the axes lie."""
        sizes = [_size(kind) for kind in (*self.operands, self.result)]
        return 2 * math.isqrt(math.prod(sizes))


_INSTRUCTION = re.compile(r"\s+(?:ROOT )?%?([\w.-]+) = (.*?) ([\w-]+)\((.*)")
_ARRAY = re.compile(r"\w+\[[\d,]*\]")


def find_products(hlo: str) -> list[Product]:
    """The matrix products in the text of an optimised HLO module, in the order of the program.

    They are instructions of their own, calls to a library, or inside of fusions.
    """
    lines = hlo.splitlines()
    types = {m[1]: m[2] for line in lines if (m := _INSTRUCTION.match(line))}
    callers = {
        m[1]: i for i, line in enumerate(lines) if (m := re.search(r"calls=%?([\w.-]+)", line))
    }
    found = []
    computation = ""
    for i, line in enumerate(lines):
        if line.endswith("{"):
            computation = line.removeprefix("ENTRY ").split()[0].lstrip("%")
        instruction = _INSTRUCTION.match(line)
        target = re.search(r'custom_call_target="([^"]*(?:gemm|matmul|dot)[^"]*)"', line)
        if not instruction or not (instruction[3] == "dot" or target):
            continue
        place = callers.get(computation, i)
        fusion = re.search(r'"kind":"(\w+)"', lines[place])
        by = target or fusion
        operands = re.findall(r"%([\w.-]+)", instruction[4].partition("), ")[0])[:2]
        found.append(
            (
                place,
                Product(
                    _source(line),
                    tuple(_first_array(types[name]) for name in operands),
                    _first_array(instruction[2]),
                    by[1].strip("_").removesuffix("_fusion") if by else "dot",
                ),
            )
        )
    return [product for _, product in sorted(found)]


def _source(line: str) -> str:
    """From `jit(train_step)/transpose(jvp(MLP))/.../Dense_1/dot_general` to `backward Dense_1`."""
    name = re.search(r'op_name="([^"]*?(Dense_\d+)[^"]*)"', line)
    if not name:
        return "not said"
    return f"{'backward' if 'transpose(' in name[1] else 'forward'} {name[2]}"


def _first_array(kind: str) -> str:
    array = _ARRAY.search(kind)
    return array[0] if array else kind


def _size(array: str) -> int:
    return math.prod(int(n) for n in re.findall(r"\d+", array.partition("[")[2]))
