"""When a training is over before its last epoch, and the weights of which epoch are kept."""

from collections.abc import Sequence

from flax_mnist.config import Config
from flax_mnist.store.metrics import Metrics


def since_lowest(losses: Sequence[float]) -> int:
    """How many came after the lowest, the first one of those that are equal."""
    return len(losses) - 1 - losses.index(min(losses))


def with_best_epoch(history: Sequence[Metrics], metrics: Metrics) -> Metrics:
    """The metrics of an epoch after those in `history`, with the best of all if it is known.

    That is the first of those with the lowest validation loss.
    """
    losses = _validation_losses([*history, metrics])
    return metrics._replace(best_epoch=metrics.epoch - since_lowest(losses)) if losses else metrics


def why_over(config: Config, history: Sequence[Metrics]) -> str | None:
    """Why no epoch is trained after those in `history`, in a sentence; None where one may be.

    `config.epochs` is looked at by others.
    """
    for i, row in enumerate(history, start=1):
        if 0 < config.until_accuracy <= row.test_accuracy:
            seconds = sum(row.seconds for row in history[:i])
            return (
                f"Test accuracy {row.test_accuracy:.2%} after epoch {row.epoch}: "
                f"{config.until_accuracy:.6g} was reached in {seconds:.2f} s of training."
            )
    losses = _validation_losses(history)
    if losses and 0 < config.patience <= since_lowest(losses):
        waited = since_lowest(losses)
        return f"The validation loss has not fallen for {waited} epochs: stopped early."
    return None


def _validation_losses(history: Sequence[Metrics]) -> list[float]:
    return [row.validation_loss for row in history if row.validation_loss is not None]
