"""The step and the epoch."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

from flax_mnist import Config, Dataset, init_state, train_epoch, train_step
from flax_mnist.data.order import epoch_order
from flax_mnist.errors import RequestError
from flax_mnist.evaluation import evaluate
from flax_mnist.model import make_model
from flax_mnist.train import make_optimizer, no_losses, state_shapes, train_steps


def static(config: Config) -> dict:
    return {"model": make_model(config), "optimizer": make_optimizer(config)}


def run_by_hand(config: Config, dataset: Dataset, order) -> tuple:
    """An epoch as a Python loop of steps; the loss of each batch."""
    state, losses = init_state(config), []
    for start in range(0, len(order), config.batch_size):
        rows = order[start : start + config.batch_size]
        state, loss = train_step(
            state, dataset.train.images[rows], dataset.train.labels[rows], **static(config)
        )
        losses.append(float(loss))
    return state, losses


@pytest.mark.parametrize(
    ("batch_size", "rows", "batches"),
    [
        (64, 1000, 16),
        (100, 1000, 10),
        (1000, 1000, 1),
        (5000, 1000, 1),
        (999, 1000, 2),
        (64, 4700, 74),
        (224, 4480, 20),
        (3000, 4700, 2),
    ],
    ids=[
        "ragged", "even", "one batch", "one partial batch", "a last batch of one",
        "ten blocks, three batches and a ragged one", "ten blocks", "larger than a block",
    ],
)  # fmt: skip
def test_an_epoch_is_its_steps_and_its_loss_the_mean_of_theirs(dataset, batch_size, rows, batches):
    config = Config(batch_size=batch_size)
    order = np.resize(epoch_order(0, 0, 1000), rows)
    expected, losses = run_by_hand(config, dataset, order)
    assert len(losses) == batches
    state, loss = train_epoch(
        init_state(config), *dataset.train, order, batch_size=batch_size, **static(config)
    )
    assert float(loss) == pytest.approx(np.mean(losses), rel=1e-6)
    jax.tree.map(
        # XLA may fuse a loop's body otherwise than a single step: one rounding error a step.
        lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=1e-6),
        state,
        expected,
    )
    assert int(state.opt_state.count) == batches


@pytest.mark.long
def test_the_sum_of_losses_is_the_same_wherever_an_epoch_is_cut(dataset):
    config = Config()
    order = np.resize(epoch_order(0, 0, 1000), 4700)

    def run(*cuts: int) -> list[np.ndarray]:
        state, losses = init_state(config), no_losses(make_model(config))
        for rows in np.split(order, [64 * cut for cut in cuts]):
            state, losses = train_steps(
                state, losses, *dataset.train, rows, batch_size=64, **static(config)
            )
        return jax.tree.leaves((state, losses))

    whole = run()
    assert whole[-1] == 74
    for cuts in ((32,), (1, 41), (73,)):
        jax.tree.map(np.testing.assert_array_equal, run(*cuts), whole)


def test_momentum_accumulates_gradients_as_torch_does(dataset):
    config = Config(momentum=0.9, learning_rate=0.1)
    plain, momentum = Config(learning_rate=0.1), 0.9
    images, labels = (array[:64] for array in dataset.train)
    start = init_state(config).params

    def gradient(params):
        state = init_state(plain)._replace(params=jax.tree.map(jnp.copy, params))
        after, _ = train_step(state, images, labels, **static(plain))
        return jax.tree.map(lambda old, new: (old - new) / 0.1, params, after.params)

    state, velocity, params = init_state(config), jax.tree.map(jnp.zeros_like, start), start
    for _ in range(3):
        state, _ = train_step(state, images, labels, **static(config))
        velocity = jax.tree.map(lambda v, g: momentum * v + g, velocity, gradient(params))
        params = jax.tree.map(lambda p, v: p - 0.1 * v, params, velocity)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, atol=1e-6), state.params, params)


def test_an_optimizer_of_ones_own_trains(dataset):
    """Sign descent, which no setting gives: each weight moves by the rate, or not at all."""
    optimizer, model = optax.sign_sgd(2**-7), make_model(Config())
    start = init_state(Config())
    state = init_state(Config(), optimizer)
    assert jax.tree.structure(state.opt_state) == jax.tree.structure(optimizer.init(start.params))
    order = epoch_order(0, 0, 1000)
    state, loss = train_epoch(
        state, *dataset.train, order, model=model, optimizer=optimizer, batch_size=1000
    )
    assert float(loss) == pytest.approx(2.3, abs=0.1)
    for before, after in zip(
        jax.tree.leaves(start.params), jax.tree.leaves(state.params), strict=True
    ):
        moved = np.abs(np.asarray(after, np.float64) - before)
        np.testing.assert_allclose(moved[moved > 0], 2**-7, rtol=1e-5)
        assert (moved > 0).mean() > 0.5


def test_a_schedule_by_hand():
    config = Config(epochs=3, warmup=1.0, schedule="linear", learning_rate=0.5)
    expected = [0, 1 / 4, 2 / 4, 3 / 4, 1, 7 / 8, 6 / 8, 5 / 8, 4 / 8, 3 / 8, 2 / 8, 1 / 8]
    optimizer, params = make_optimizer(config, 4), {"w": jnp.zeros(())}
    assert optimizer is make_optimizer(Config(**vars(config) | {"seed": 3}), 4)
    state, factors = optimizer.init(params), []
    for _ in expected:
        updates, state = optimizer.update({"w": jnp.float32(-2)}, state, params)
        factors.append(float(updates["w"]))
    assert factors == pytest.approx(expected, abs=1e-7)
    with pytest.raises(RequestError, match="needs the steps_per_epoch"):
        init_state(config)


def test_a_warm_up_leaves_at_least_the_last_step():
    optimizer = make_optimizer(Config(epochs=1, warmup=0.99, schedule="cosine"), 4)
    params = {"w": jnp.zeros(())}
    assert all(map(jnp.isfinite, jax.tree.leaves(optimizer.init(params))))


def test_the_learning_rate_can_be_vmapped(dataset):
    config = Config()
    images, labels = (array[:64] for array in dataset.train)

    def start(learning_rate):
        state = init_state(config)
        state.opt_state.hyperparams["learning_rate"] = learning_rate
        return state

    rates = [0.003, 0.3]
    step = jax.vmap(lambda state: train_step(state, images, labels, **static(config)))
    both = step(jax.vmap(start)(jnp.array(rates)))[0].params
    for i, rate in enumerate(rates):
        other = Config(learning_rate=rate)
        alone, _ = train_step(init_state(other), images, labels, **static(other))
        jax.tree.map(
            lambda a, b, i=i: np.testing.assert_allclose(a[i], b, atol=1e-6), both, alone.params
        )


def test_the_state_is_arrays_and_without_momentum_has_no_velocity():
    state = init_state(Config())
    assert all(isinstance(leaf, jax.Array) for leaf in jax.tree.leaves(state))
    sizes = [leaf.size for leaf in jax.tree.leaves(state.opt_state)]
    assert max(sizes) == 1
    assert sum(leaf.size for leaf in jax.tree.leaves(init_state(Config(momentum=0.5)))) > 218_772


def test_the_state_is_donated(dataset):
    config, state = Config(), init_state(Config())
    train_step(state, dataset.train.images[:8], dataset.train.labels[:8], **static(config))
    assert state.params["Dense_0"]["kernel"].is_deleted()


def test_an_epoch_and_its_evaluation_move_no_data_between_host_and_device(dataset):
    config = Config()
    placed = jax.device_put((*dataset.train, epoch_order(0, 0, 1000)))
    test, state = jax.device_put(dataset.test), init_state(config)
    with jax.transfer_guard("disallow"):
        state, loss = train_epoch(state, *placed, batch_size=64, **static(config))
        score = evaluate(state.params, *test, model=make_model(config))
        with pytest.raises(Exception, match="Disallowed host-to-device transfer"):
            evaluate(state.params, *dataset.test, model=make_model(config))
    assert math.isfinite(loss)
    assert math.isfinite(score.loss)


def test_the_seed_decides_the_initial_weights():
    def kernel(seed):
        return np.asarray(init_state(Config(seed=seed)).params["Dense_0"]["kernel"])

    np.testing.assert_array_equal(kernel(3), kernel(3))
    assert abs(np.corrcoef(kernel(3).ravel(), kernel(4).ravel())[0, 1]) < 0.02


@pytest.mark.parametrize(
    "config",
    [
        Config(),
        Config(hidden_sizes=(5,), momentum=0.9, precision="bfloat16"),
        Config(optimizer="adam", schedule="cosine", warmup=0.5),
    ],
    ids=str,
)
def test_the_shapes_of_a_state_are_had_without_its_numbers(config):
    optimizer = make_optimizer(config, steps_per_epoch=10)
    like, state = state_shapes(config, optimizer), init_state(config, optimizer)
    assert jax.tree.structure(like) == jax.tree.structure(state)
    for shape, array in zip(jax.tree.leaves(like), jax.tree.leaves(state), strict=True):
        assert not isinstance(shape, jax.Array)
        assert (shape.shape, shape.dtype) == (array.shape, array.dtype)


def test_orders_are_permutations_that_differ_by_seed_and_epoch():
    orders = {(seed, epoch): epoch_order(seed, epoch, 1000) for seed in (0, 1) for epoch in (0, 1)}
    for order in orders.values():
        assert order.dtype == np.int32
        np.testing.assert_array_equal(np.sort(order), np.arange(1000))
    assert len({order.tobytes() for order in orders.values()}) == 4
    np.testing.assert_array_equal(orders[1, 1], epoch_order(1, 1, 1000))


def test_evaluation_in_numpy(dataset):
    config = Config()
    params, model = init_state(config).params, make_model(config)
    x = (dataset.test.images.reshape(-1, 784) / 255 - 0.5) / 0.5
    for i in range(3):
        layer = params[f"Dense_{i}"]
        x = x @ np.asarray(layer["kernel"], np.float64) + np.asarray(layer["bias"])
        x = np.maximum(x, 0) if i < 2 else x
    labels = dataset.test.labels
    losses = [math.log(np.exp(row).sum()) - row[y] for row, y in zip(x, labels, strict=True)]
    score = evaluate(params, *dataset.test, model=model)
    assert float(score.loss) == pytest.approx(np.mean(losses), rel=1e-6)
    assert float(score.accuracy) == pytest.approx(np.mean(x.argmax(-1) == labels), abs=1e-7)
