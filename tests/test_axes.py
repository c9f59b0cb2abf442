"""What the members of a sweep are."""

from __future__ import annotations

import pytest

from flax_mnist import Config
from flax_mnist.axes import Axes
from flax_mnist.errors import RequestError


def test_the_members_are_the_product_each_once():
    members = Axes((0.1, 0.2, 0.1), (0.0, 0.9, 0.0), seeds=2).members(Config(seed=5, epochs=2))
    assert [(m.learning_rate, m.momentum, m.seed) for m in members] == [
        (0.1, 0.0, 5), (0.1, 0.0, 6), (0.1, 0.9, 5), (0.1, 0.9, 6),
        (0.2, 0.0, 5), (0.2, 0.0, 6), (0.2, 0.9, 5), (0.2, 0.9, 6),
    ]  # fmt: skip
    assert {m.epochs for m in members} == {2}


def test_networks_and_batch_sizes_vary_slowest():
    axes = Axes((0.1, 0.2), (0.0,), (32, 64, 32), ((8,), (16, 8), (8,)), seeds=1)
    assert [(m.hidden_sizes, m.batch_size, m.learning_rate) for m in axes.members(Config())] == [
        ((8,), 32, 0.1), ((8,), 32, 0.2), ((8,), 64, 0.1), ((8,), 64, 0.2),
        ((16, 8), 32, 0.1), ((16, 8), 32, 0.2), ((16, 8), 64, 0.1), ((16, 8), 64, 0.2),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("given", "reason"),
    [
        ({"learning_rates": ()}, "learning-rates: there must be at least 1"),
        ({"momenta": ()}, "momenta: there must be at least 1"),
        ({"batch_sizes": ()}, "batch-sizes: there must be at least 1"),
        ({"networks": ()}, "networks: there must be at least 1"),
        ({"seeds": 0}, "seeds: there must be at least 1"),
        ({"seeds": 100_001}, "seeds is 100,001; it must be at most"),
        ({"momenta": (1.5,)}, r"momentum is 1\.5"),
        ({"batch_sizes": (0,)}, "batch-size is 0"),
        ({"networks": ((8, 0),)}, "hidden-sizes is 8 0"),
    ],
)
def test_what_makes_no_members_is_refused(given, reason):
    with pytest.raises(RequestError, match=reason):
        Axes(**given).members(Config())


def test_the_most_seeds_are_not_refused():
    assert Axes(seeds=100_000).seeds == 100_000


@pytest.mark.parametrize("given", [{"until_accuracy": 0.9}, {"patience": 1, "validation": 10}])
def test_what_would_end_members_early_is_refused(given):
    with pytest.raises(RequestError, match="not in a sweep"):
        Axes().members(Config(**given))
