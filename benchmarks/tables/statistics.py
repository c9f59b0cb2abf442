"""What a row's samples say, and how surely.

The unit is the turn: the median of the few epochs that a row ran before the next row had its turn.
Epochs of one turn share whatever the machine was doing then, so only turns count as independent.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
import scipy.stats


class Estimate(NamedTuple):
    """A median and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def estimate(values: Sequence[float]) -> Estimate:
    """The median, and its interval by the percentile method from 10,000 resamples of a fixed seed.

    A single value is its own interval.
    """
    median = float(np.median(values))
    if len(values) == 1:
        return Estimate(median, median, median)
    interval = scipy.stats.bootstrap(
        (values,),
        np.median,
        n_resamples=10_000,
        confidence_level=0.95,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    return Estimate(median, float(interval.low), float(interval.high))


def ratio_of_runs(
    slower: Sequence[float], faster: Sequence[float], confidence: float
) -> Estimate | None:
    """How many times as long the turns of one run took as those of another, by their medians.

    The interval is by the percentile method from 10,000 resamples of either. The turns of two runs
    are no pairs, and of fewer than three nothing is said.
    """
    if min(len(slower), len(faster)) < 3:
        return None

    def medians(a: Any, b: Any, axis: int) -> Any:
        return np.median(a, axis=axis) / np.median(b, axis=axis)

    interval = scipy.stats.bootstrap(
        (slower, faster),
        medians,
        n_resamples=10_000,
        confidence_level=confidence,
        method="percentile",
        rng=np.random.default_rng(0),
    ).confidence_interval
    value = float(np.median(slower) / np.median(faster))
    return Estimate(value, float(interval.low), float(interval.high))


def ratio(numerator: Mapping[int, float], denominator: Mapping[int, float]) -> Estimate | None:
    """How much larger the one is, taken round by round; None if no round had both.

    Within a round the two ran seconds apart: what slowed one slowed the other.
    """
    shared = sorted(numerator.keys() & denominator.keys())
    return estimate([numerator[r] / denominator[r] for r in shared]) if shared else None
