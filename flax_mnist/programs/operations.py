"""What a step is to the machine: the operations of a compiled program, in the network's terms."""

import re
from collections.abc import Iterable, Iterator
from typing import NamedTuple

from flax_mnist.programs.hlo import Instruction, Program

# What is there for the compiler alone, or goes on beside the operations: the copies of a prefetch.
_NO_OPERATIONS = {
    "after-all", "bitcast", "constant", "copy-start", "get-tuple-element", "opt-barrier",
    "parameter", "partition-id", "slice-start", "tuple",
}  # fmt: skip
_COLLECTIVES = {
    "all-gather", "all-reduce", "all-to-all", "collective-broadcast", "collective-permute",
    "ragged-all-to-all", "reduce-scatter",
}  # fmt: skip
_PRODUCTS = {"convolution", "dot"}  # A TPU's compiler makes convolutions of products.
# What is no computing, wherever it was traced: it does not say what an operation is for.
_MOVES = {
    "bitcast",
    "broadcast",
    "constant",
    "convert",
    "copy",
    "iota",
    "pad",
    "parameter",
    "reshape",
}
_PICKS = {"dynamic-slice", "gather"}  # They read of an array what they give.
_LAYER = re.compile(r"Dense_\d+")
# Of the network, besides its layers, by what stands in an origin. Between layers is nothing else.
_PARTS = {
    "normalize": "normalize", "log_softmax": "log_softmax", "loss": "loss", "logits": "relu"
}  # fmt: skip
_UPDATE, _BOOKKEEPING = "update", "bookkeeping"


class Operation(NamedTuple):
    """A kernel of a GPU, or what a TPU does in one go."""

    name: str  #: Of the HLO instruction.
    what: str  #: For the network: `backward Dense_0, update`.
    result: str  #: As HLO writes types.
    read: int  #: Bytes on one device, without padding.
    written: int  #: Bytes likewise.
    cycles: int | None  #: The compiler's estimate, if it makes one.
    collective: str | None  #: Which, if it is one: `all-reduce`.


class Loop(NamedTuple):
    """A scan, or what is outside of all."""

    times: int  #: In the whole program.
    operations: list[Operation]  #: Of an iteration, in order, without those of loops in it.


def loops_of(program: Program) -> list[Loop]:
    """What a program does, by how often; what is done once comes first."""
    return list(_loops(program, program.entry, 1))


def step_of(loops: Iterable[Loop]) -> Loop:
    """The loop whose iteration is a step: no other runs as often."""
    return max(loops, key=lambda loop: loop.times)


def cycles_of(loops: Iterable[Loop]) -> int:
    """The compiler's estimate for the whole program; 0 where it makes none."""
    return sum(loop.times * sum(op.cycles or 0 for op in loop.operations) for loop in loops)


def _loops(program: Program, computation: int, times: int) -> Iterator[Loop]:
    body = program.of(computation)
    inner = [instruction for instruction in body if _is_scan(instruction)]
    operations = [
        _operation(program, instruction)
        for instruction in body
        if instruction not in inner and _is_operation(instruction)
    ]
    yield Loop(times, operations)
    for scan in inner:
        yield from _loops(program, scan.called[0], times * _trip_count(program, scan))


def _is_scan(instruction: Instruction) -> bool:
    """A compiler makes loops of its own too, of a scatter for instance, which are operations."""
    return instruction.opcode == "while" and instruction.origin.endswith("while")


def _trip_count(program: Program, scan: Instruction) -> int:
    known = scan.config.get("known_trip_count")
    if known:
        return int(known["n"])
    # Where the backend does not say, the condition compares a counter with it.
    _, condition = scan.called
    bounds = [value for i in program.of(condition) for value in i.value]
    return max(bounds, default=1)


def _is_operation(instruction: Instruction) -> bool:
    """A single number is computed by a TPU's scalar unit, beside the operations."""
    opcode = instruction.opcode
    if opcode in _NO_OPERATIONS or opcode.endswith("-done"):
        return False
    by_itself = opcode in ("fusion", "custom-call", "while", "copy") or _collective(instruction)
    return bool(by_itself) or any(array.shape for array in instruction.results)


def _collective(instruction: Instruction) -> str | None:
    opcode = instruction.opcode.removesuffix("-start")
    return opcode if opcode in _COLLECTIVES else None


def _operation(program: Program, instruction: Instruction) -> Operation:
    cycles = instruction.config.get("window_config", {}).get("estimated_cycles")
    read = sum(_bytes_read(program, instruction, i) for i in range(len(instruction.operands)))
    written = sum(array.nbytes for array in instruction.results)
    collective = _collective(instruction)
    return Operation(
        instruction.name,
        collective or ", ".join(_purposes(program, instruction)) or "layout",
        " ".join(map(str, instruction.results)),
        read,
        written,
        None if cycles is None else int(cycles),
        collective,
    )


def _bytes_read(program: Program, instruction: Instruction, operand: int) -> int:
    """Of an operand; where rows of it are picked, theirs."""
    for inner in fused(program, instruction):
        if inner.opcode in _PICKS:
            source = program.instructions[inner.operands[0]]
            while source.opcode == "bitcast":
                source = program.instructions[source.operands[0]]
            if source.opcode == "parameter" and source.parameter == operand:
                return sum(array.nbytes for array in inner.results)
    arrays = program.instructions[instruction.operands[operand]].results
    return sum(array.nbytes for array in arrays)


def _purposes(program: Program, instruction: Instruction) -> list[str]:
    """What is computed in an operation; of what is only moved, whose it is."""
    inside = list(fused(program, instruction))
    computing = [i for i in inside if i.opcode not in _MOVES]
    products = [i for i in inside if i.opcode in _PRODUCTS]
    moving = [i for i in inside if i.opcode not in ("constant", "parameter")]
    for some in (computing, [instruction], moving):
        found = dict.fromkeys(purpose(i.origin) for i in some if i.origin)
        if len(found) > 1:
            found.pop(_BOOKKEEPING, None)  # of what computes indices
        if products:  # The rest is what is fused with them.
            main = dict.fromkeys(purpose(i.origin) for i in products)
            found = {**main, **{what: None for what in found if what == _UPDATE}}
        if found:
            return list(found)
    return []


def fused(program: Program, instruction: Instruction) -> Iterator[Instruction]:
    """The instructions inside of a fusion; none of anything else."""
    if instruction.opcode == "fusion":
        for called in instruction.called:
            for inner in program.of(called):
                yield inner
                yield from fused(program, inner)


def purpose(origin: str) -> str:
    """What an instruction is for, by where JAX traced it.

    `.../train_step/transpose(jvp(MLP))/.../Dense_1/dot_general` is `backward Dense_1`.
    """
    layer = _LAYER.search(origin)
    what = layer[0] if layer else next((part for key, part in _PARTS.items() if key in origin), "")
    if "transpose(" in origin:
        return f"backward {what}".rstrip()
    if "jvp(" in origin:
        return f"forward {what}".rstrip()
    if "/train_step/" in origin:
        return _UPDATE
    return "batch" if "gather" in origin else _BOOKKEEPING
