"""The loop around the steps: what it reports, and that it may be cut anywhere."""

from __future__ import annotations

import math

import jax
import numpy as np
import pytest

from flax_mnist import Config, init_state, train_step
from flax_mnist.data.order import epoch_order
from flax_mnist.errors import FlaxMnistError
from flax_mnist.evaluation import evaluate
from flax_mnist.model import make_model
from flax_mnist.runs import loop
from flax_mnist.runs.loop import begin, chunk_steps, compile_chunks, fit
from flax_mnist.train import make_optimizer


def run(config, dataset, chunk, first=None):
    """What `fit` yields, the arrays copied before they are donated."""
    first = first or begin(config)
    run_chunk = compile_chunks(config, first, dataset.train, chunk)
    for progress, metrics in fit(config, dataset, first, run_chunk, chunk):
        state, losses = jax.tree.map(np.array, (progress.state, progress.losses))
        yield progress._replace(state=state, losses=losses), metrics


@pytest.mark.parametrize("chunk", [16, 5])
def test_fit_reports_each_epoch(dataset, chunk):
    config = Config(epochs=3, learning_rate=0.05, momentum=0.9)
    history = []
    for progress, metrics in run(config, dataset, chunk):
        if metrics:
            params = progress.state.params
            score = evaluate(params, *dataset.test, model=make_model(config))
            assert metrics.test_loss == float(score.loss)
            assert metrics.test_accuracy == pytest.approx(float(score.accuracy), abs=1e-7)
            history.append(metrics)
    assert [m.epoch for m in history] == [1, 2, 3]
    assert [m.step for m in history] == [16, 32, 48]
    assert history[2].train_loss < history[1].train_loss < history[0].train_loss
    assert history[2].test_accuracy > 0.5
    for m in history:
        assert m.images_per_second == pytest.approx(1000 / m.seconds, rel=0.05)


def test_where_an_epoch_is_cut_and_resumed_changes_no_bit(dataset):
    config = Config(epochs=2, learning_rate=0.05, momentum=0.9)
    *_, (whole, metrics) = run(config, dataset, chunk=16)
    for chunk in (1, 5):
        stops = [*run(config, dataset, chunk)]
        for stop in stops[-1], stops[len(stops) // 3], stops[len(stops) * 2 // 3]:
            on = [*run(config, dataset, chunk, stop[0])] if stop is not stops[-1] else [stop]
            end, its = on[-1]
            assert (end.epoch, end.step, its[:5]) == (2, 0, metrics[:5])
            for ours, theirs in zip(
                jax.tree.leaves(end.state), jax.tree.leaves(whole.state), strict=True
            ):
                np.testing.assert_array_equal(ours, theirs)


@pytest.mark.parametrize(
    ("chunk", "compiled", "trained"),
    [
        (16, [896, 104], [104, 1000]),  # two blocks of seven batches; one batch, and 40 images
        (14, [896, 104], [896, 104]),
        (5, [320, 40], [320, 320, 320, 40]),
    ],
)
def test_what_is_left_over_by_blocks_is_tried_out_before_the_first_epoch(
    dataset, monkeypatch, chunk, compiled, trained
):
    config, lowered, seen = Config(epochs=1), [], []
    lower_chunk = loop.lower_chunk

    def recorded(*arguments):
        lowered.append(arguments[3])
        return lower_chunk(*arguments)

    monkeypatch.setattr(loop, "lower_chunk", recorded)
    first = begin(config)
    run_chunk = compile_chunks(config, first, dataset.train, chunk)

    def seeing(state, losses, images, labels, order):
        seen.append(len(order))
        return run_chunk(state, losses, images, labels, order)

    list(fit(config, dataset, first, seeing, chunk))
    assert sorted(lowered) == sorted(compiled)
    assert seen == trained


def test_a_loss_that_is_not_finite_stops_with_its_step_and_a_remedy(dataset):
    config = Config(learning_rate=1e4, epochs=2)
    model, state, losses = make_model(config), init_state(config), []
    for rows in np.split(epoch_order(0, 0, 1000), range(64, 1000, 64)):
        images, labels = dataset.train.images[rows], dataset.train.labels[rows]
        state, loss = train_step(
            state, images, labels, model=model, optimizer=make_optimizer(config)
        )
        losses.append(float(loss))
    first = next(i for i, loss in enumerate(losses, start=1) if not math.isfinite(loss))
    assert 1 < first < 16
    for chunk in (16, 3):
        with pytest.raises(FlaxMnistError, match=rf"in step {first}:.*--learning-rate below 1\d*"):
            list(run(config, dataset, chunk))


def test_a_chunk_is_about_a_second_of_work():
    assert chunk_steps(Config(), 60_000) == 938
    assert chunk_steps(Config(), 60_000, at_most=100) == 100
    assert chunk_steps(Config(batch_size=1), 60_000) == 20_000
    assert chunk_steps(Config(hidden_sizes=(4096, 4096)), 60_000) == 6
    assert chunk_steps(Config(hidden_sizes=(20_000, 20_000), batch_size=60_000), 60_000) == 1
