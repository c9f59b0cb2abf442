"""Early stopping, and a target: when a training ends, and which weights are kept."""

from __future__ import annotations

import contextlib
import dataclasses
import signal

import jax
import numpy as np
import pytest
from safetensors.numpy import load_file

from flax_mnist import Config, Dataset, evaluate, init_state, to_torch_state_dict, train_epoch
from flax_mnist.config import CheckpointPolicy
from flax_mnist.data.order import epoch_order
from flax_mnist.data.validation import hold_out
from flax_mnist.errors import RequestError, StoppedError
from flax_mnist.model import make_model
from flax_mnist.runs.stopping import why_over, with_best_epoch
from flax_mnist.runs.training import train
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import Metrics, read_metrics
from flax_mnist.train import make_optimizer
from tests.helpers.runs import metrics

# On so few images it overfits, and its validation loss rises and falls.
CONFIG = Config(
    epochs=30,
    learning_rate=0.05,
    momentum=0.9,
    hidden_sizes=(16,),
    precision="float64",
    validation=300,
    patience=3,
)


def rows(*losses: float) -> list[Metrics]:
    """Epochs with these validation losses, and test accuracies of 0.1, 0.2, ..."""
    history: list[Metrics] = []
    for i, loss in enumerate(losses, start=1):
        row = Metrics(i, i, 1.0, 1.0, i / 10, 0.5, 1.0, validation_loss=loss)
        history.append(with_best_epoch(history, row))
    return history


def test_the_best_epoch_is_the_first_with_the_lowest_validation_loss():
    assert [row.best_epoch for row in rows(3, 2, 2, 1, 4)] == [1, 2, 2, 4, 4]
    plain = Metrics(1, 1, 1.0, 1.0, 0.5, 0.5, 1.0)
    assert with_best_epoch([], plain) == plain


def test_patience_counts_the_epochs_since_the_best_one():
    config = dataclasses.replace(CONFIG, patience=2)
    assert why_over(config, []) is None
    assert why_over(config, rows(3, 2, 4)) is None
    assert "not fallen for 2 epochs" in why_over(config, rows(3, 2, 4, 2))
    assert why_over(dataclasses.replace(CONFIG, patience=0), rows(1, 2, 3, 4, 5)) is None


def test_a_target_is_reached_by_the_first_epoch_that_does_and_by_equality():
    config = Config(until_accuracy=0.2)
    assert why_over(config, rows(1)) is None
    assert why_over(config, rows(1, 1, 1)).startswith("Test accuracy 20.00% after epoch 2: 0.2 was")
    assert why_over(config, rows(1, 1)).endswith("in 1.00 s of training.")


def by_hand(config: Config, dataset: Dataset) -> tuple[list[float], list[dict]]:
    """The validation loss and the weights after each epoch of a plain loop."""
    data, model = hold_out(dataset, config.validation, config.seed), make_model(config)
    n, losses, weights = len(data.train.labels), [], []
    optimizer, state = make_optimizer(config), init_state(config)
    for epoch in range(config.epochs):
        order = epoch_order(config.seed, epoch, n)
        state, _ = train_epoch(
            state, *data.train, order, model=model, optimizer=optimizer, batch_size=64
        )
        losses.append(float(evaluate(state.params, *data.validation, model=model).loss))
        weights.append(to_torch_state_dict(jax.tree.map(np.array, state.params)))
    return losses, weights


@pytest.mark.long
def test_it_stops_early_and_keeps_the_best_epochs_weights(dataset, tmp_path):
    run = train(CONFIG, dataset, tmp_path / "run")
    with jax.enable_x64(True):
        losses, weights = by_hand(dataclasses.replace(CONFIG, epochs=run.epochs), dataset)
    best = int(np.argmin(losses))
    assert 0 < best < run.epochs - 1, "the test could not tell the best epoch from the last"
    assert run.epochs == best + 1 + CONFIG.patience < CONFIG.epochs
    assert [row.validation_loss for row in run.metrics] == pytest.approx(losses, rel=1e-9)
    assert run.metrics[-1].best_epoch == best + 1
    assert run.metrics == run.history == read_metrics(run.folder)
    kept = load_file(run.folder / run_folder.WEIGHTS)
    for name, weight in weights[best].items():
        np.testing.assert_allclose(kept[name], weight, atol=1e-9)
        np.testing.assert_array_equal(to_torch_state_dict(run.params)[name], kept[name])


def test_a_run_that_is_over_is_not_trained_on_but_with_more_patience(dataset, tmp_path):
    first = train(CONFIG, dataset, tmp_path / "run")
    again = train(run_dir=first.folder, dataset=dataset, resume=True)
    assert (again.metrics, again.history) == ([], first.history)
    patient = dataclasses.replace(CONFIG, patience=6)
    more = train(patient, dataset, first.folder, resume=True)
    straight = train(patient, dataset, tmp_path / "straight")
    assert more.metrics
    assert without_times(more.folder) == without_times(straight.folder)
    assert (more.folder / run_folder.WEIGHTS).read_bytes() == (
        straight.folder / run_folder.WEIGHTS
    ).read_bytes()


def without_times(folder) -> list[dict]:
    times = "seconds", "images_per_second"
    return [{k: v for k, v in row.items() if k not in times} for row in metrics(folder)]


def stopped_after(chunks: int):
    """Listening that hears a signal after so many chunks."""

    @contextlib.contextmanager
    def listening():
        heard = iter([None] * (chunks - 1) + [signal.SIGTERM])
        yield lambda: next(heard)

    return listening


def test_stopped_within_an_epoch_after_the_best_one_it_ends_as_if_it_had_not(dataset, tmp_path):
    policy = CheckpointPolicy("4steps")
    straight = train(CONFIG, dataset, tmp_path / "straight", checkpoints=policy)
    best = straight.history[-1].best_epoch
    chunks = 3 * (best + 1) + 1  # an epoch has 11 steps
    with pytest.raises(StoppedError):
        train(
            CONFIG,
            dataset,
            tmp_path / "run",
            checkpoints=policy,
            listening=stopped_after(chunks),
        )
    run = train(run_dir=tmp_path / "run", dataset=dataset, resume=True)
    assert run.metrics[0].epoch == best + 2
    assert without_times(run.folder) == without_times(straight.folder)
    for a, b in zip(jax.tree.leaves(run.params), jax.tree.leaves(straight.params), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_target_ends_it_and_can_be_set_later(dataset, tmp_path):
    config = Config(epochs=20, learning_rate=0.02, momentum=0.9, until_accuracy=0.6)
    run = train(config, dataset, tmp_path / "run")
    reached = [row.test_accuracy >= 0.6 for row in run.history]
    assert reached == [False] * (len(reached) - 1) + [True]
    assert 1 < len(reached) < 20
    farther = dataclasses.replace(config, until_accuracy=0.8)
    more = train(farther, dataset, run.folder, resume=True)
    assert more.metrics[0].epoch == len(reached) + 1
    assert more.history[-1].test_accuracy >= 0.8


def test_another_validation_is_another_run(dataset, tmp_path):
    config = dataclasses.replace(CONFIG, epochs=1)
    train(config, dataset, tmp_path / "run")
    other = dataclasses.replace(config, validation=200, epochs=2)
    with pytest.raises(RequestError, match="validation is 200, the run's is 300"):
        train(other, dataset, tmp_path / "run", resume=True)
