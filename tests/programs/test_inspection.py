"""What `inspect` says of a step, against PyTorch's counts and counts by hand."""

from __future__ import annotations

import importlib
import json
import re
from collections import Counter
from collections.abc import Callable
from types import ModuleType

import jax
import numpy as np
import pytest
from google.protobuf import text_format

from flax_mnist import Config
from flax_mnist.cli.main import main
from flax_mnist.programs import hlo, inspection
from tests.helpers.command_line import said

NETWORKS = pytest.mark.parametrize(
    "config",
    [Config(), Config(hidden_sizes=(20, 30, 40), batch_size=7, momentum=0.9)],
    ids=lambda config: str(config.hidden_sizes),
)


@pytest.fixture
def flops_in_pytorch(torch: ModuleType, tutorial: ModuleType) -> Callable[[Config], int]:
    """What PyTorch counts while it goes forward and backward through the same network."""
    flop_counter = importlib.import_module("torch.utils.flop_counter")

    def flops(config: Config) -> int:
        model = tutorial.build_model(config.hidden_sizes)
        images = tutorial.normalize(np.zeros((config.batch_size, 28, 28), np.uint8))
        labels = torch.zeros(config.batch_size, dtype=torch.int64)
        with flop_counter.FlopCounterMode(display=False) as counter:
            torch.nn.functional.nll_loss(model(images), labels).backward()
        return counter.get_total_flops()

    return flops


def test_the_tutorials_step_costs_29_mflop():
    flops, written = inspection.count_by_hand(Config())
    assert flops == 29_081_600
    assert flops == eval(written.replace("x", "*"))


@NETWORKS
def test_the_count_by_hand_is_pytorchs(config, flops_in_pytorch):
    assert inspection.count_by_hand(config)[0] == flops_in_pytorch(config)


@NETWORKS
def test_each_layer_has_three_products_and_the_first_has_two(config, flops_in_pytorch):
    traced = inspection.trace_step(config)
    layers = len(config.hidden_sizes) + 1
    assert str(traced.jaxpr).count("= dot_general[") == 3 * layers - 1
    products = inspection.find_products(hlo.program_of(inspection.compile_step(traced)))
    expected = {f"forward Dense_{i}": 1 for i in range(layers)}
    expected |= {f"backward Dense_{i}": 2 if i else 1 for i in range(layers)}
    assert Counter(product.source for product in products) == expected
    assert [product.source for product in products[:layers]] == list(expected)[:layers]
    assert sum(product.flops for product in products) == flops_in_pytorch(config)
    first = products[0]
    batch, hidden = config.batch_size, config.hidden_sizes[0]
    assert set(first.operands) == {f"f32[{batch},784]", f"f32[784,{hidden}]"}
    assert first.result == f"f32[{batch},{hidden}]"


GPU = """
entry_computation_id: 2
computations {
  id: 1
  instructions { id: 11 opcode: "parameter" shape { element_type: 11 dimensions: [64, 784] } }
  instructions { id: 12 opcode: "parameter" shape { element_type: 11 dimensions: [784, 128] } }
  instructions {
    id: 13 opcode: "dot" operand_ids: [11, 12] shape { element_type: 11 dimensions: [64, 128] }
    metadata { op_name: "jit(train_step)/jvp(MLP)/Dense_0/dot_general" }
  }
}
computations {
  id: 2
  instructions { id: 21 opcode: "parameter" shape { element_type: 11 dimensions: [64, 784] } }
  instructions { id: 22 opcode: "parameter" shape { element_type: 11 dimensions: [784, 128] } }
  instructions { id: 23 opcode: "parameter" shape { element_type: 11 dimensions: [64, 128] } }
  instructions {
    id: 24 opcode: "custom-call" custom_call_target: "__cublas$gemm" operand_ids: [21, 23]
    shape {
      element_type: 13
      tuple_shapes { element_type: 11 dimensions: [784, 128] }
      tuple_shapes { element_type: 2 dimensions: [4194304] }
    }
    metadata { op_name: "jit(train_step)/transpose(jvp(MLP))/Dense_0/transpose" }
  }
  instructions {
    id: 25 opcode: "custom-call" custom_call_target: "__topk" operand_ids: [23]
    shape { element_type: 11 dimensions: [64, 128] }
  }
  instructions {
    id: 26 opcode: "fusion" fusion_kind: "kCustom" operand_ids: [21, 22] called_computation_ids: 1
    shape { element_type: 11 dimensions: [64, 128] }
    backend_config: '{"fusion_backend_config": {"kind": "__triton_gemm"}}'
  }
}
"""


def test_products_are_found_in_calls_and_fusions_in_the_order_of_the_program():
    flops = 2 * 64 * 784 * 128
    module = text_format.Parse(GPU, hlo.message("HloModuleProto"))
    assert inspection.find_products(hlo.parse(module.SerializeToString())) == [
        ("backward Dense_0", ("f32[64,784]", "f32[64,128]"), "f32[784,128]", flops, "cublas$gemm"),
        ("forward Dense_0", ("f32[64,784]", "f32[784,128]"), "f32[64,128]", flops, "triton_gemm"),
    ]


def test_inspect_says_what_a_step_is_and_costs(tutorial, capsys):
    assert main(["inspect"]) == 0
    said = capsys.readouterr().out
    model = tutorial.build_model()
    for layer in (0, 2, 4):
        count = sum(parameter.numel() for parameter in model[layer].parameters())
        assert f"| {count:,} (" in said
    assert "109,386 (437.5 KB)" in said
    assert said.count("= dot_general[") == 8
    assert re.search(r"^8 products +29,081,600", said, re.MULTILINE)
    figures = dict(re.findall(r"^(\S.*?|  \S.*?) +([\d,]+)$", said, re.MULTILINE))
    counts = {what.strip(): int(n.replace(",", "")) for what, n in figures.items()}
    by_hand = counts["FLOPs of the products, by hand"]
    assert by_hand == 29_081_600
    # The rest of the step is a few operations for each activation and weight.
    assert by_hand < counts["FLOPs of the whole step, by XLA"] < 1.1 * by_hand
    # An exponential for each logit, a logarithm for each image.
    assert counts["exponentials and logarithms, by XLA"] == 64 * 10 + 64
    # Weights, learning rate and the count of steps.
    assert counts["given up for the next state (donated)"] == 4 * (109_386 + 2)
    assert counts["bytes of memory: state and batch"] == 4 * (109_386 + 2) + 64 * (784 + 4)


def test_a_section_can_be_asked_for_alone_and_fits_the_page(capsys):
    flags = ["--batch-size", "8", "--hidden-sizes", "16", "--precision", "float64"]
    try:
        assert main(["inspect", *flags, "--sections", "products"]) == 0
    finally:
        jax.config.update("jax_enable_x64", False)
    said = capsys.readouterr().out
    assert "f64[8,784] f64[784,16]" in said
    assert "What a step costs" not in said
    assert "The jaxpr" not in said
    assert max(map(len, said.splitlines())) <= 80


def test_the_json_says_the_same_as_the_page(capsys):
    rows = [json.loads(line) for line in said(capsys, "inspect", "--json", "--batch-size", "32")]
    by_section: dict[str, list[dict]] = {}
    for row in rows:
        by_section.setdefault(row["section"], []).append(row)
    assert list(by_section) == ["layers", "jaxpr", "products", "cost"]
    assert sum(layer["parameters"] for layer in by_section["layers"]) == 109_386
    # 2 m k n for each of the eight products, by hand.
    sizes = ((784, 128, 2), (128, 64, 3), (64, 10, 3))
    flops = sum(2 * 32 * fan_in * fan_out * n for fan_in, fan_out, n in sizes)
    assert sum(product["flops"] for product in by_section["products"]) == flops
    assert by_section["cost"][0]["value"] == flops


def test_the_notes_of_the_cost_fit_a_terminal(capsys):
    lines = said(capsys, "inspect", "--sections", "cost")
    assert [line for line in lines if len(line) > 79 and " " in line] == []
