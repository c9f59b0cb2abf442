"""The program that a compiler made, as XLA's HLO describes it.

XLA gives it as a protocol buffer. Here are the fields that are read of it, by their names and
numbers in `xla/service/hlo.proto` and `xla/xla_data.proto` of https://github.com/openxla/xla.
"""

import functools
import json
import math
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from google.protobuf import descriptor_pb2, descriptor_pool, message_factory
from jax.stages import Compiled

# A field's number, its type, and whether there are many.
_Fields = dict[str, tuple[int, str, bool]]
_MESSAGES: dict[str, _Fields] = {
    "HloModuleProto": {
        "computations": (3, "HloComputationProto", True),
        "entry_computation_id": (6, "int64", False),
        "schedule": (7, "HloScheduleProto", False),
    },
    "HloComputationProto": {
        "instructions": (2, "HloInstructionProto", True),
        "id": (5, "int64", False),
    },
    "HloInstructionProto": {
        "name": (1, "string", False),
        "opcode": (2, "string", False),
        "shape": (3, "ShapeProto", False),
        "metadata": (7, "OpMetadata", False),
        "literal": (8, "LiteralProto", False),
        "parameter_number": (9, "int64", False),
        "fusion_kind": (11, "string", False),
        "custom_call_target": (28, "string", False),
        "id": (35, "int64", False),
        "operand_ids": (36, "int64", True),
        "called_computation_ids": (38, "int64", True),
        "backend_config": (43, "bytes", False),
    },
    "OpMetadata": {"op_name": (2, "string", False)},
    "LiteralProto": {
        "s32s": (4, "int32", True),
        "s64s": (5, "int64", True),
        "u32s": (6, "uint32", True),
    },
    "ShapeProto": {
        "element_type": (2, "int32", False),
        "dimensions": (3, "int64", True),
        "tuple_shapes": (4, "ShapeProto", True),
    },
    "HloScheduleProto": {"sequences": (1, "Entry", True)},  # a map
    "Entry": {"key": (1, "int64", False), "value": (2, "InstructionSequence", False)},
    "InstructionSequence": {"instruction_ids": (1, "int64", True)},
}
# `PrimitiveType`: the name in HLO, and bytes.
_TYPES = {
    1: ("pred", 1), 2: ("s8", 1), 3: ("s16", 2), 4: ("s32", 4), 5: ("s64", 8), 6: ("u8", 1),
    7: ("u16", 2), 8: ("u32", 4), 9: ("u64", 8), 10: ("f16", 2), 11: ("f32", 4), 12: ("f64", 8),
    16: ("bf16", 2),
}  # fmt: skip
_TUPLE = 13


class HloArray(NamedTuple):
    """The type of an array."""

    dtype: str  #: As HLO names it: `f32`.
    shape: tuple[int, ...]
    itemsize: int  #: Bytes.

    @property
    def nbytes(self) -> int:
        """Without the padding of a layout."""
        return self.itemsize * math.prod(self.shape)

    def __str__(self) -> str:
        return f"{self.dtype}[{','.join(map(str, self.shape))}]"


class Instruction(NamedTuple):
    """An instruction of HLO."""

    name: str
    opcode: str
    results: tuple[HloArray, ...]  #: One, or those of a tuple.
    origin: str  #: Where JAX traced it: `jit(train_step)/jvp(MLP)/.../Dense_0/dot_general`.
    operands: tuple[int, ...]  #: Numbers of instructions.
    called: tuple[int, ...]  #: Numbers of computations: of a fusion, a loop's body and condition.
    kind: str  #: Of a fusion, or whom a custom call calls.
    parameter: int  #: The number of a parameter.
    value: tuple[int, ...]  #: Of a constant of whole numbers.
    config: Mapping[str, Any]  #: What the backend keeps for itself, JSON.


class Program(NamedTuple):
    """An HLO module."""

    instructions: dict[int, Instruction]  #: All there are, by their numbers.
    computations: dict[int, list[int]]  #: Of each its instructions, as they are scheduled.
    entry: int

    def of(self, computation: int) -> list[Instruction]:
        """The instructions of a computation."""
        return [self.instructions[number] for number in self.computations[computation]]


def program_of(compiled: Compiled) -> Program:
    """The optimised program of a compiled function."""
    return parse(serialized(compiled))


def serialized(compiled: Compiled) -> bytes:
    """The same, as a serialized `HloModuleProto`."""
    executable: Any = compiled.runtime_executable()
    proto: bytes = executable.hlo_modules()[0].as_serialized_hlo_module_proto()
    return proto


def parse(serialized: bytes) -> Program:
    """The program of a serialized `HloModuleProto`."""
    module = message("HloModuleProto")
    module.ParseFromString(serialized)
    scheduled = {
        entry.key: list(entry.value.instruction_ids) for entry in module.schedule.sequences
    }
    instructions: dict[int, Instruction] = {}
    computations = {}
    for computation in module.computations:
        numbers = [instruction.id for instruction in computation.instructions]
        computations[computation.id] = scheduled.get(computation.id, numbers)
        instructions |= {proto.id: _instruction(proto) for proto in computation.instructions}
    return Program(instructions, computations, module.entry_computation_id)


def message(name: str) -> Any:
    """An empty message of one of the types that are read."""
    return _classes()[name]()


@functools.cache
def _classes() -> dict[str, Any]:
    package = "flax_mnist.hlo"
    file = descriptor_pb2.FileDescriptorProto(name=package, package=package, syntax="proto3")
    field_type = descriptor_pb2.FieldDescriptorProto
    for name, fields in _MESSAGES.items():
        described = file.message_type.add(name=name)
        for field, (number, kind, many) in fields.items():
            is_message = kind in _MESSAGES
            described.field.add(
                name=field,
                number=number,
                label=field_type.LABEL_REPEATED if many else field_type.LABEL_OPTIONAL,
                type=field_type.Type.Value(
                    "TYPE_MESSAGE" if is_message else f"TYPE_{kind.upper()}"
                ),
                type_name=f".{package}.{kind}" if is_message else None,
            )
    pool = descriptor_pool.DescriptorPool()
    pool.Add(file)
    return {
        name: message_factory.GetMessageClass(pool.FindMessageTypeByName(f"{package}.{name}"))
        for name in _MESSAGES
    }


def _instruction(proto: Any) -> Instruction:
    return Instruction(
        name=proto.name,
        opcode=proto.opcode,
        results=tuple(_arrays([proto.shape])),
        origin=proto.metadata.op_name,
        operands=tuple(proto.operand_ids),
        called=tuple(proto.called_computation_ids),
        kind=proto.custom_call_target or proto.fusion_kind,
        parameter=proto.parameter_number,
        value=(*proto.literal.s32s, *proto.literal.s64s, *proto.literal.u32s),
        config=json.loads(proto.backend_config or "{}"),
    )


def _arrays(shapes: Sequence[Any]) -> list[HloArray]:
    arrays = []
    for shape in shapes:
        if shape.element_type == _TUPLE:
            arrays += _arrays(shape.tuple_shapes)
        elif shape.element_type in _TYPES:  # and not a token
            dtype, itemsize = _TYPES[shape.element_type]
            arrays.append(HloArray(dtype, tuple(shape.dimensions), itemsize))
    return arrays
