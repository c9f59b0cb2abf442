"""The operations of a program, read from HLO that is written out here and from a CPU's."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import pytest
from google.protobuf import text_format

from flax_mnist.programs import hlo
from flax_mnist.programs.operations import cycles_of, loops_of, purpose, step_of

F32 = "shape { element_type: 11 dimensions: [64, 128] }"
#: A scan of 5, whose body has an operation of 1,800 cycles, an all-reduce, and a number.
SCAN = f"""
entry_computation_id: 3
computations {{
  id: 1
  instructions {{ id: 11 opcode: "parameter" {F32} }}
  instructions {{
    id: 12 name: "fusion.1" opcode: "fusion" operand_ids: 11 {F32}
    metadata {{ op_name: "jit(train_step)/transpose(jvp(MLP))/Dense_1/dot_general" }}
    backend_config: '{{"window_config": {{"estimated_cycles": "1800"}}}}'
  }}
  instructions {{ id: 13 name: "all-reduce" opcode: "all-reduce" operand_ids: 12 {F32} }}
  instructions {{ id: 14 opcode: "add" shape {{ element_type: 11 }} }}
  instructions {{ id: 15 opcode: "copy-start" operand_ids: 12 {F32} }}
}}
computations {{
  id: 2
  instructions {{
    id: 21 opcode: "constant" shape {{ element_type: 4 }} literal {{ s32s: 5 }}
  }}
}}
computations {{
  id: 3
  instructions {{ id: 31 opcode: "parameter" {F32} }}
  instructions {{
    id: 32 opcode: "while" operand_ids: 31 called_computation_ids: [1, 2] {F32}
    metadata {{ op_name: "jit(train_steps)/while" }}
  }}
}}
"""


def test_a_scans_operations_are_counted_as_often_as_they_run():
    module = text_format.Parse(SCAN, hlo.message("HloModuleProto"))
    loops = loops_of(hlo.parse(module.SerializeToString()))
    step = step_of(loops)
    assert step.times == 5
    assert [(op.name, op.what, op.read, op.cycles, op.collective) for op in step.operations] == [
        ("fusion.1", "backward Dense_1", 4 * 64 * 128, 1800, None),
        ("all-reduce", "all-reduce", 4 * 64 * 128, None, "all-reduce"),
    ]
    assert cycles_of(loops) == 5 * 1800


def test_the_scan_of_a_compiled_function_is_found():
    def step(x, row):
        return jnp.tanh(x @ x) + row, None

    compiled = jax.jit(lambda x, rows: jax.lax.scan(step, x, rows)[0])
    loops = loops_of(
        hlo.program_of(compiled.lower(jnp.ones((8, 8)), jnp.ones((7, 8, 8))).compile())
    )
    assert step_of(loops).times == 7
    assert any("f32[8,8]" in op.result for op in step_of(loops).operations)


def test_where_rows_are_picked_only_they_are_read():
    table, rows = jnp.ones((1000, 32)), jnp.arange(4)
    compiled = jax.jit(lambda table, rows: 2 * table[rows]).lower(table, rows).compile()
    (once,) = loops_of(hlo.program_of(compiled))
    assert sum(op.read for op in once.operations) < 8 * 4 * 4 * 32


@pytest.mark.parametrize(
    ("origin", "what"),
    [
        ("jit(train_step)/jvp(MLP)/MLP.logits/MLP._linear/Dense_0/dot_general", "forward Dense_0"),
        ("jit(train_step)/transpose(jvp(MLP))/MLP.logits/select_n", "backward relu"),
        ("jit(train_step)/jvp(normalize)/div", "forward normalize"),
        ("jit(train_step)/transpose(jvp(loss))/mul", "backward loss"),
        ("jit(train_steps)/while/body/closed_call/train_step/add", "update"),
        ("jit(train_steps)/while/body/closed_call/gather", "batch"),
        ("jit(train_steps)/while/body/add", "bookkeeping"),
    ],
)
def test_an_origin_says_what_it_is_for(origin, what):
    assert purpose(origin) == what
