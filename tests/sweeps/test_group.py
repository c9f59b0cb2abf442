"""A group: that each member is what its single run is, whoever else is in it."""

from __future__ import annotations

import dataclasses
import functools
import itertools
import math

import jax
import numpy as np
import pytest

from flax_mnist.devices.place import Place
from flax_mnist.runs import loop
from flax_mnist.runs.training import train
from flax_mnist.store.metrics import read_metrics
from flax_mnist.sweeps import group
from flax_mnist.sweeps.plan import Plan
from tests.helpers.sweeps import (
    FLOAT32,
    SMALL,
    axes,
    is_lost,
    known,
    lane,
    plan_of,
    single_run,
    trained,
)

FLOAT64 = 1e-12


@pytest.fixture
def as_on_an_accelerator(monkeypatch):
    """A device takes each step for all its members at once."""
    monkeypatch.setattr(Plan, "together", True)


def assert_close(a, b, atol: float) -> None:
    jax.tree.map(lambda x, y: np.testing.assert_allclose(x, y, rtol=0, atol=atol), a, b)


def compare_in_float64(dataset) -> None:
    config = dataclasses.replace(SMALL, epochs=3, precision="float64")
    members = axes((0.003, 0.05), momenta=(0.0, 0.9)).members(config)
    with jax.enable_x64(True):
        ((standing, rows),) = trained(plan_of(members, dataset), dataset)
        assert [epoch[0][1].step for epoch in rows] == [16, 32, 48]
        for i in (0, 7):
            params, history = single_run(members[i], dataset)
            assert_close(lane(group.kept_params(standing), i), params, FLOAT64)
            ours = np.array([known(epoch[i][1]) for epoch in rows])
            np.testing.assert_allclose(ours[:, :2], history[:, :2], rtol=0, atol=FLOAT64)
            np.testing.assert_allclose(ours[:, 2], history[:, 2], atol=1e-6)
            assert [epoch[i][0] for epoch in rows] == [members[i]] * 3


@pytest.mark.long
def test_a_member_is_its_single_run(dataset):
    compare_in_float64(dataset)


@pytest.mark.usefixtures("as_on_an_accelerator")
def test_a_member_is_its_single_run_under_vmap(dataset):
    compare_in_float64(dataset)


@pytest.mark.long
@pytest.mark.parametrize("validation", [0, 300])
def test_on_a_cpu_it_has_the_bits_of_what_train_makes(dataset, tmp_path, validation):
    """Weights and metrics, with momentum, a velocity that another member needs, a warm-up, and
    validation."""
    config = dataclasses.replace(SMALL, epochs=3, validation=validation, warmup=0.2)
    members = axes((0.05, 0.8), 2, momenta=(0.0, 0.9)).members(config)
    ((standing, rows),) = trained(plan_of(members, dataset), dataset)
    bests = set()
    for i in (0, 3, 5):
        run = train(members[i], dataset, tmp_path / str(i), place=Place("cpu"))
        jax.tree.map(
            np.testing.assert_array_equal, lane(group.kept_params(standing), i), run.params
        )
        untimed = {"seconds": 0.0, "images_per_second": 0.0}
        theirs = [row._replace(**untimed) for row in read_metrics(run.folder)]
        assert [epoch[i][1]._replace(**untimed) for epoch in rows] == theirs
        bests.add(theirs[-1].best_epoch)
    assert validation == 0 or bests != {3}, "the best epoch is always the last"


@pytest.fixture(scope="module")
def grouped(dataset) -> list[tuple[group.Standing, list[group.MemberRows]]]:
    """Five members, of whom the first three can learn; two are trained at a time."""
    members = axes((0.01,), 3, momenta=(0.9,)).members(SMALL)
    members += axes((1e30,), 2).members(SMALL)
    return list(trained(plan_of(members, dataset, 2), dataset))


@pytest.mark.long
def test_groups_give_what_single_runs_give(grouped, dataset):
    assert [[len(rows) for rows in epochs] for _, epochs in grouped] == [[2, 2], [2, 2], [1, 1]]
    for seed, (number, i) in enumerate(((0, 0), (0, 1), (1, 0))):
        config = dataclasses.replace(SMALL, learning_rate=0.01, momentum=0.9, seed=seed)
        params, history = single_run(config, dataset)
        standing, epochs = grouped[number]
        assert [rows[i][0] for rows in epochs] == [config] * 2
        np.testing.assert_allclose([known(rows[i][1]) for rows in epochs], history, atol=FLOAT32)
        assert_close(lane(group.kept_params(standing), i), params, FLOAT32)


def test_a_member_that_diverges_does_so_alone(grouped):
    _, (first, last) = grouped[1]
    assert [is_lost(metrics) for _, metrics in [*first, *last]] == [False, True] * 2
    assert all(is_lost(metrics) for rows in grouped[2][1] for _, metrics in rows)
    assert [standing.healthy.tolist() for standing, _ in grouped] == [
        [True, True], [True, False], [False],
    ]  # fmt: skip
    assert np.isnan(grouped[1][0].results[1]).all()


@pytest.fixture(scope="module")
def three(dataset) -> tuple[Plan, group.Images, group.Programs]:
    """What trains three seeds for three epochs."""
    config = dataclasses.replace(SMALL, epochs=3)
    plan = plan_of(axes((0.05,), 3, momenta=(0.9,)).members(config), dataset)
    images = group.place_images(plan, dataset)
    return plan, images, group.compile_programs(plan, plan.groups[0], images)


def test_once_diverged_is_for_ever(three):
    plan, images, programs = three
    losses = iter((1.0, math.inf, 1.0))

    def score(*members):
        _, accuracy = programs.score(*members)
        return np.array([1.0, next(losses), 1.0]), accuracy

    begun = group.begin(plan, plan.groups[0], images)
    epochs = group.fit(plan, plan.groups[0], images, begun, programs._replace(score=score))
    diverged = [[is_lost(metrics) for _, metrics in rows] for _, rows in epochs if rows]
    assert diverged == [[False, False, False], [False, True, False], [False, True, False]]


def test_the_seconds_are_shared(three, monkeypatch):
    plan, images, programs = three
    clock = itertools.count(step=6.0)
    monkeypatch.setattr(loop.time, "perf_counter", functools.partial(next, clock))
    begun = group.begin(plan, plan.groups[0], images)
    for _, rows in group.fit(plan, plan.groups[0], images, begun, programs):
        for _, metrics in rows or []:
            assert (metrics.seconds, metrics.images_per_second) == (2.0, 500.0)


def test_an_epoch_that_is_cut_is_the_same_epoch(three, dataset):
    plan, images, _ = three
    cut = group.compile_programs(plan, plan.groups[0], images, at_most=5)
    assert cut.chunk == 5
    ends = []
    for programs in (three[2], cut):
        begun = group.begin(plan, plan.groups[0], images)
        *_, (standing, rows) = group.fit(plan, plan.groups[0], images, begun, programs)
        ends.append((lane(standing.progress.state, 1), [known(metrics) for _, metrics in rows]))
    jax.tree.map(np.testing.assert_array_equal, *ends)
