"""When a training is over before its last epoch, and the weights of which epoch are kept."""

from collections.abc import Sequence

from flax_mnist.config import Config
from flax_mnist.store.metrics import Metrics


def with_best_epoch(history: Sequence[Metrics], metrics: Metrics) -> Metrics:
    """The metrics of an epoch after those in `history`, with the best of all if it is known.

    That is the first of those with the lowest validation loss.
    """
    losses = {row.epoch: row.validation_loss for row in (*history, metrics)}
    known = {epoch: loss for epoch, loss in losses.items() if loss is not None}
    return metrics._replace(best_epoch=min(known, key=known.__getitem__)) if known else metrics


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
    if history and config.patience:
        last = history[-1]
        waited = last.epoch - (last.best_epoch or last.epoch)
        if waited >= config.patience:
            return f"The validation loss has not fallen for {waited} epochs: stopped early."
    return None
