"""Sweeps that end as a test wants, and the trainings that their members are."""

from __future__ import annotations

import numpy as np

from flax_mnist import Config, Dataset, evaluate, init_state, train_epoch
from flax_mnist.data.order import epoch_order, steps_per_epoch
from flax_mnist.model import make_model
from flax_mnist.runs import sweeping
from flax_mnist.runs.sweeping import Trained
from flax_mnist.store.metrics import Metrics
from flax_mnist.train import make_optimizer

SMALL = Config(epochs=2, hidden_sizes=(16,))
"""And 1,000 images: the last batch is ragged."""
FLOAT32 = 1e-5
"""Of 32 steps: roundings make 1e-7, a learning rate that is 1 % off makes 1e-4."""


def single_run(config: Config, dataset: Dataset) -> tuple:
    """Its parameters, and training loss, test loss and test accuracy of each epoch."""
    model, steps = make_model(config), steps_per_epoch(config, len(dataset.train.labels))
    optimizer = make_optimizer(config, steps)
    state, history = init_state(config, optimizer), []
    for epoch in range(config.epochs):
        order = epoch_order(config.seed, epoch, len(dataset.train.labels))
        state, loss = train_epoch(
            state, *dataset.train, order,
            model=model, optimizer=optimizer, batch_size=config.batch_size,
        )  # fmt: skip
        history.append((loss, *evaluate(state.params, *dataset.test, model=model)))
    return state.params, np.array(history, np.float64)


def metrics_of(test_loss: float, test_accuracy: float = 0.5, epoch: int = 1) -> Metrics:
    return Metrics(epoch, 16 * epoch, 2 * test_loss, test_loss, test_accuracy, 0.5, 2000.0)


def ended(rows: sweeping.Rows, probabilities=None) -> sweeping.Epoch:
    """A group at its end, whose parameters are the members' numbers."""
    numbers = np.arange(len(rows), dtype=np.float32)
    if probabilities is None:
        probabilities = np.full((len(rows), 3, 10), 0.1, np.float32)
    return sweeping.Epoch(0, rows, Trained({"Dense_0": {"bias": numbers}}, probabilities))
