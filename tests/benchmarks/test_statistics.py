"""Medians and intervals, against what can be counted."""

from __future__ import annotations

import statistics

import numpy as np
import pytest

from benchmarks.tables.statistics import estimate, ratio


def test_estimate_against_every_resample() -> None:
    # With three values there are 27 resamples: the exact distribution of their medians.
    values = [1.0, 2.0, 10.0]
    medians = sorted(statistics.median((a, b, c)) for a in values for b in values for c in values)
    found = estimate(values)
    assert found.value == 2
    assert (found.low, found.high) == (medians[0], medians[-1])
    # The middle value of five is the median of 317 in 625 * 5 resamples; its interval is inside.
    many = estimate(np.random.default_rng(0).normal(5, 1, 400))
    half_width = 1.96 * 1.2533 / 20  # of the median of normal values
    assert many.high - many.low == pytest.approx(2 * half_width, rel=0.25)


def test_ratio_is_taken_round_by_round() -> None:
    # The machine was ten times slower in the second round: no matter.
    slow, fast = {0: 2.0, 1: 20.0, 2: 2.0}, {0: 1.0, 1: 10.0, 2: 1.0, 3: 99.0}
    assert ratio(slow, fast) == (2.0, 2.0, 2.0)
    assert ratio({0: 1.0}, {1: 1.0}) is None


def test_a_single_value_is_its_own_interval() -> None:
    assert estimate([2.5]) == (2.5, 2.5, 2.5)
