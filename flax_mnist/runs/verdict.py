"""Whether a run has learned anything at all, and if not, what to try."""

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
    last = history[-1]
    shares = np.bincount(test_labels, minlength=CLASSES) / len(test_labels)
    guessing = float(entropy(shares))
    if last.test_loss >= guessing or last.test_accuracy <= shares.max():
        found = (
            f"it has learned nothing: test loss {last.test_loss:.4g}, that of guessing is "
            f"{guessing:.4g}; test accuracy {last.test_accuracy:.2%}"
        )
        return f"{found}. {_cause(config, last, guessing, shares)}"
    recent = [row.test_loss for row in history[-3:]]
    if len(recent) == 3 and recent == sorted(set(recent)) and recent[-1] > history[0].test_loss:
        found = "its test loss rises epoch after epoch, and is above that after the first"
        if last.train_loss < history[-3].train_loss:
            return f"{found}, while the training loss falls: it overfits. {_EARLIER}"
        return f"{found}. {_lower_rate(config)}"
    return None


_EARLIER = "Hold images out and stop in time: --validation 5000 --patience 3."


def _cause(config: Config, last: Metrics, guessing: float, shares: np.ndarray) -> str:
    # The accuracy is known to six digits.
    if np.abs(shares - last.test_accuracy).min() < 1e-6:
        return f"All images are one class to it: its units are dead. {_lower_rate(config)}"
    if last.test_loss > 1.1 * guessing:
        return f"The steps are too large. {_lower_rate(config)}"
    return (
        "The steps are too small, or too few. Try a --learning-rate above "
        f"{config.learning_rate:g}, or more --epochs."
    )


def _lower_rate(config: Config) -> str:
    momentum = " or no --momentum" if config.momentum else ""
    return f"Try a --learning-rate below {config.learning_rate:g}{momentum}."
