"""What the members of a sweep are, and what their settings come to."""

from __future__ import annotations

import math

import numpy as np
import pytest

from flax_mnist import Config
from flax_mnist.errors import RequestError
from flax_mnist.runs import sweeping
from flax_mnist.sweep import Outcome, combinations, outcomes_of
from tests.helpers.sweeps import ended, metrics_of


def test_combinations_are_the_product_each_once():
    members = combinations(Config(seed=5, epochs=2), (0.1, 0.2, 0.1), (0.0, 0.9), 2)
    assert [(m.learning_rate, m.momentum, m.seed) for m in members] == [
        (0.1, 0.0, 5), (0.1, 0.0, 6), (0.1, 0.9, 5), (0.1, 0.9, 6),
        (0.2, 0.0, 5), (0.2, 0.0, 6), (0.2, 0.9, 5), (0.2, 0.9, 6),
    ]  # fmt: skip
    assert {m.epochs for m in members} == {2}
    for rates, momenta, seeds in (((), (0.0,), 1), ((0.1,), (), 1), ((0.1,), (0.0,), 0)):
        with pytest.raises(RequestError, match="at least 1"):
            combinations(Config(), rates, momenta, seeds)
    with pytest.raises(RequestError, match=r"momentum is 1\.5"):
        combinations(Config(), (0.1,), (1.5,), 1)


def test_a_settings_outcome_is_that_of_its_members():
    first, second = Config(learning_rate=0.1), Config(learning_rate=0.1, seed=1)
    third, other = Config(learning_rate=0.1, seed=2), Config(learning_rate=0.2)
    outcomes = outcomes_of([first, second, third, other])
    votes = np.zeros((3, 3, 10))
    votes[0, :, 1], votes[1, :, 1], votes[2, :, 7] = 0.6, 0.9, 1.0
    sweeping.collect(outcomes, ended([(first, metrics_of(3.0)), (other, metrics_of(0.1))]))
    outcomes[0.1, 0.0].probabilities = 0.0
    sweeping.collect(
        outcomes,
        ended([(second, metrics_of(1.0)), (first, metrics_of(2.0)), (third, metrics_of(math.nan))],
              votes),
    )  # fmt: skip
    outcome = outcomes[0.1, 0.0]
    assert outcome.test_losses == [3.0, 1.0, 2.0]
    assert outcome.best[0] == second
    assert float(outcome.best[1]["Dense_0"]["bias"]) == 0
    assert outcome.diverged == 1
    assert outcome.rank == (1, 2.0)
    assert outcome.ensemble_accuracy(np.array([1, 1, 7])) == pytest.approx(2 / 3)
    unfinished = sweeping.Epoch(0, [(first, metrics_of(9.0))], None)
    sweeping.collect(outcomes, unfinished)
    assert len(outcome.test_losses) == 3


def test_few_that_diverge_come_before_a_low_loss():
    ranked = [
        Outcome(0.1, 0, diverged=0, test_losses=[0.3, 0.5]),
        Outcome(0.2, 0, diverged=0, test_losses=[0.1, 0.8]),
        Outcome(0.3, 0, diverged=1, test_losses=[0.01]),
        Outcome(0.4, 0, diverged=2),
    ]
    assert sorted([ranked[i] for i in (2, 0, 3, 1)], key=lambda outcome: outcome.rank) == ranked
