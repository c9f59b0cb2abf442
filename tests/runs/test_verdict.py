"""Runs that learned nothing, and good ones of which nothing is said."""

from __future__ import annotations

import numpy as np
import pytest

from flax_mnist import Config
from flax_mnist.runs.verdict import of_a_run
from flax_mnist.store.metrics import Metrics

LABELS = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9], np.int32)
GUESSING = -(8 * np.log(1 / 12) / 12 + 4 * np.log(2 / 12) / 12)


def said(*epochs: tuple[float, float, float], **settings: object) -> str:
    """Of training loss, test loss and accuracy of each epoch; the words, on one line."""
    history = [Metrics(i, i, a, b, c, 1.0, 1.0) for i, (a, b, c) in enumerate(epochs, start=1)]
    return " ".join((of_a_run(Config(**settings), history, LABELS) or "").split())


def test_of_a_good_run_nothing_is_said():
    assert said((1.9, 1.2, 0.7), (0.8, 0.6, 0.84)) == ""
    # One that learns slowly, and one that overfits a little from some epoch on.
    assert said((2.3, GUESSING - 1e-6, 0.2)) == ""
    assert said((0.3, 0.2, 0.94), (0.1, 0.1, 0.97), (0.05, 0.11, 0.97), (0.02, 0.12, 0.98)) == ""
    assert said((0.3, 0.2, 0.94), (0.2, 0.3, 0.9)) == ""


def test_dead_units_say_the_same_of_all_images():
    words = said((2.4, 2.5, 0.1), (2.3, GUESSING, 2 / 12), learning_rate=0.1, momentum=0.9)
    assert f"that of guessing {GUESSING:.4g}, its test accuracy 16.67%." in words
    assert words.endswith("units are dead. Try a --learning-rate below 0.1, or less --momentum.")
    assert said((2.3, 2.4, round(1 / 12, 6))).endswith("Try a --learning-rate below 0.003.")


@pytest.mark.parametrize(
    ("loss", "accuracy", "cause"),
    [
        (
            GUESSING + 1e-6,
            0.2,
            "too small, too few or too large. Try --learning-rate 0.03 and 0.0003.",
        ),
        (GUESSING - 0.1, 0.15, "too small, too few or too large."),
        (5.0, 0.4, "too large. Try a --learning-rate below 0.003."),
    ],
)
def test_too_small_and_too_large_steps(loss, accuracy, cause):
    words = said((2.3, loss, accuracy))
    assert words.startswith("the network has learned nothing: its test loss is ")
    assert f"The steps are {cause}" in words


def test_a_test_loss_that_rises_epoch_after_epoch():
    rising = (0.5, 0.5, 0.8), (0.6, 0.6, 0.8), (0.7, 0.7, 0.8)
    assert "rises epoch after epoch" in said(*rising)
    assert said(*rising).endswith("too large. Try a --learning-rate below 0.003.")
    by_heart = said((0.5, 0.5, 0.8), (0.4, 0.6, 0.8), (0.3, 0.7, 0.8))
    assert by_heart.endswith("by heart. Try fewer --epochs, or --validation with --patience.")
    assert said(rising[1], rising[0], rising[1]) == ""
