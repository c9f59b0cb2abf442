"""Whether a run has learned anything at all, and if not, what to try."""

import textwrap
from collections.abc import Sequence

import numpy as np
from jaxtyping import Int

from flax_mnist.config import CLASSES, Config
from flax_mnist.store.metrics import Metrics

#: Fewer are a trial, of which nothing can be expected.
FEWEST_STEPS = 100
#: From here on a rate is likelier too high than too low; of SGD's, divided by 1 - momentum.
HIGH_RATES = {"sgd": 0.1, "adam": 0.005, "adamw": 0.005}


def of_a_run(
    config: Config, history: Sequence[Metrics], test_labels: Int[np.ndarray, " n"]
) -> str | None:
    """What is wrong with a run of these epochs, and the remedy; None where nothing is.

    Whoever does not look at the images does best by saying of each class how frequent it is: then
    the loss is the entropy of these shares, ln 10 where they are equal, and no less can be had.
    """
    last, shares = history[-1], np.bincount(test_labels, minlength=CLASSES) / len(test_labels)
    guessing = -float((shares * np.log(np.where(shares, shares, 1))).sum())
    if last.step < FEWEST_STEPS:
        return None
    if last.test_loss >= guessing or last.test_accuracy <= shares.max():
        knows = last.test_accuracy > 2 * shares.max()
        what = "is too sure of what is wrong" if knows else "has learned nothing"
        found = (
            f"the network {what}: its test loss is {last.test_loss:.4g}, that of "
            f"guessing {guessing:.4g}, its test accuracy {last.test_accuracy:.2%}."
        )
        why = _cause(config, last, guessing)
    elif _rises(history):
        found = "the test loss rises epoch after epoch, and is higher than after the first one."
        why = f"The steps are too large. {_lower(config)}"
        if last.train_loss < history[-3].train_loss:
            remedy = "Try fewer --epochs, or --validation with --patience."
            why = f"The training loss falls: the network learns by heart. {remedy}"
    else:
        return None
    return textwrap.fill(f"{found} {why}", width=70)


def _cause(config: Config, last: Metrics, guessing: float) -> str:
    rate = config.learning_rate / (1 - config.momentum)
    is_high = rate >= HIGH_RATES[config.optimizer]
    # Dead units leave the loss of guessing; where none are yet, some rules for the first weights
    # begin above it.
    if last.test_loss > (1.05 if is_high else 1.5) * guessing:
        return f"The steps are too large. {_lower(config)}"
    if is_high:
        return f"The steps were so large that its units are dead. {_lower(config)}"
    higher = f"Try a --learning-rate above {config.learning_rate:g}, or more --epochs."
    return f"The steps are too small or too few. {higher}"


def _rises(history: Sequence[Metrics]) -> bool:
    """Whether the last three test losses do, to above the first one."""
    losses = [row.test_loss for row in history]
    return len(losses) >= 3 and losses[-3] < losses[-2] < losses[-1] > losses[0]


def _lower(config: Config) -> str:
    momentum = ", or less --momentum" if config.momentum else ""
    return f"Try a --learning-rate below {config.learning_rate:g}{momentum}."
