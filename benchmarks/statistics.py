"""What a row's samples say, and how surely.

The unit is the turn: the median of the few epochs that a row ran before the next row had its turn.
Epochs of one turn share whatever the machine was doing then, so only turns count as independent.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

RESAMPLES = 10_000


class Estimate(NamedTuple):
    """A median and its 95 % bootstrap interval."""

    value: float
    low: float
    high: float


def seconds_of_turn(turn: Mapping[str, Any]) -> float:
    """Of one call: the median."""
    return float(statistics.median(turn["seconds"]))


def estimate(values: Sequence[float], seed: int = 0) -> Estimate:
    """The median, and between what percentiles the medians of resampled values fall."""
    array = np.asarray(values, float)
    resamples = np.random.default_rng(seed).choice(array, (RESAMPLES, len(array)))
    low, high = np.percentile(np.median(resamples, axis=1), (2.5, 97.5))
    return Estimate(float(np.median(array)), float(low), float(high))


def ratio(numerator: Mapping[int, float], denominator: Mapping[int, float]) -> Estimate | None:
    """How much larger the one is, taken round by round; None if no round had both.

    Within a round the two ran seconds apart: what slowed one slowed the other.

    Args:
        numerator: by round.
        denominator: by round.
    """
    shared = sorted(numerator.keys() & denominator.keys())
    if not shared:
        return None
    return estimate([numerator[r] / denominator[r] for r in shared])
