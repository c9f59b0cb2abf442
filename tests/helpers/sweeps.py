"""Sweeps, whole or cut off where a test wants, and the trainings that their members are."""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Callable, Iterator
from pathlib import Path

import jax
import numpy as np

from flax_mnist import Config, Dataset, evaluate, init_state, train_epoch
from flax_mnist.axes import Axes
from flax_mnist.data.order import epoch_order, steps_per_epoch
from flax_mnist.model import make_model
from flax_mnist.runs.signals import Listening
from flax_mnist.store.metrics import Metrics
from flax_mnist.sweeps import group
from flax_mnist.sweeps.plan import Plan, make_plan
from flax_mnist.train import make_optimizer

SMALL = Config(epochs=2, hidden_sizes=(16,))
"""And 1,000 images: the last batch is ragged."""
FLOAT32 = 1e-5
"""Of 32 steps: roundings make 1e-7, a learning rate that is 1 % off makes 1e-4."""
RESULTS = ("train_loss", "test_loss", "test_accuracy")


def axes(rates: tuple[float, ...] = (0.01,), seeds: int = 2, **more: object) -> Axes:
    """Of the small network."""
    return Axes(rates, **{"networks": (SMALL.hidden_sizes,), "seeds": seeds} | more)


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


def plan_of(members: list[Config], dataset: Dataset, group_size: int = 100) -> Plan:
    """On the devices of this process."""
    return make_plan(members, dataset.counts, jax.devices(), group_size)


def trained(
    plan: Plan, dataset: Dataset, programs: Callable[[group.Programs], group.Programs] = lambda p: p
) -> Iterator[tuple[group.Standing, list[group.MemberRows]]]:
    """Each group at its end, and the rows of its epochs; its programs may be replaced."""
    images = group.place_images(plan, dataset)
    for current in plan.groups:
        compiled = programs(group.compile_programs(plan, current, images))
        begun = group.begin(plan, current, images)
        chunks = list(group.fit(plan, current, images, begun, compiled))
        yield chunks[-1][0], [rows for _, rows in chunks if rows]


def lane(params, i: int):
    """A member's part of its group's parameters, on the host."""
    return jax.tree.map(lambda leaf: np.array(leaf[i]), params)


def metrics_of(test_loss: float, test_accuracy: float = 0.5, epoch: int = 1) -> Metrics:
    return Metrics(epoch, 16 * epoch, 2 * test_loss, test_loss, test_accuracy, 0.5, 2000.0)


def rows_of(folder: Path) -> list[dict]:
    """The lines of `sweep.jsonl`, which are JSON."""

    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = (folder / "sweep.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


def result(folder: Path) -> tuple:
    """What must not depend on interruptions, processes and devices: all but the seconds."""
    timed = {"seconds", "images_per_second"}
    rows = [{k: v for k, v in row.items() if k not in timed} for row in rows_of(folder)]
    weights = folder / "best" / "weights.safetensors"
    outcomes = (folder / "outcomes.jsonl").read_text()
    return rows, outcomes, weights.read_bytes() if weights.exists() else None


def signal_after(chunks: float, signum: int = 15) -> Listening:
    """Hears a signal after so many chunks, of whatever groups."""
    left = iter(range(int(min(chunks, 10**9))))

    @contextlib.contextmanager
    def listening() -> Iterator[Callable[[], int | None]]:
        yield lambda: None if next(left, None) is not None else signum

    return listening


def known(values: Metrics) -> list[float]:
    return [getattr(values, name) for name in RESULTS]


def is_lost(values: Metrics) -> bool:
    return all(map(math.isnan, known(values)))
