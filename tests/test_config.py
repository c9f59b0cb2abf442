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
        "optimizer": "sgd",
        "weight_decay": None,
        "schedule": "constant",
        "warmup": 0.0,
        "hidden_sizes": (128, 64),
        "init": "torch",
        "precision": "float32",
        "deterministic": False,
        "seed": 0,
        "validation": 0,
        "patience": 0,
        "until_accuracy": 0.0,
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
        ("optimizer", "rmsprop"),
        ("schedule", "step"),
        ("weight_decay", -0.1),
        ("weight_decay", float("nan")),
        ("warmup", -1.0),
        ("warmup", float("nan")),
        ("warmup", 5.0),
        ("validation", -1),
        ("validation", 0.5),
        ("patience", -1),
        ("patience", 1.5),
        ("until_accuracy", 97.0),
        ("until_accuracy", -0.1),
        ("until_accuracy", float("nan")),
        # Each has a meaning, but none beside the others' defaults.
        ("weight_decay", 0.1),
        ("patience", 3),
    ],
)
def test_values_out_of_range_are_named(field, value):
    with pytest.raises(RequestError, match=rf"^{field.replace('_', '-')} is .*; it must be "):
        Config(**{field: value})


@pytest.mark.parametrize("optimizer", ["adam", "adamw"])
def test_adam_takes_no_momentum_of_sgds(optimizer):
    with pytest.raises(RequestError, match=rf"^momentum is 0\.9; .* left out with {optimizer}, "):
        Config(optimizer=optimizer, momentum=0.9)


def test_what_says_when_a_run_ends_may_change_but_a_schedule_keeps_its_epochs():
    ends = {"epochs", "patience", "until_accuracy"}
    assert vars(Config()).keys() - Config().lasting().keys() == ends
    cosine = Config(schedule="cosine")
    assert vars(cosine).keys() - cosine.lasting().keys() == ends - {"epochs"}
