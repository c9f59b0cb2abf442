"""A training on arrays, with any optimizer."""

from __future__ import annotations

import dataclasses
from collections.abc import Iterator

import jax
import numpy as np
import optax
import pytest

from flax_mnist import (
    Config,
    Split,
    epoch_order,
    fit,
    from_torch_state_dict,
    init_state,
    to_torch_state_dict,
)
from flax_mnist.errors import ArgumentError, FlaxMnistError, RequestError
from flax_mnist.runs.training import train

CONFIG = Config(epochs=3, learning_rate=0.05, momentum=0.9, hidden_sizes=(16,))


@pytest.fixture(autouse=True)
def _promotion() -> Iterator[None]:
    with jax.numpy_dtype_promotion("standard"):  # as a user has it; optax's Adam needs it
        yield


def same(ours, theirs, atol: float = 0) -> None:
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=atol), ours, theirs)


@pytest.mark.long
def test_without_an_optimizer_it_is_the_training_of_a_run(dataset, tmp_path):
    run, fitted = train(CONFIG, dataset, tmp_path / "run"), fit(CONFIG, dataset)
    same(fitted.state.params, run.params)
    assert [(row.epoch, row.step) for row in fitted.metrics] == [(1, 16), (2, 32), (3, 48)]
    for ours, theirs in zip(fitted.metrics, run.metrics, strict=True):
        assert ours[: ours._fields.index("seconds")] == theirs[: ours._fields.index("seconds")]


def test_with_adamw_it_is_pytorchs_loop(torch, tutorial, dataset):
    config = Config(epochs=2, hidden_sizes=(16,))
    network = tutorial.build_model(config.hidden_sizes)
    images = tutorial.normalize(dataset.train.images)
    start = from_torch_state_dict({k: v.numpy().copy() for k, v in network.state_dict().items()})
    labels = torch.tensor(dataset.train.labels).long()
    adamw = torch.optim.AdamW(network.parameters(), lr=1e-3, weight_decay=1e-2)
    for epoch in range(2):
        for rows in torch.tensor(epoch_order(config.seed, epoch, 1000)).long().split(64):
            adamw.zero_grad()
            torch.nn.NLLLoss()(network(images[rows]), labels[rows]).backward()
            adamw.step()
    data = dataset.train, dataset.test
    fitted = fit(config, data, optimizer=optax.adamw(1e-3, weight_decay=1e-2), params=start)
    ours = to_torch_state_dict(fitted.state.params)
    # Of weights that move by 1e-3 a step; Adam divides small gradients by themselves.
    for name, theirs in network.state_dict().items():
        np.testing.assert_allclose(ours[name], theirs, rtol=0, atol=2e-4)


def test_it_goes_on_as_if_it_had_never_ended_and_spoils_nothing(dataset):
    adam = optax.adam(1e-3)
    whole = fit(CONFIG, dataset, optimizer=adam)
    first = fit(dataclasses.replace(CONFIG, epochs=1), dataset, optimizer=adam)
    more = fit(CONFIG, dataset, optimizer=adam, after=first)
    same(more.state, whole.state)
    assert [row.epoch for row in more.metrics] == [1, 2, 3]
    same(fit(CONFIG, dataset, optimizer=adam, after=first).state, whole.state)


def test_given_weights_are_begun_with_and_remain(dataset):
    start = init_state(dataclasses.replace(CONFIG, seed=5)).params
    before = jax.tree.map(np.array, start)
    fitted = fit(CONFIG, dataset, params=start)
    same(start, before)
    other = fit(CONFIG, dataset)
    assert fitted.metrics[0].train_loss != other.metrics[0].train_loss


def test_it_ends_where_nothing_gets_better_and_keeps_the_best(dataset):
    few = dataset.train.images[:64], dataset.train.labels[:64]  # learned by heart
    config = Config(epochs=200, learning_rate=0.1, momentum=0.9, hidden_sizes=(32,))
    fitted = fit(config, (Split(*few), dataset.test), patience=3)
    losses = [row.test_loss for row in fitted.metrics]
    best = int(np.argmin(losses))
    assert len(losses) == best + 4 < 200
    until_best = fit(dataclasses.replace(config, epochs=best + 1), (Split(*few), dataset.test))
    same(fitted.params, until_best.state.params)
    same(until_best.params, until_best.state.params)


def test_a_loss_that_is_not_finite_ends_it(dataset):
    with pytest.raises(FlaxMnistError, match=r"not finite in step [12]: the steps are too large"):
        fit(Config(learning_rate=1e30), dataset)


def test_where_it_is_over_nothing_is_trained(dataset):
    few = Split(dataset.train.images[:64], dataset.train.labels[:64])
    config = Config(epochs=50, learning_rate=0.1, momentum=0.9, hidden_sizes=(32,))
    over = fit(config, (few, dataset.test), patience=1)
    assert len(over.metrics) < 50
    again = fit(config, (few, dataset.test), after=over, patience=1)
    assert again.metrics == over.metrics
    with pytest.raises(RequestError, match="patience is 0; it must be at least 1"):
        fit(config, dataset, patience=0)


def test_labels_of_any_whole_numbers_are_taken_and_what_is_none_is_refused(dataset):
    images, labels = dataset.train
    wide = fit(CONFIG, (Split(images, labels.astype(np.int64)), dataset.test))
    same(wide.params, fit(CONFIG, dataset).params)
    for wrong in (list(labels), labels[:-1], labels + 1):
        with pytest.raises(ArgumentError, match=r"^labels: "):
            fit(CONFIG, (Split(images, wrong), dataset.test))
        with pytest.raises(ArgumentError, match=r"^labels: "):
            fit(CONFIG, (dataset.train, Split(images, wrong)))


@pytest.mark.parametrize(
    "setting", [{"validation": 9}, {"validation": 9, "patience": 2}, {"until_accuracy": 0.9}]
)
def test_what_it_would_not_heed_is_refused(dataset, setting):
    with pytest.raises(RequestError, match=f"^{next(iter(setting))} is for train"):
        fit(dataclasses.replace(CONFIG, **setting), dataset)
