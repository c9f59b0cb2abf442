"""`inspect --target`: what is refused, and what is said where there is a compiler."""

from __future__ import annotations

import json

import pytest

from flax_mnist.devices.environment import version
from tests.helpers.command_line import ask, said


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--target v5e", "target v5e: is none. There are tpu-v5e, "),
        ("--members 8", "members: a sweep is inspected with --target."),
        ("--target h100 --members 0", "members is 0; it must be at least 1."),
        ("--target h100 --device gpu", "device gpu: nothing runs with --target."),
    ],
)
def test_what_makes_no_sense_with_a_target_is_refused(capsys, arguments, says):
    assert ask("inspect", *arguments.split()) == 2
    captured = capsys.readouterr()
    assert captured.out == ""
    assert says in captured.err
    assert len(captured.err.splitlines()) == 1


@pytest.mark.parametrize(
    ("target", "plugin", "extra"),
    [("tpu-v5e", "libtpu", "tpu"), ("h100", "jax-cuda13-pjrt", "cuda13")],
)
def test_a_missing_plugin_is_named_in_a_line(capsys, target, plugin, extra):
    if version(plugin):
        pytest.skip(f"{plugin} is installed")
    assert ask("inspect", "--target", target) == 2
    error = capsys.readouterr().err
    assert error.endswith(f"pip install 'flax-mnist[{extra}]'\n")
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("--target tpu-v5e:2x2 --members 3", "members is 3: fewer than the 4 devices of"),
        ("--target tpu-v5e --members 257", "members is 257: tpu-v5e trains at most 256 at once."),
    ],
)
def test_a_sweep_is_inspected_as_it_would_be_trained(capsys, arguments, says):
    if not version("libtpu"):
        pytest.skip("libtpu comes with the extra tpu")
    assert ask("inspect", *arguments.split()) == 2
    assert says in capsys.readouterr().err


@pytest.mark.long
def test_the_json_of_a_target_says_what_its_table_says(capsys):
    if not version("libtpu"):
        pytest.skip("libtpu comes with the extra tpu")
    rows = [json.loads(line) for line in said(capsys, "inspect", "--target", "tpu-v5e", "--json")]
    operations = [row for row in rows if row["section"] == "operations"]
    figures = {row["figure"]: row["value"] for row in rows if row["section"] == "cost"}
    assert figures["operations of a step"] == len(operations)
    known = [op["cycles"] for op in operations if op["cycles"] is not None]
    assert figures["cycles of the others, by the compiler"] == sum(known)
    products = {f"forward Dense_{i}" for i in range(3)}
    assert products <= {op["what"] for op in operations}
