"""Independent trainings: do both programs' networks come to the same on the test images?"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats  # type: ignore[import-untyped]

from benchmarks.equivalence import tolerances
from flax_mnist import evaluation, model, train
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import epoch_order


def jax_seeds(
    dataset: Dataset, seeds: Sequence[int], config: Config
) -> list[evaluation.Evaluation]:
    """Trains one network a seed, all at once; their test results [seeds] after each epoch."""
    static = {"model": model.make_model(config), "optimizer": train.make_optimizer(config)}
    epoch = functools.partial(train.train_epoch, **static, batch_size=config.batch_size)
    run_epoch = jax.jit(jax.vmap(epoch, in_axes=(0, None, None, 0)), donate_argnums=0)
    score = functools.partial(evaluation.evaluate, model=static["model"])
    evaluate = jax.vmap(score, in_axes=(0, None, None))

    states = [train.init_state(dataclasses.replace(config, seed=seed)) for seed in seeds]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    train_data, test_data = jax.device_put((dataset.train, dataset.test))
    scores, n = [], len(dataset.train.labels)
    for number in range(config.epochs):
        orders = np.stack([epoch_order(seed, number, n) for seed in seeds])
        state, _ = run_epoch(state, *train_data, orders)
        scores.append(evaluate(state.params, *test_data))
    return scores


class Tost(NamedTuple):
    """Two one-sided tests: do two means differ by less than a margin?"""

    difference: float
    low: float
    high: float
    """`low` to `high` is the difference's 90 % confidence interval."""
    p: float
    """The larger of the two tests' p-values: below 0.05 just when the interval is in the margin."""


def tost(ours: Sequence[float], theirs: Sequence[float], margin: float) -> Tost:
    """Welch's t-tests of a difference above -margin and below +margin (Schuirmann 1987)."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    test = functools.partial(scipy.stats.ttest_ind, equal_var=False)
    p = max(
        test(a, b - margin, alternative="greater").pvalue,
        test(a, b + margin, alternative="less").pvalue,
    )
    interval = test(a, b).confidence_interval(1 - 2 * tolerances.ALPHA)
    return Tost(float(a.mean() - b.mean()), float(interval.low), float(interval.high), float(p))


def compare_seeds(
    ours: evaluation.Evaluation, theirs: Sequence[dict[str, Any]]
) -> tuple[Tost, Tost]:
    """Test loss and test accuracy of trained networks against the stored ones of PyTorch."""
    return (
        tost(list(ours.loss), [run["test_loss"] for run in theirs], tolerances.TEST_LOSS_MARGIN),
        tost(
            list(ours.accuracy),
            [run["test_accuracy"] for run in theirs],
            tolerances.TEST_ACCURACY_MARGIN,
        ),
    )
