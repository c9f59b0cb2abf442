"""Runs that learned nothing, and good ones of which nothing is said."""

from __future__ import annotations

import numpy as np
import pytest

from flax_mnist import Config
from flax_mnist.runs.verdict import of_a_run
from flax_mnist.store.metrics import Metrics

LABELS = np.array([0, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 9], np.int32)
GUESSING = -(8 * np.log(1 / 12) / 12 + 4 * np.log(2 / 12) / 12)


def said(*epochs: tuple[float, float, float], steps: int = 100, **settings: object) -> str:
    """Of training loss, test loss and accuracy of each epoch; the words, on one line."""
    history = [
        Metrics(i, i * steps, a, b, c, 1.0, 1.0) for i, (a, b, c) in enumerate(epochs, start=1)
    ]
    return " ".join((of_a_run(Config(**settings), history, LABELS) or "").split())


def test_of_a_good_run_nothing_is_said():
    assert said((1.9, 1.2, 0.7), (0.8, 0.6, 0.84)) == ""
    # One that learns slowly, and one that overfits a little from some epoch on.
    assert said((2.3, GUESSING - 1e-6, 0.2)) == ""
    assert said((0.3, 0.2, 0.94), (0.1, 0.1, 0.97), (0.05, 0.11, 0.97), (0.02, 0.12, 0.98)) == ""
    assert said((0.3, 0.2, 0.94), (0.2, 0.3, 0.9)) == ""


def test_of_a_trial_nothing_is_said():
    dead = (2.4, 2.5, 0.1)
    assert said(dead, steps=99) == ""
    assert said(dead, steps=100) != ""


DEAD = "so large that its units are dead. Try a --learning-rate below "
SMALL = "too small or too few. Try a --learning-rate above 0.003, or more --epochs."


@pytest.mark.parametrize(
    ("settings", "loss", "accuracy", "cause"),
    [
        ({"learning_rate": 0.1, "momentum": 0.9}, GUESSING, 2 / 12, f"{DEAD}0.1, or less --mom"),
        ({"learning_rate": 0.2}, GUESSING - 0.1, 2 / 12, f"{DEAD}0.2."),
        ({"learning_rate": 0.01, "optimizer": "adam"}, GUESSING, 0.2, f"{DEAD}0.01."),
        ({}, GUESSING, 0.2, SMALL),
        ({}, GUESSING - 0.1, 0.1, SMALL),
        ({}, GUESSING * 1.4, 0.1, SMALL),
        ({}, 5.0, 0.2, "too large. Try a --learning-rate below 0.003."),
        ({"learning_rate": 0.2}, GUESSING * 1.4, 0.2, "too large. Try a --learning-rate below 0.2"),
    ],
)
def test_what_learned_nothing_is_told_the_likely_cause(settings, loss, accuracy, cause):
    words = said((2.3, loss, accuracy), **settings)
    assert words.startswith(f"the network has learned nothing: its test loss is {loss:.4g}, that ")
    assert f"of guessing {GUESSING:.4g}, its test accuracy {accuracy:.2%}. The steps " in words
    assert cause in words


def test_a_loss_above_guessing_of_a_network_that_knows_something_is_told_otherwise():
    words = said((0.9, 3.2, 0.4), learning_rate=0.05, momentum=0.9)
    assert words.startswith("the network is too sure of what is wrong: its test loss is 3.2, that")
    assert words.endswith("too large. Try a --learning-rate below 0.05, or less --momentum.")


def test_a_test_loss_that_rises_epoch_after_epoch():
    rising = (0.5, 0.5, 0.8), (0.6, 0.6, 0.8), (0.7, 0.7, 0.8)
    assert "rises epoch after epoch" in said(*rising)
    assert said(*rising).endswith("too large. Try a --learning-rate below 0.003.")
    by_heart = said((0.5, 0.5, 0.8), (0.4, 0.6, 0.8), (0.3, 0.7, 0.8))
    assert by_heart.endswith("by heart. Try fewer --epochs, or --validation with --patience.")
    assert said(rising[1], rising[0], rising[1]) == ""
