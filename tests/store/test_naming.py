"""The order of layers: told by numbers, or by shapes that leave one, or not at all."""

from __future__ import annotations

import itertools

import pytest

from flax_mnist.errors import DataError
from flax_mnist.store.naming import in_order


def shapes(**layers: tuple[int, int]) -> dict[str, tuple[int, ...]]:
    """Of layers from so many inputs to so many outputs; `_` is a dot."""
    found: dict[str, tuple[int, ...]] = {}
    for name, (inputs, outputs) in layers.items():
        name = name.strip("_").replace("_", ".")
        found |= {f"{name}.weight": (outputs, inputs), f"{name}.bias": (outputs,)}
    return found


def test_numbers_are_an_order_whatever_the_shapes_and_the_file_say():
    given = shapes(net_10=(20, 10), net_2=(20, 20), net_0=(784, 20), net_8=(20, 20))
    assert in_order(given) == ["net.0", "net.2", "net.8", "net.10"]


def test_other_names_are_ordered_by_the_one_way_through_the_shapes():
    layers = {"a": (784, 20), "b": (20, 20), "c": (20, 30), "d": (30, 10)}
    for order in itertools.permutations(layers.items()):
        assert in_order(shapes(**dict(order))) == ["a", "b", "c", "d"]


@pytest.mark.parametrize(
    ("layers", "says"),
    [
        # Either of two may be first.
        ({"in": (784, 20), "a": (20, 20), "b": (20, 20), "out": (20, 10)}, r"in \[20, 784\], a \["),
        # A circle, through which there are two ways.
        (
            {"a": (784, 20), "b": (20, 30), "c": (30, 20), "d": (20, 40), "e": (40, 20),
             "f": (20, 10)},
            "do not leave one order",
        ),
        ({"a": (784, 20), "b": (30, 10)}, r"a \[20, 784\], b \[10, 30\]"),  # no way at all
        ({"a": (784, 10), "b": (784, 10)}, "do not leave one order"),
        ({f"n{i}": (784 + i, 785 + i) for i in range(13)}, "do not leave one order"),
        # One nn.Sequential has an order of its own; of two, nobody knows.
        ({"x_0": (784, 20), "x_2": (20, 20), "y_0": (20, 20), "y_2": (20, 10)}, "one order"),
        ({"_0": (784, 20), "_1": (20, 10)}, "nothing stands between 0 and 1"),
        ({"net_4": (20, 10), "net_3": (784, 20)}, r"nothing stands between net\.3 and net\.4"),
        (
            {"net_0": (784, 20), "net_1": (20, 30), "out": (30, 10)},
            r"nothing stands between net\.0 and net\.1",
        ),
    ],
)  # fmt: skip
def test_what_leaves_no_one_order_is_refused_with_its_shapes(layers, says):
    with pytest.raises(DataError, match=says):
        in_order(shapes(**layers))


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"0.bias": None}, r"0\.bias is missing"),
        ({"1.weight": (1,)}, r"1\.bias is missing\.$"),  # a PReLU: zeros are no remedy
        ({"2.weight": None}, r"2\.weight is missing"),
        ({"1.running_mean": (20,)}, r"1\.running_mean is not expected"),
        ({"weight": (20, 20)}, r"weight is not expected"),
        ({"conv.weight": (8, 1, 3, 3), "conv.bias": (8,)}, r"conv \[8, 1, 3, 3\]"),
        ({"norm.weight": (20,), "norm.bias": (20,)}, r"norm \[20\]"),
        ({"0.bias": None, "0.weight": None, "2.bias": None, "2.weight": None}, "0.weight is miss"),
    ],
)
def test_what_is_no_linear_layer_is_named(change, says):
    given = {**shapes(_0=(784, 20), _2=(20, 10)), **change}
    with pytest.raises(DataError, match=f"^w: .*{says}"):
        in_order({name: shape for name, shape in given.items() if shape}, "w: ")
