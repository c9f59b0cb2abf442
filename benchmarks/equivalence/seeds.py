"""Independent trainings: do both programs' networks come to the same on the test images?"""

import dataclasses
import functools
from collections.abc import Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
import scipy.stats  # type: ignore[import-untyped]

from benchmarks.equivalence import tolerances
from flax_mnist import evaluation, model, sweep
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import epoch_order


def jax_seeds(
    dataset: Dataset, seeds: Sequence[int], config: Config
) -> list[evaluation.Evaluation]:
    """Trains one network a seed, all at once; their test results [seeds] after each epoch."""
    in_axes = (0, None, None)  # the images are everyone's
    train = jax.jit(jax.vmap(functools.partial(sweep.train_member, template=config), in_axes))
    score = functools.partial(evaluation.evaluate, model=model.make_model(config))
    evaluate = jax.vmap(score, in_axes)

    members = [dataclasses.replace(config, seed=seed) for seed in seeds]
    state: Any = sweep.stacked_states(members, config)
    train_data, test_data = jax.device_put((dataset.train, dataset.test))
    scores, n = [], len(dataset.train.labels)
    for number in range(config.epochs):
        orders = np.stack([epoch_order(seed, number, n) for seed in seeds])
        state, _ = train((state, orders), *train_data)
        scores.append(evaluate(state.params, *test_data))
    return scores


class Tost(NamedTuple):
    """Two one-sided tests: do two means differ by less than a margin?"""

    ours: float
    theirs: float
    margin: float
    low: float
    high: float
    """`low` to `high` is the difference's 90 % confidence interval."""
    p: float
    """The larger of the two tests' p-values: below 0.05 just when the interval is in the margin."""


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


def compare_seeds(
    ours: evaluation.Evaluation, theirs: Sequence[dict[str, Any]]
) -> tuple[Tost, Tost]:
    """Test loss and test accuracy of trained networks against the stored ones of PyTorch."""
    losses, accuracies = ([run[key] for run in theirs] for key in ("test_loss", "test_accuracy"))
    return (
        tost(ours.loss, losses, tolerances.TEST_LOSS_MARGIN),
        tost(ours.accuracy, accuracies, tolerances.TEST_ACCURACY_MARGIN),
    )
