"""What has come of the members so far."""

from __future__ import annotations

import dataclasses
import math

import jax
import numpy as np
import pytest

from flax_mnist import Config
from flax_mnist.store.sweep_folder import Setting
from flax_mnist.sweeps import group, tally
from tests.helpers.sweeps import SMALL, axes, lane, plan_of, trained

N_TEST = 3


def standing_of(losses: list[float], validation: list[float] | None = None) -> group.Standing:
    results = np.full((len(losses), 4), np.nan)
    results[:, 0], results[:, 1] = losses, np.arange(len(losses)) / 10
    if validation:
        results[:, 2], results[:, 3] = validation, np.array(validation) / 20
    healthy = np.isfinite(results[:, 0])
    results[~healthy] = np.nan
    return group.Standing(None, None, healthy, results, np.ones(len(losses), int))


def counted(dataset, members, losses, sizes, votes=None, validation=None) -> tally.Tally:
    """The tally of members that come in groups of these sizes; their parameters are numbers."""
    total = tally.empty(len(members), 3, len(dataset.test.labels))
    for size in sizes:
        start = total.done
        part, numbers = slice(start, start + size), range(start, start + size)

        def votes_of(wanted, start=start):
            shape = (len(dataset.test.labels), 10)
            rows = [votes[start + i] for i in np.flatnonzero(wanted)] if votes is not None else []
            return sum(rows, np.zeros(shape, np.int64))

        total = tally.with_group(
            total,
            group.Group(start, members[part], members[0]),
            standing_of(losses[part], validation and validation[part]),
            votes_of,
            lambda i, numbers=numbers: {"number": np.array(numbers[i])},
            dataset,
        )
    return total


LOSSES = [3.0, 1.0, 2.0, 0.5, math.nan, 0.1, 2.5, 0.9, 2.0]
MEMBERS = axes((0.1, 0.2, 0.3), 3).members(Config())


@pytest.mark.parametrize("sizes", [[9], [2, 2, 5], [4, 4, 1], [1] * 9])
def test_it_is_the_same_however_the_members_come(dataset, sizes):
    chance = np.random.default_rng(0)
    votes = chance.integers(0, tally.UNITS, (9, len(dataset.test.labels), 10))
    total = counted(dataset, MEMBERS, LOSSES, sizes, votes)
    assert total.done == 9
    assert tally.best_member(total) == 7  # one of 0.2's diverged, and 0.3's are best
    assert total.params == {7: {"number": 7}}
    first, second, third = settings = tally.settings_of(total, MEMBERS)
    assert [setting.best for setting in settings] == [False, False, True]
    assert (first.test_loss, first.test_loss_sd) == (2.0, 1.0)
    assert (second.test_loss, second.diverged, second.members) == (0.3, 1, 3)
    assert third.learning_rate == 0.3
    labels = dataset.test.labels
    right = [np.mean(votes[a:b].sum(0).argmax(-1) == labels) for a, b in ((0, 3), (6, 9))]
    assert [first.ensemble_accuracy, third.ensemble_accuracy] == right
    healthy = votes[[3, 5]].sum(0).argmax(-1)
    assert second.ensemble_accuracy == np.mean(healthy == labels)


def test_while_a_setting_is_open_its_leader_is_kept_too(dataset):
    total = counted(dataset, MEMBERS, LOSSES[:5], [5])
    assert list(total.params) == [1, 3]


def test_where_images_are_held_out_they_decide(dataset):
    validation = [1.0, 3.0, 2.0, 9.0, 9.0, 9.0, 9.0, 9.0, 9.0]
    losses = [loss if math.isfinite(loss) else 7.0 for loss in LOSSES]
    total = counted(dataset, MEMBERS, losses, [9], validation=validation)
    assert tally.best_member(total) == 0
    members = [dataclasses.replace(config, validation=10) for config in MEMBERS]
    first, *_ = tally.settings_of(total, members)
    assert first.best
    assert (first.validation_loss, first.validation_accuracy) == (2.0, pytest.approx(0.1))
    assert (first.test_loss, first.test_accuracy) == (2.0, pytest.approx(0.1))
    assert (first.test_loss_sd, first.test_accuracy_sd) == (1.0, pytest.approx(0.1))


def test_where_all_diverge_there_is_no_best(dataset):
    total = counted(dataset, MEMBERS, [math.nan] * 9, [9])
    assert tally.best_member(total) is None
    settings = tally.settings_of(total, MEMBERS)
    assert {(s.diverged, s.best, s.test_loss, s.ensemble_accuracy) for s in settings} == {
        (3, False, None, None)
    }


def test_of_one_seed_there_is_no_spread(dataset):
    total = counted(dataset, MEMBERS, [*[1.0] * 7, math.nan, math.nan], [9])
    last = tally.settings_of(total, MEMBERS)[-1]
    assert (last.diverged, last.test_loss) == (2, 1.0)
    assert (last.test_loss_sd, last.test_accuracy_sd) == (None, None)


def test_few_that_diverge_come_before_a_low_loss():
    def setting(diverged: int, loss: float | None) -> Setting:
        return Setting(0.1, 0.0, loss, None, None, None, None, 2, diverged, False)

    ranked = [setting(0, 0.4), setting(0, 0.45), setting(1, 0.01), setting(2, None)]
    assert sorted([ranked[i] for i in (2, 0, 3, 1)], key=lambda s: s.rank) == ranked


def test_many_seeds_have_quantiles():
    results = np.zeros((101, 4))
    results[:, 0], results[:, 1] = np.linspace(0, 1, 101), np.linspace(0.4, 0.2, 101)
    full = tally.Tally(results, 101, np.zeros(1), np.zeros((3, 10), np.int64), {})
    (setting,) = tally.settings_of(full, [Config()] * 101)
    assert setting.test_loss_quantiles == pytest.approx([0.05, 0.25, 0.5, 0.75, 0.95])
    assert setting.test_accuracy_quantiles == pytest.approx([0.21, 0.25, 0.3, 0.35, 0.39])
    for count in (tally.MANY_SEEDS, tally.MANY_SEEDS - 1):
        few = full._replace(results=results[:count])
        quantiles = tally.settings_of(few, [Config()])[0].test_accuracy_quantiles
        assert (quantiles is None) == (count < tally.MANY_SEEDS)


def test_the_ensemble_is_the_mean_of_the_probabilities(dataset):
    members = axes((0.05,), 3, momenta=(0.9,)).members(SMALL)
    plan = plan_of(members, dataset)
    ((standing, _),) = trained(plan, dataset)
    images, labels = dataset.test
    programs = group.compile_programs(plan, plan.groups[0], group.place_images(plan, dataset))
    votes = tally.votes_of(programs.predict(group.kept_params(standing), images), standing.healthy)
    total = np.zeros((len(labels), 10))
    for i in range(3):
        x = (images.reshape(-1, 784) / 255 - 0.5) / 0.5
        for number in range(2):
            layer = lane(standing.progress.state.params, i)[f"Dense_{number}"]
            x = x @ layer["kernel"].astype(np.float64) + layer["bias"]
            x = np.exp(x) if number else np.maximum(x, 0)
        total += x / x.sum(-1, keepdims=True)
    np.testing.assert_allclose(votes / tally.UNITS, total, atol=1e-5)


def test_what_fills_up_the_devices_has_no_vote():
    votes = tally.votes_of(jax.numpy.full((3, 2, 10), 0.25), np.array([True, True]))
    np.testing.assert_array_equal(votes, tally.UNITS // 2)


def test_a_members_parameters_are_its_own():
    params = {"Dense_0": {"bias": jax.numpy.arange(6.0).reshape(3, 2)}}
    taken = tally.params_of(params, 1)
    np.testing.assert_array_equal(taken["Dense_0"]["bias"], [2.0, 3.0])
    assert taken["Dense_0"]["bias"].base is None
