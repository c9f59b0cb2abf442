"""Files as hypothesis makes them up, and how a reader has to take them."""

from __future__ import annotations

import copy
from pathlib import Path

from hypothesis import settings
from hypothesis import strategies as st

from flax_mnist.errors import FlaxMnistError

# The same examples every time: what fails for one fails for all.
repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=100)


def answer(read, path: Path):
    """What is read; None where it is refused, with an error of ours that names the file."""
    try:
        return read(path)
    except FlaxMnistError as error:
        said = str(error)
    assert str(path) in said
    return None


def mostly(usual, *others):
    return st.sampled_from([usual] * 12 + list(others))


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["F32", "F64", "I8", "0.weight", "4.bias", "mnist", "auto", 784, -1]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


def changed(draw, tree):
    """The JSON tree with up to three of its nodes replaced, removed or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(0, 3))):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = node[key]
            if isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
                node = inner
                continue
            match draw(st.sampled_from(["replace", "replace", "remove", "rename"])):
                case "remove":
                    del node[key]
                case "rename" if isinstance(node, dict):
                    node[draw(st.sampled_from(["0.weight", "x", "", "name"]))] = node.pop(key)
                case _:
                    node[key] = draw(JSON)
            break
    return tree
