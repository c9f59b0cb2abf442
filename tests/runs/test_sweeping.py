"""Sweeps: that each member is what its single run is."""

from __future__ import annotations

import dataclasses
import itertools
import math

import jax
import numpy as np
import pytest

from flax_mnist.devices.memory import Plan, make_plan, member_bytes, shared_bytes
from flax_mnist.runs import sweeping
from flax_mnist.runs.sweeping import Trained, collect, fit
from flax_mnist.store.metrics import Metrics
from flax_mnist.sweep import combinations, outcomes_of
from tests.helpers.sweeps import FLOAT32, SMALL, single_run

FLOAT64 = 1e-12


def run_sweep(members, dataset, together, free=math.inf) -> list[sweeping.Epoch]:
    plan = make_plan(members, dataset.counts, jax.devices(), free)
    return list(fit(plan, dataset, sweeping.compile_programs(plan, dataset, together)))


def member(trained: Trained, i: int):
    return jax.tree.map(lambda leaf: leaf[i], trained.params)


def values(metrics: Metrics) -> tuple[float, float, float]:
    return metrics.train_loss, metrics.test_loss, metrics.test_accuracy


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "vmap"])
def test_a_member_is_its_single_run(dataset, together):
    config = dataclasses.replace(SMALL, epochs=3, precision="float64")
    members = combinations(config, (0.003, 0.05), (0.0, 0.9), seeds=2)
    with jax.enable_x64(True):
        epochs = run_sweep(members, dataset, together)
        assert [(e.group, e.trained is not None) for e in epochs] == [
            (0, False), (0, False), (0, True),
        ]  # fmt: skip
        for i in (0, 7):
            params, history = single_run(members[i], dataset)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=FLOAT64),
                member(epochs[-1].trained, i),
                params,
            )
            ours = np.array([values(epoch.rows[i][1]) for epoch in epochs])
            np.testing.assert_allclose(ours[:, :2], history[:, :2], rtol=0, atol=FLOAT64)
            np.testing.assert_allclose(ours[:, 2], history[:, 2], atol=1e-6)
            assert [epoch.rows[i][0] for epoch in epochs] == [members[i]] * 3
    assert [epoch.rows[0][1].step for epoch in epochs] == [16, 32, 48]


@pytest.fixture(scope="module")
def grouped(dataset) -> list[sweeping.Epoch]:
    """Five members, of whom the first three can learn; two fit at a time."""
    members = combinations(SMALL, (0.01,), (0.9,), seeds=3)
    members += combinations(SMALL, (1e30,), (0.0,), seeds=2)
    config = dataclasses.replace(members[0], momentum=0.9)
    room = shared_bytes(config, dataset.counts) + 2.5 * member_bytes(config, dataset.counts)
    return run_sweep(members, dataset, together=True, free=room)


def test_groups_give_what_single_runs_give(grouped, dataset):
    assert [(e.group, len(e.rows), e.trained is not None) for e in grouped] == [
        (0, 2, False), (0, 2, True), (1, 2, False), (1, 2, True), (2, 1, False), (2, 1, True),
    ]  # fmt: skip
    for seed, (first, last, place) in enumerate(((0, 1, 0), (0, 1, 1), (2, 3, 0))):
        config = dataclasses.replace(SMALL, learning_rate=0.01, momentum=0.9, seed=seed)
        params, history = single_run(config, dataset)
        ours = [grouped[number].rows[place] for number in (first, last)]
        assert [member for member, _ in ours] == [config] * 2
        got = [values(metrics) for _, metrics in ours]
        np.testing.assert_allclose(got, history, rtol=0, atol=FLOAT32)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=FLOAT32),
            member(grouped[last].trained, place),
            params,
        )


def test_a_member_that_diverges_does_so_alone(grouped):
    lost = [bool(np.isnan(values(metrics)).all()) for e in grouped[2:4] for _, metrics in e.rows]
    assert lost == [False, True] * 2  # what its neighbour came to is tested above
    assert np.isnan([values(metrics) for e in grouped[4:] for _, metrics in e.rows]).all()


@pytest.fixture(scope="module")
def three(dataset) -> tuple[Plan, sweeping.Programs]:
    """What trains three seeds for two epochs."""
    members = combinations(SMALL, (0.05,), (0.9,), 3)
    plan = make_plan(members, dataset.counts, jax.devices(), math.inf)
    return plan, sweeping.compile_programs(plan, dataset, together=False)


def test_once_diverged_is_for_ever(three, dataset):
    plan, programs = three
    losses = iter((1.0, math.inf, 1.0))

    def train(own, images, labels):
        state, _ = programs.train(own, images, labels)
        return state, np.array([1.0, next(losses), 1.0])

    plan = plan._replace(template=dataclasses.replace(plan.template, epochs=3))
    diverged = [
        [bool(np.isnan(values(metrics)).all()) for _, metrics in epoch.rows]
        for epoch in fit(plan, dataset, programs._replace(train=train))
    ]
    assert diverged == [[False, False, False], [False, True, False], [False, True, False]]


def test_the_seconds_are_shared(three, dataset, monkeypatch):
    clock = itertools.count(step=6.0)
    monkeypatch.setattr(sweeping.time, "perf_counter", lambda: next(clock))
    for epoch in fit(three[0], dataset, three[1]):
        for _, metrics in epoch.rows:
            assert (metrics.seconds, metrics.images_per_second) == (2.0, 500.0)


def test_the_ensemble_is_the_mean_of_the_probabilities(three, dataset):
    plan, programs = three
    (members,) = plan.groups
    _, epoch = fit(plan, dataset, programs)
    outcomes = outcomes_of(members)
    collect(outcomes, epoch)
    images, labels = dataset.test
    total = np.zeros((len(labels), 10))
    for i in range(3):
        params = member(epoch.trained, i)
        x = (images.reshape(-1, 784) / 255 - 0.5) / 0.5
        for number in range(2):
            layer = params[f"Dense_{number}"]
            x = x @ layer["kernel"].astype(np.float64) + layer["bias"]
            x = np.exp(x) if number else np.maximum(x, 0)
        total += x / x.sum(-1, keepdims=True)
    expected = np.mean(total.argmax(-1) == labels)
    single = [metrics.test_accuracy for _, metrics in epoch.rows]
    assert expected not in single, "the test could not tell an ensemble from a member"
    outcome = outcomes[0.05, 0.9]
    assert outcome.ensemble_accuracy(labels) == pytest.approx(expected, abs=1e-9)
    assert outcome.test_accuracies == single
