"""Which tensor is which: the names and shapes of a state dict, read as layers in their order."""

import itertools
from collections.abc import Iterator, Mapping
from typing import NamedTuple

from flax_mnist.config import CLASSES, PIXELS
from flax_mnist.errors import DataError

KINDS = ("weight", "bias")
MAX_UNNUMBERED = 12  #: Layers whose order the shapes may tell; more may have too many orders.


class _Layer(NamedTuple):
    name: str
    inputs: int
    outputs: int


def in_order(shapes: Mapping[str, tuple[int, ...]], where: str = "") -> list[str]:
    """The names of the linear layers from input to output, as `fc1` of `fc1.weight`, `fc1.bias`.

    Numbers of one `nn.Sequential` are their order, whatever stands between them. Any other names
    are ordered by the shapes, if these leave one order from 784 inputs to 10 outputs.

    Raises:
        DataError: names or shapes are not those of such layers, or leave more than one order; it
            begins with `where`, and says what they are.
    """
    names = list(dict.fromkeys(name.rpartition(".")[0] for name in shapes))
    problems = [
        f"{name} is not expected"
        for name in shapes
        if name.count(".") == 0 or name.rpartition(".")[2] not in KINDS
    ] or [
        f"{name}.{kind} is missing"
        for name in names or ["0"]
        for kind in KINDS
        if f"{name}.{kind}" not in shapes
    ]
    if problems:
        told = f"{where}not the weights of a {PIXELS}-...-{CLASSES} MLP: {'; '.join(problems)}."
        if problems == [f"{name}.bias is missing" for name in names]:
            told += " Every layer here has a bias: give them biases of zeros."
        raise DataError(told)
    try:
        if all(
            len(shapes[f"{name}.weight"]) == 2 for name in names
        ):  # as of nothing but linear ones
            _require_between(names)
        return _numbered(names) or _chained(shapes, names)
    except DataError as error:
        raise DataError(f"{where}{error}") from None


def _require_between(names: list[str]) -> None:
    """Two linear layers next to each other are one, and not the tutorial's two."""
    for name in names:
        parent, dot, number = name.rpartition(".")
        if _is_number(number) and (after := f"{parent}{dot}{int(number) + 1}") in names:
            raise DataError(
                f"in an nn.Sequential nothing stands between {name} and {after}, and a "
                f"{PIXELS}-...-{CLASSES} MLP here has a ReLU there. Where there is one, number the "
                "layers 0, 2, 4."
            )


def _is_number(name: str) -> bool:
    return name.isascii() and name.isdigit() and len(name) < 5


def _numbered(names: list[str]) -> list[str] | None:
    """By number, if all are numbers of one parent."""
    parents, numbers = zip(*(name.rpartition(".")[::2] for name in names), strict=True)
    if len(set(parents)) > 1 or not all(map(_is_number, numbers)):
        return None
    return sorted(names, key=lambda name: int(name.rpartition(".")[2]))


def _chained(shapes: Mapping[str, tuple[int, ...]], names: list[str]) -> list[str]:
    """By shape, if one order leads from the pixels to the classes."""
    of_weights = {name: shapes[f"{name}.weight"] for name in names}
    listed = ", ".join(f"{name} {list(shape)}" for name, shape in of_weights.items())
    layers = [
        _Layer(name, inputs=shape[1], outputs=shape[0])
        for name, shape in of_weights.items()
        if len(shape) == 2 and shapes[f"{name}.bias"] == shape[:1]
    ]
    # Two of one shape could stand in each other's place.
    twins = len({layer[1:] for layer in layers}) < len(layers)
    orders: list[list[str]] = []
    if len(layers) == len(names) <= MAX_UNNUMBERED and not twins:
        orders = list(itertools.islice(_orders(layers, PIXELS), 2))
    if len(orders) != 1:
        raise DataError(
            f"the shapes do not leave one order of a {PIXELS}-...-{CLASSES} MLP: {listed}. Name "
            "the layers 0, 2, 4 in their order."
        )
    return orders[0]


def _orders(layers: list[_Layer], size: int) -> Iterator[list[str]]:
    """Every way through all of the layers from so many inputs to the classes."""
    if not layers and size == CLASSES:
        yield []
    for i, layer in enumerate(layers):
        if layer.inputs == size:
            for rest in _orders(layers[:i] + layers[i + 1 :], layer.outputs):
                yield [layer.name, *rest]
