"""A training on arrays, with any optimizer, without a folder: a loop over `train_epoch`."""

import math
import time
from typing import NamedTuple

import jax
import jax.numpy as jnp
import optax

from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset, Split
from flax_mnist.data.order import epoch_order, steps_per_epoch
from flax_mnist.errors import FlaxMnistError, RequestError
from flax_mnist.evaluation import evaluate
from flax_mnist.model import Params, make_model
from flax_mnist.runs.loop import metrics_of
from flax_mnist.store.metrics import Metrics
from flax_mnist.train import State, init_state, make_optimizer, train_epoch


class Fitted(NamedTuple):
    """What a training on arrays came to."""

    params: Params  #: After the epoch with the lowest test loss.
    state: State  #: After the last epoch.
    metrics: list[Metrics]  #: Of all epochs; in the first one's seconds it is compiled.


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
        RequestError: the config holds images out, or ends a run: `data` and `patience` do.
        FlaxMnistError: a loss is not finite.
    """
    for setting in ("validation", "patience", "until_accuracy"):
        if getattr(config, setting):
            raise RequestError(
                f"{setting} is for train: fit is given what it scores as data, and its patience."
            )
    train, test = (data.train, data.test) if isinstance(data, Dataset) else data
    n = len(train[1])
    model = make_model(config)
    optimizer = optimizer or make_optimizer(config, steps_per_epoch(config, n))
    if after is None:
        params = init_state(config, optimizer).params if params is None else params
        after = Fitted(params, State(params, optimizer.init(params)), [])
    best, metrics = after.params, list(after.metrics)
    state = jax.tree.map(jnp.copy, after.state)  # a step reuses the memory of its own
    while len(metrics) < config.epochs and not _is_stuck(metrics, patience):
        start, epoch = time.perf_counter(), len(metrics)
        order = epoch_order(config.seed, epoch, n)
        state, loss = train_epoch(
            state, *train, order, model=model, optimizer=optimizer, batch_size=config.batch_size
        )
        loss = float(loss)  # waits for the device
        seconds = time.perf_counter() - start
        test_loss, test_accuracy = map(float, evaluate(state.params, *test, model=model))
        if not math.isfinite(loss + test_loss):
            raise FlaxMnistError(
                f"The loss is not finite in epoch {epoch + 1}: take smaller steps."
            )
        lowest = min((row.test_loss for row in metrics), default=math.inf)
        metrics.append(metrics_of(config, n, epoch + 1, seconds, (loss, test_loss, test_accuracy)))
        if test_loss < lowest:
            best = jax.tree.map(jnp.copy, state.params)
    return Fitted(best, state, metrics)


def _is_stuck(metrics: list[Metrics], patience: float) -> bool:
    losses = [row.test_loss for row in metrics]
    return bool(losses) and len(losses) - 1 - losses.index(min(losses)) >= patience
