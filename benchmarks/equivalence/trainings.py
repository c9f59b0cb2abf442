"""Whole trainings by both programs: on the same batches from the same weights, or independent."""

import dataclasses
import functools
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.stats
from numpy.typing import NDArray

from benchmarks.equivalence import sides, tolerances
from benchmarks.equivalence import torch_reference as reference
from benchmarks.equivalence.measurements import difference
from flax_mnist import evaluation, model, sweep, train
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import epoch_order, steps_per_epoch
from flax_mnist.evaluation import Evaluation
from flax_mnist.store.weights import StateDict, to_torch_state_dict

Orders = Iterable[NDArray[np.int32]]  #: Of the images [n], in each epoch.


class TutorialRun(NamedTuple):
    """What a training came to."""

    losses: list[float]  #: Each epoch's mean over its batches, nats.
    weights: StateDict
    test_loss: float
    test_accuracy: float


def torch_run(weights: StateDict, dataset: Dataset, orders: Orders, config: Config) -> TutorialRun:
    """The tutorial's training from the given weights, an epoch for each order [n]."""
    network = sides.in_torch(weights, config)
    inputs, targets = sides.torch_split(dataset.train, config)
    optimizer = sides.torch_optimizer(network, config, _steps_per_epoch(dataset, config))
    losses = reference.train_in_order(
        network, inputs, targets, orders, config.batch_size, optimizer=optimizer
    )
    score = reference.evaluate(network, *sides.torch_split(dataset.test, config))
    return TutorialRun(losses, sides.torch_arrays(network), *score)


def jax_run(weights: StateDict, dataset: Dataset, orders: Orders, config: Config) -> TutorialRun:
    """The same training by `flax_mnist.train.train_epoch`."""
    with sides.in_precision(config):
        mlp = model.make_model(config)
        optimizer = train.make_optimizer(config, _steps_per_epoch(dataset, config))
        static = {"model": mlp, "optimizer": optimizer, "batch_size": config.batch_size}
        params = sides.in_jax(weights, config)
        state, losses = train.State(params, optimizer.init(params)), []
        train_data = jax.device_put(dataset.train)
        for order in orders:
            state, loss = train.train_epoch(state, *train_data, order, **static)
            losses.append(float(loss))
        score = evaluation.evaluate(state.params, *dataset.test, model=mlp)
        weights = to_torch_state_dict(state.params)
        return TutorialRun(losses, weights, float(score.loss), float(score.accuracy))


def _steps_per_epoch(dataset: Dataset, config: Config) -> int:
    return steps_per_epoch(config, len(dataset.train.labels))


class FourRuns(NamedTuple):
    """One training, four times: same weights, same batches."""

    torch64: TutorialRun
    jax64: TutorialRun
    torch32: TutorialRun
    jax32: TutorialRun


def four_runs(dataset: Dataset, config: Config) -> FourRuns:
    """Trains in both frameworks and both precisions, from PyTorch's weights, in our orders."""
    weights, n = sides.torch_weights(config.seed, config), len(dataset.train.labels)
    orders = [epoch_order(config.seed, epoch, n) for epoch in range(config.epochs)]
    wide, narrow = (dataclasses.replace(config, precision=p) for p in ("float64", "float32"))
    return FourRuns(
        *(run(weights, dataset, orders, c) for c in (wide, narrow) for run in (torch_run, jax_run))
    )


class Drift(NamedTuple):
    """How far float32 trainings are apart."""

    between: float  #: The frameworks, from each other.
    torch: float  #: PyTorch, from its own float64 training.
    jax: float  #: JAX, from its own float64 training.

    @property
    def allowed(self) -> float:
        """The most that the frameworks may be apart."""
        return tolerances.EPOCHS_FLOAT32 * max(self.torch, self.jax)

    @property
    def alike(self) -> bool:
        """Whether neither framework rounds much more coarsely than the other.

        Without it a mistake in float32 alone would allow itself: it is an own drift too.
        """
        return max(self.torch, self.jax) <= tolerances.OWN_DRIFTS * min(self.torch, self.jax)


def float32_drift(runs: FourRuns, of: str) -> Drift:
    """Of the `losses` or the `weights`."""
    torch64, jax64, torch32, jax32 = (getattr(run, of) for run in runs)
    return Drift(difference(jax32, torch32), difference(torch32, torch64), difference(jax32, jax64))


def jax_seeds(dataset: Dataset, seeds: Sequence[int], config: Config) -> list[Evaluation]:
    """Trains one network a seed, all at once; their test results [seeds] after each epoch."""
    network = model.make_model(config)
    epoch = functools.partial(
        train.train_epoch,
        model=network,
        optimizer=train.make_optimizer(config),
        batch_size=config.batch_size,
    )
    # The images are everyone's.
    run = jax.jit(jax.vmap(epoch, in_axes=(0, None, None, 0)))
    score = functools.partial(evaluation.evaluate, model=network)
    evaluate = jax.vmap(score, in_axes=(0, None, None))

    members = [dataclasses.replace(config, seed=seed) for seed in seeds]
    state: Any = sweep.stacked_states(members, config)
    train_data, test_data = jax.device_put((dataset.train, dataset.test))
    scores, n = [], len(dataset.train.labels)
    for number in range(config.epochs):
        orders = np.stack([epoch_order(seed, number, n) for seed in seeds])
        state, _ = run(state, *train_data, orders)
        scores.append(evaluate(state.params, *test_data))
    return scores


class Tost(NamedTuple):
    """Two one-sided tests: do two means differ by less than a margin?"""

    ours: float
    theirs: float
    margin: float
    low: float
    high: float  #: `low` to `high` is the difference's 90 % confidence interval.
    #: The larger of the two tests' p-values: below 0.05 just when the interval is in the margin.
    p: float


def tost(ours: Any, theirs: Sequence[float], margin: float) -> Tost:
    """Welch's t-tests of a difference above -margin and below +margin (Schuirmann 1987)."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs)
    test = functools.partial(scipy.stats.ttest_ind, equal_var=False)
    p = max(
        test(a, b - margin, alternative="greater").pvalue,
        test(a, b + margin, alternative="less").pvalue,
    )
    interval = test(a, b).confidence_interval(1 - 2 * tolerances.ALPHA)
    return Tost(a.mean(), b.mean(), margin, interval.low, interval.high, p)


def compare_seeds(ours: Evaluation, theirs: Sequence[dict[str, Any]]) -> tuple[Tost, Tost]:
    """Test loss and test accuracy of trained networks against the stored ones of PyTorch."""
    losses, accuracies = ([run[key] for run in theirs] for key in ("test_loss", "test_accuracy"))
    loss = tost(ours.loss, losses, tolerances.TEST_LOSS_MARGIN)
    accuracy = tost(ours.accuracy, accuracies, tolerances.TEST_ACCURACY_MARGIN)
    return loss, accuracy
