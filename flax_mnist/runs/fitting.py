"""A training on arrays, with any optimizer, without a folder."""

import math
from typing import NamedTuple, TypeVar

import jax
import jax.numpy as jnp
import optax

from flax_mnist.checks import require_classes, require_labelled
from flax_mnist.config import Config
from flax_mnist.data.dataset import DIGITS, Dataset, Split
from flax_mnist.data.order import steps_per_epoch
from flax_mnist.errors import RequestError
from flax_mnist.model import Params, make_model
from flax_mnist.runs import loop
from flax_mnist.runs.stopping import since_lowest
from flax_mnist.store.checkpoint import Progress
from flax_mnist.store.metrics import Metrics
from flax_mnist.train import State, init_state, make_optimizer, no_losses

Arrays = TypeVar("Arrays")  #: A pytree of arrays.


class Fitted(NamedTuple):
    """What a training on arrays came to."""

    params: Params  #: After the epoch with the lowest test loss.
    state: State  #: After the last epoch.
    metrics: list[Metrics]  #: Of all epochs.


def fit(
    config: Config,
    data: Dataset | tuple[Split, Split],
    *,
    optimizer: optax.GradientTransformation | None = None,
    params: Params | None = None,
    after: Fitted | None = None,
    patience: float = math.inf,
) -> Fitted:
    """Trains on `data` until `config.epochs` epochs are done, and keeps nothing in files.

    Args:
        config: of it what describes the optimizer is only for its own.
        data: what is trained on, and what each epoch is scored on, which may well be held out of
            the training images; each as uint8 images [n, 28, 28] and labels [n].
        optimizer: any of optax's, made once: what compiles it knows it by identity.
        params: the weights to begin with; None draws them as `config` says.
        after: what an earlier call with the same arguments came to: it is gone on with, as if it
            had never ended.
        patience: it ends where for so many epochs the test loss did not fall below its lowest.

    Raises:
        ArgumentError: an array is not what it must be.
        RequestError: patience is below 1, or the config holds images out or ends a run, which
            `data` and `patience` do.
        FlaxMnistError: a loss is not finite.
    """
    _require_heeded(config)
    if patience < 1:
        raise RequestError(f"patience is {patience}; it must be at least 1.")
    dataset = data if isinstance(data, Dataset) else Dataset("synthetic", "arrays", DIGITS, *data)
    for images, labels in (dataset.train, dataset.test):
        require_labelled(images, labels)
        require_classes(labels)
    n = len(dataset.train.labels)
    optimizer = optimizer or make_optimizer(config, steps_per_epoch(config, n))
    fitted = after or _not_begun(config, optimizer, params)
    # A step reuses the memory of its own.
    begun = Progress(_copy(fitted.state), no_losses(make_model(config)), len(fitted.metrics))
    chunk = loop.chunk_steps(config, n)
    run_chunk = loop.compile_chunks(config, begun, dataset.train, chunk, optimizer=optimizer)
    chunks = loop.fit(config, dataset, begun, run_chunk, chunk)
    while _waited(fitted) < patience and (done := next(chunks, None)):
        progress, row = done
        if row:
            fitted = _with_epoch(fitted, progress.state, row)
    return fitted


def _require_heeded(config: Config) -> None:
    for setting in ("validation", "patience", "until_accuracy"):
        if getattr(config, setting):
            raise RequestError(
                f"{setting} is for train: fit is given what it scores as data, and its patience."
            )


def _not_begun(
    config: Config, optimizer: optax.GradientTransformation, params: Params | None
) -> Fitted:
    params = init_state(config, optimizer).params if params is None else params
    return Fitted(params, State(params, optimizer.init(params)), [])


def _with_epoch(fitted: Fitted, state: State, row: Metrics) -> Fitted:
    longer = Fitted(fitted.params, state, [*fitted.metrics, row])
    return longer if _waited(longer) else longer._replace(params=_copy(state.params))


def _waited(fitted: Fitted) -> int:
    """For how many epochs the test loss has not fallen below its lowest."""
    losses = [row.test_loss for row in fitted.metrics]
    return since_lowest(losses) if losses else 0


def _copy(arrays: Arrays) -> Arrays:
    copies: Arrays = jax.tree.map(jnp.copy, arrays)
    return copies
