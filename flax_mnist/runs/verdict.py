"""Whether a run has learned anything at all, and if not, what to try."""

import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int
from scipy.stats import entropy

from flax_mnist.config import CLASSES, Config
from flax_mnist.store.metrics import Metrics


def of_a_run(
    config: Config, history: Sequence[Metrics], test_labels: Int[np.ndarray, " n"]
) -> str | None:
    """What is wrong with a run of these epochs, and the remedy; None where nothing is.

    Whoever does not look at the images does best by saying of each class how frequent it is: then
    the loss is the entropy of these shares, ln 10 where they are equal, and no less can be had.
    """
    last, shares = history[-1], np.bincount(test_labels, minlength=CLASSES) / len(test_labels)
    guessing = float(entropy(shares))
    if last.test_loss >= guessing or last.test_accuracy <= shares.max():
        found = (
            f"the network has learned nothing: its test loss is {last.test_loss:.4g}, that of "
            f"guessing {guessing:.4g}, its test accuracy {last.test_accuracy:.2%}."
        )
        # The accuracy is known to six digits.
        is_constant = np.abs(shares - last.test_accuracy).min() < 1e-6
        if is_constant:
            why = f"It says the same of all images: its units are dead. {_lower(config)}"
        elif last.test_loss > 1.5 * guessing:
            why = f"The steps are too large. {_lower(config)}"
        else:
            rates = f"{config.learning_rate * 10:g} and {config.learning_rate / 10:g}"
            why = f"The steps are too small, too few or too large. Try --learning-rate {rates}."
    elif _rises(history):
        found = "the test loss rises epoch after epoch, and is higher than after the first one."
        if last.train_loss < history[-3].train_loss:
            remedy = "Try fewer --epochs, or --validation with --patience."
            why = f"The training loss falls: the network learns by heart. {remedy}"
        else:
            why = f"The steps are too large. {_lower(config)}"
    else:
        return None
    return textwrap.fill(f"{found} {why}", width=70)


def _rises(history: Sequence[Metrics]) -> bool:
    """Whether the last three test losses do, to above the first one."""
    losses = [row.test_loss for row in history]
    return len(losses) >= 3 and losses[-3] < losses[-2] < losses[-1] > losses[0]


def _lower(config: Config) -> str:
    momentum = ", or less --momentum" if config.momentum else ""
    return f"Try a --learning-rate below {config.learning_rate:g}{momentum}."
