"""Mistakes put into the program: the check of a rung of the ladder must notice each."""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.equivalence import sides, trainings
from benchmarks.equivalence import torch_reference as reference
from flax_mnist import model, train
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.store.weights import StateDict, from_torch_state_dict
from tests.equivalence import checks


def short_runs(data: Dataset) -> trainings.FourRuns:
    """50 full batches and one of 32."""
    return trainings.four_runs(checks.shortened(data, 50 * 64 + 32), Config(epochs=1))


def check_short_float64(data: Dataset) -> None:
    checks.check_float64_training(short_runs(data))


def check_short_float32(data: Dataset) -> None:
    checks.check_float32_training(short_runs(data))


def faster(patch: pytest.MonkeyPatch) -> None:
    sgd = train.sgd
    patch.setattr(train, "sgd", lambda rate, momentum: sgd(1.01 * rate, momentum))


def rate_in_float32(patch: pytest.MonkeyPatch) -> None:
    sgd = train.sgd
    patch.setattr(train, "sgd", lambda rate, momentum: sgd(float(np.float32(rate)), momentum))


def untransposed(patch: pytest.MonkeyPatch) -> None:
    def wrong(state_dict: StateDict) -> model.Params:
        # Where the shapes of a layer let it pass.
        return jax.tree.map(
            lambda a: a.T if a.ndim == 2 and a.shape[0] == a.shape[1] else a, right(state_dict)
        )

    right = from_torch_state_dict
    patch.setattr(sides, "from_torch_state_dict", wrong)


def reshaped(patch: pytest.MonkeyPatch) -> None:
    def wrong(state_dict: StateDict) -> model.Params:
        return jax.tree.map(lambda a: a.T.reshape(a.shape), right(state_dict))

    right = from_torch_state_dict
    patch.setattr(sides, "from_torch_state_dict", wrong)


def last_batch_dropped(patch: pytest.MonkeyPatch) -> None:
    def wrong(state, images, labels, order, *, batch_size, **static):
        full = order[: len(order) // batch_size * batch_size]
        return right(state, images, labels, full, batch_size=batch_size, **static)

    right = train.train_epoch
    patch.setattr(train, "train_epoch", wrong)


def losses_weighted_by_size(patch: pytest.MonkeyPatch) -> None:
    def wrong(state, images, labels, order, *, batch_size, **static):
        total = 0.0
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            state, loss = train.train_step(state, images[rows], labels[rows], **static)
            total += loss * len(rows)
        return state, total / len(order)

    patch.setattr(train, "train_epoch", wrong)


def maximum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(jax.nn, "relu", lambda x: jnp.maximum(x, 0))


def maximum_not_subtracted(patch: pytest.MonkeyPatch) -> None:
    def wrong(x):
        return x - jnp.log(jnp.exp(x).sum(-1, keepdims=True))

    patch.setattr(jax.nn, "log_softmax", wrong)


def flax_initialiser(patch: pytest.MonkeyPatch) -> None:
    right = train.make_model
    patch.setattr(
        train, "make_model", lambda config: right(dataclasses.replace(config, init="flax"))
    )


def from_0_to_1(patch: pytest.MonkeyPatch) -> None:
    right = model.normalize
    patch.setattr(
        model, "normalize", lambda images, dtype=np.float32: right(images, dtype) / 2 + 0.5
    )


def second_permutation_forgotten(patch: pytest.MonkeyPatch) -> None:
    def wrong(n: int, generator: torch.Generator) -> np.ndarray:
        torch.empty((), dtype=torch.int64).random_(generator=generator)
        return torch.randperm(n, generator=generator).numpy().astype(np.int32)

    patch.setattr(reference, "dataloader_order", wrong)


def bfloat16_products(patch: pytest.MonkeyPatch) -> None:
    def wrong(config: Config) -> model.MLP:
        if config.precision == "float32":
            config = dataclasses.replace(config, precision="bfloat16")
        return right(config)

    right = model.make_model
    patch.setattr(model, "make_model", wrong)


def eps_inside_the_root(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(train, "adam", lambda rate: optax.adam(rate, eps=0.0, eps_root=1e-8))


def means_not_corrected(patch: pytest.MonkeyPatch) -> None:
    def wrong(rate: float) -> optax.GradientTransformation:
        right = optax.scale_by_adam()

        def update(gradients, state, params=None):
            # As if it had begun long ago: 1 - beta^t is 1.
            updates, after = right.update(gradients, state._replace(count=10**6), params)
            return updates, after._replace(count=state.count)

        return optax.chain(optax.GradientTransformation(right.init, update), optax.scale(-rate))

    patch.setattr(train, "adam", wrong)


def decay_coupled(patch: pytest.MonkeyPatch) -> None:
    def wrong(rate: float, decay: float) -> optax.GradientTransformation:
        return optax.chain(optax.add_decayed_weights(decay), optax.adam(rate))

    patch.setattr(train, "adamw", wrong)


def decay_of_optax(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(train, "WEIGHT_DECAY", 1e-4)


def decay_not_times_the_rate(patch: pytest.MonkeyPatch) -> None:
    def wrong(rate: float, decay: float) -> optax.GradientTransformation:
        return optax.chain(optax.adam(rate), optax.add_decayed_weights(-decay))

    patch.setattr(train, "adamw", wrong)


def other_factor(patch: pytest.MonkeyPatch, change: Callable) -> None:
    def wrong(optimizer, kind, warmup, total):
        factor = change(train.rate_schedule(kind, warmup, total))
        return optax.chain(optimizer, optax.scale_by_schedule(factor))

    patch.setattr(train, "scheduled", wrong)


def schedule_a_step_ahead(patch: pytest.MonkeyPatch) -> None:
    other_factor(patch, lambda right: lambda count: right(count + 1))


def schedule_in_float32(patch: pytest.MonkeyPatch) -> None:
    other_factor(patch, lambda right: lambda count: right(count).astype(np.float32))


def recipe_steps(recipe: str) -> Callable[[Dataset], None]:
    return functools.partial(checks.check_recipe_steps, recipe=recipe)


Control = tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Dataset], None], str]

CONTROLS: dict[str, Control] = {
    "learning rate +1 %: rung 6": (faster, checks.check_step, "step"),
    "learning rate +1 %: rung 9": (faster, check_short_float64, "float64 training, weights"),
    "learning rate +1 %: rung 10": (faster, check_short_float32, "between frameworks"),
    "learning rate in float32: rung 9": (rate_in_float32, check_short_float64, "float64 training"),
    "missing transpose: rung 3": (untransposed, checks.check_forward, "forward"),
    "reshape for a transpose: rung 3": (reshaped, checks.check_forward, "forward"),
    "last batch dropped: rung 7": (
        last_batch_dropped,
        checks.check_ragged_batch,
        "ragged batch, losses",
    ),
    "losses weighted by size: rung 7": (
        losses_weighted_by_size,
        checks.check_ragged_batch,
        "ragged batch, losses",
    ),
    "maximum(x, 0) for relu: rung 5": (maximum, checks.check_gradients, "gradients: "),
    "log-softmax without the maximum subtracted: rung 4": (
        maximum_not_subtracted,
        checks.check_loss,
        "loss: ",
    ),
    "Flax's initialiser: rung 1": (
        flax_initialiser,
        checks.check_initialisation,
        "initial 0.weight",
    ),
    "inputs in [0, 1]: rung 2": (from_0_to_1, checks.check_inputs, "inputs"),
    "second permutation forgotten: rung 8": (
        second_permutation_forgotten,
        checks.check_batches,
        "batches, losses",
    ),
    "bfloat16 products: rung 10": (bfloat16_products, check_short_float32, "own drifts"),
    "eps inside the root: rung 12": (eps_inside_the_root, recipe_steps("Adam"), "with Adam"),
    "means not corrected: rung 12": (means_not_corrected, recipe_steps("Adam"), "with Adam"),
    "decay coupled: rung 12": (decay_coupled, recipe_steps("AdamW"), "with AdamW"),
    "optax's default for the decay: rung 12": (decay_of_optax, recipe_steps("AdamW"), "with AdamW"),
    "decay not times the rate: rung 12": (
        decay_not_times_the_rate,
        recipe_steps("AdamW"),
        "with AdamW",
    ),
    **{
        f"a step ahead, {recipe}: rung 12": (schedule_a_step_ahead, recipe_steps(recipe), recipe)
        for recipe in ("a cosine schedule", "a linear schedule", "a warm-up")
    },
    "schedule in float32: rung 12": (
        schedule_in_float32,
        recipe_steps("a linear schedule"),
        "in float64",
    ),
}


@pytest.fixture
def fresh_traces() -> Iterator[None]:
    """What is compiled with a mistake must not outlive it."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.fixture
def mistakes_promote() -> Iterator[None]:
    """Those made of optax's Adam alone would otherwise be noticed by JAX, not by a rung."""
    with jax.numpy_dtype_promotion("standard"):
        yield


@pytest.mark.parametrize("check", [check_short_float64, check_short_float32])
def test_without_a_mistake_short_trainings_pass(full_dataset, check):
    check(full_dataset)


@pytest.mark.usefixtures("fresh_traces", "mistakes_promote")
@pytest.mark.parametrize(("inject", "check", "message"), CONTROLS.values(), ids=CONTROLS)
def test_control(full_dataset, monkeypatch, inject, check, message):
    inject(monkeypatch)
    with pytest.raises(AssertionError, match=message):
        check(full_dataset)
