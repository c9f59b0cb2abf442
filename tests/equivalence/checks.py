"""The checks of the rungs, which the negative controls share; each takes the dataset.

`benchmarks/equivalence/` measures the differences and states their tolerances.
"""

from __future__ import annotations

import dataclasses
import functools

import jax
import numpy as np
import scipy.stats
import torch
from PIL import Image

from benchmarks.equivalence import measurements, sides, stored_runs, tolerances, trainings
from benchmarks.equivalence import torch_reference as reference
from benchmarks.equivalence.recipes import RECIPES
from flax_mnist import model, train
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import epoch_order
from flax_mnist.evaluation import Evaluation
from flax_mnist.store.weights import to_torch_state_dict

DRAWS = 100
"""Networks a side: 10,035,200 weights of the first layer, 1,000 biases of the last."""
KS_SIZE = 100_000
"""Of them a test looks at so many: enough to tell distribution functions 1 % apart."""
KS_LEVEL = 1e-3
"""The seeds are fixed, so a p-value is a constant; a wrong rule's is 0 to many digits."""
EXTREME_MISSES = 30
"""n draws come as near to a bound as 30/n of the range, but for a chance of exp(-30)."""
BOUND_ROUNDING = 1e-7
"""Relative: the bound itself is rounded to float32, by 6e-8 of it at most."""
LOADER = 1e-6
"""Rounding of 48 float32 steps; another order of the same images is 1,000 times that away."""

JAX_SEEDS = range(24)
PRECISIONS = (Config(precision="float64"), Config(precision="float32"))


def shortened(data: Dataset, n: int) -> Dataset:
    return data._replace(train=sides.first(data.train, n), test=sides.first(data.test, 1000))


def require(what: str, measured: float, tolerance: float) -> None:
    assert measured <= tolerance, f"{what}: {measured:.3g} is above {tolerance:.3g}"


def check_initialisation(data: Dataset) -> None:
    ours = [to_torch_state_dict(train.init_state(Config(seed=s)).params) for s in range(DRAWS)]
    theirs = [sides.torch_weights(seed, Config()) for seed in range(DRAWS)]
    for name in theirs[0]:
        a, b = (np.stack([draw[name] for draw in side]) for side in (ours, theirs))
        assert a.shape == b.shape
        bound = theirs[0][name.replace("bias", "weight")].shape[1] ** -0.5
        uniform = scipy.stats.uniform(-bound, 2 * bound).cdf
        sample = functools.partial(np.random.default_rng(0).choice, size=KS_SIZE)
        few_a, few_b = (x.ravel() if x.size <= KS_SIZE else sample(x.ravel()) for x in (a, b))
        for p in (
            scipy.stats.ks_2samp(few_a, few_b).pvalue,
            scipy.stats.ks_1samp(few_a, uniform).pvalue,
            scipy.stats.ks_1samp(few_b, uniform).pvalue,
        ):
            assert p > KS_LEVEL, f"initial {name}: other distributions, p = {p:.1e}"
        reach = 2 * EXTREME_MISSES / a.size
        for side in (a, b):
            extremes = np.array([-side.min(), side.max()], np.float64) / bound
            require(f"initial {name}: beyond the bound", extremes.max(), 1 + BOUND_ROUNDING)
            require(f"initial {name}: short of the bound", 1 - extremes.min(), reach)


def check_inputs(data: Dataset) -> None:
    for config in PRECISIONS:
        what = f"inputs in {config.precision}"
        require(what, measurements.input_difference(config), tolerances.INPUTS)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    theirs = reference.transform(Image.fromarray(pixels)).numpy().reshape(1, 256)
    np.testing.assert_array_equal(jax.jit(model.normalize)(pixels[None]), theirs, "inputs")


def check_forward(data: Dataset) -> None:
    # A square layer without its transpose has the right shape.
    for config in (
        dataclasses.replace(c, hidden_sizes=h) for c in PRECISIONS for h in ((128, 64), (64, 64))
    ):
        measured = measurements.forward_difference(
            sides.torch_weights(0, config), data.test, config
        )
        require("forward", measured, tolerances.ulps(tolerances.FORWARD, config.precision))


def check_loss(data: Dataset) -> None:
    for config in PRECISIONS:
        measured = measurements.loss_difference(config)
        require("loss", measured, tolerances.ulps(tolerances.LOSS, config.precision))


def check_gradients(data: Dataset) -> None:
    weights, batch = sides.torch_weights(0, Config()), sides.first(data.train, 64)
    # Half of the first layer's units are at exactly 0, where relu has no derivative.
    at_zero = {name: array.copy() for name, array in weights.items()}
    at_zero["0.weight"][::2] = at_zero["0.bias"][::2] = 0
    for config in PRECISIONS:
        for start in (weights, at_zero):
            measured = measurements.gradient_difference(start, batch, config)
            require("gradients", measured, tolerances.ulps(tolerances.GRADIENTS, config.precision))


def check_step(data: Dataset) -> None:
    weights, batch = sides.torch_weights(0, Config()), sides.first(data.train, 64)
    # The first step has no velocity yet.
    for momentum, steps in ((0.0, 1), (0.9, 3)):
        for config in (dataclasses.replace(config, momentum=momentum) for config in PRECISIONS):
            measured = measurements.step_difference(weights, batch, config, steps)
            require("step", measured, tolerances.ulps(tolerances.STEP, config.precision))


def check_recipe_steps(data: Dataset, recipe: str) -> None:
    weights, batches = sides.torch_weights(0, Config()), sides.batches(data.train, 3)
    for precision in ("float64", "float32"):
        config = dataclasses.replace(RECIPES[recipe], precision=precision)
        measured = measurements.optimizer_difference(weights, batches, config)
        allowed = tolerances.ulps(tolerances.STEP, precision)
        require(f"3 steps in {precision} with {recipe}", measured, allowed)


def check_recipe_epoch(data: Dataset, recipe: str) -> None:
    weights = sides.torch_weights(0, Config())
    config = dataclasses.replace(RECIPES[recipe], precision="float64")
    orders = [epoch_order(0, 0, len(data.train.labels))]
    ours, theirs = (
        run(weights, data, orders, config) for run in (trainings.jax_run, trainings.torch_run)
    )
    assert ours.losses[0] < 2.2, "it did not train"
    for what in ("weights", "losses"):
        measured = measurements.difference(getattr(ours, what), getattr(theirs, what))
        require(f"an epoch with {recipe}, {what}", measured, tolerances.EPOCHS_FLOAT64)


def check_ragged_batch(data: Dataset) -> None:
    weights, short = sides.torch_weights(0, Config()), shortened(data, 64 + 32)
    order = epoch_order(0, 0, 96)
    for config in PRECISIONS:
        ours = trainings.jax_run(weights, short, [order], config)
        theirs = trainings.torch_run(weights, short, [order], config)
        for what in ("losses", "weights"):
            measured = measurements.difference(getattr(ours, what), getattr(theirs, what))
            require(
                f"ragged batch, {what}",
                measured,
                tolerances.ulps(tolerances.STEP, config.precision),
            )


def check_batches(data: Dataset) -> None:
    weights, short = sides.torch_weights(0, Config()), shortened(data, 1000)
    network = sides.in_torch(weights, Config())
    loader = reference.tutorial_loader(*short.train, generator=torch.Generator().manual_seed(7))
    losses = reference.train_tutorial(network, loader, epochs=3, say=lambda line: None)

    generator = torch.Generator().manual_seed(7)
    orders = [reference.dataloader_order(1000, generator) for _ in range(3)]
    ours = trainings.jax_run(weights, short, orders, Config())
    require("batches, losses", measurements.difference(ours.losses, losses), LOADER)
    theirs = sides.torch_arrays(network)
    require("batches, weights", measurements.difference(ours.weights, theirs), LOADER)


def check_float64_training(runs: trainings.FourRuns) -> None:
    for what in ("weights", "losses"):
        measured = measurements.difference(getattr(runs.jax64, what), getattr(runs.torch64, what))
        require(f"float64 training, {what}", measured, tolerances.EPOCHS_FLOAT64)


def check_float32_training(runs: trainings.FourRuns) -> None:
    for what in ("weights", "losses"):
        drift = trainings.float32_drift(runs, what)
        require(f"float32 training, {what} between frameworks", drift.between, drift.allowed)
    drift = trainings.float32_drift(runs, "weights")
    assert drift.alike, f"float32 training: own drifts are not alike: {drift}"


def check_independent_runs(data: Dataset, score: Evaluation) -> None:
    for what, test in zip(
        ("test loss", "test accuracy"),
        trainings.compare_seeds(score, stored_runs.runs_on(data)),
        strict=True,
    ):
        require(f"independent runs, {what}: p", test.p, tolerances.ALPHA)
