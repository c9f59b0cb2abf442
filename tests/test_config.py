"""The tutorial's values, and what no run can have."""

from __future__ import annotations

import dataclasses

import pytest

from flax_mnist.config import Config
from flax_mnist.errors import RequestError


def test_the_defaults_are_the_tutorials():
    assert dataclasses.asdict(Config()) == {
        "epochs": 5,
        "batch_size": 64,
        "learning_rate": 0.003,
        "momentum": 0.0,
        "hidden_sizes": (128, 64),
        "init": "torch",
        "precision": "float32",
        "deterministic": False,
        "seed": 0,
    }


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("epochs", 0),
        ("epochs", -1),
        ("batch_size", 0),
        ("batch_size", -1),
        ("learning_rate", 0.0),
        ("learning_rate", -0.1),
        ("learning_rate", float("nan")),
        ("learning_rate", float("inf")),
        ("momentum", -0.1),
        ("momentum", 1.0),
        ("momentum", float("nan")),
        ("hidden_sizes", ()),
        ("hidden_sizes", (128, 0)),
        ("hidden_sizes", (-1,)),
        ("hidden_sizes", (65_536, 65_536)),
        ("init", "pytorch"),
        ("precision", "float16"),
        ("learning_rate", 1e-60),
        ("batch_size", 2**31),
        ("hidden_sizes", (1_000_000_000,)),
        ("epochs", 1.5),
        ("epochs", float("nan")),
        ("batch_size", 64.0),
        ("hidden_sizes", (128, 64.5)),
        ("deterministic", "yes"),
        ("seed", 0.5),
        ("seed", -1),
        ("seed", 2**32),
    ],
)
def test_values_out_of_range_are_named(field, value):
    with pytest.raises(RequestError, match=rf"^{field.replace('_', '-')} is .*; it must be "):
        Config(**{field: value})
