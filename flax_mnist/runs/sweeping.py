"""A sweep from its beginning to its end: what `flax-mnist sweep` does, as a function."""

import functools
import itertools
import json
import math
import statistics
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax import Array
from numpy.typing import NDArray

from flax_mnist.config import CheckpointPolicy, Config, DatasetName
from flax_mnist.data.dataset import Dataset, load_dataset
from flax_mnist.data.order import epoch_order, steps_per_epoch
from flax_mnist.devices import environment, memory, runtime
from flax_mnist.devices.memory import Plan, lanes
from flax_mnist.evaluation import Evaluation, evaluate, predict
from flax_mnist.model import Params, make_model
from flax_mnist.runs.loop import metrics_of
from flax_mnist.runs.observers import draw_curves
from flax_mnist.show import figures
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import Metrics, append_metrics
from flax_mnist.store.outcomes import Setting, write_outcomes
from flax_mnist.store.record import Record, write_config
from flax_mnist.store.weights import save_weights
from flax_mnist.sweep import (
    Outcome,
    combinations,
    for_each,
    outcomes_of,
    shardings,
    stacked_states,
    train_member,
)
from flax_mnist.train import State, init_state, make_optimizer

Rows = list[tuple[Config, Metrics]]  #: Members, each with what is known of it after an epoch.


class Programs(NamedTuple):
    """`train_epoch`, `evaluate` and `predict` of a whole group: arrays are `[members, ...]`."""

    train: Callable[..., tuple[State, Array]]
    evaluate: Callable[..., Evaluation]
    predict: Callable[..., Array]


class Trained(NamedTuple):
    """A group at its end, on the host."""

    params: Params  #: Each leaf `[members, ...]`.
    probabilities: NDArray[np.floating]  #: Of the classes of the test images: `[members, n, 10]`.


class Epoch(NamedTuple):
    """What is known of a group after an epoch."""

    group: int  #: From 0.
    #: Of each member. Losses and accuracy are NaN from the epoch on in which a loss is not finite;
    #: the seconds are the member's share of the group's.
    rows: Rows
    trained: Trained | None  #: After the last epoch.


class Swept(NamedTuple):
    """What a sweep came to."""

    folder: Path  #: It holds two tables and, where not all diverged, a picture and the best run.
    dataset: Dataset
    outcomes: list[Outcome]
    #: Of the setting that is best; its own `best` is None where every member diverged.
    best: Outcome

    @property
    def settings(self) -> list[Setting]:
        """What stands in `outcomes.jsonl`."""
        labels = self.dataset.test.labels
        return [setting_of(outcome, outcome is self.best, labels) for outcome in self.outcomes]


class SweepObserver:
    """Is told what happens, in this order. Here it does nothing: a subclass does what it wants."""

    def begin(self, plan: Plan, dataset: Dataset) -> None:
        """Before all else."""

    def compiled(self, seconds: float) -> None:
        """All programs are compiled, which took so long."""

    def advance(self, epoch: Epoch) -> None:
        """A group has finished an epoch."""

    def end(self) -> None:
        """All groups are trained, or something has failed since `compiled`."""


def sweep(
    config: Config | None = None,
    learning_rates: Sequence[float] = (0.001, 0.003, 0.01),
    momenta: Sequence[float] = (0.0,),
    seeds: int = 8,
    dataset: Dataset | DatasetName = "auto",
    run_dir: Path | str | None = None,
    *,
    data_dir: Path | str | None = None,
    observer: SweepObserver | None = None,
    device: runtime.DeviceName = "auto",
    compilation_cache: bool = True,
) -> Swept:
    """Trains every combination of learning rates, momenta and seeds, many at once.

    Args:
        config: what all members have in common; its seed is the first of theirs.
        learning_rates, momenta: to be combined; see `Config`.
        seeds: how many.
        dataset, data_dir: the images; or their name, and where `load_dataset` finds them.
        run_dir: folder to write to; None is `runs/sweep-<dataset>-<timestamp>`.
        observer: is told what happens.
        device: `auto` is JAX's choice. Its settings are afterwards what they were before.
        compilation_cache: keep compiled programs in the user's cache folder for the next start.

    Raises:
        RequestError: a value is out of its range, or the folder holds a run already.
        FlaxMnistError: the images cannot be had, or a file cannot be written.
    """
    members = combinations(config or Config(), learning_rates, momenta, seeds)
    data_dir = None if data_dir is None else Path(data_dir)
    observer = observer or SweepObserver()
    with runtime.settings_restored():
        count = memory.cpu_devices(len(members))
        first = runtime.start(device, members[0], compilation_cache, count)
        if not isinstance(dataset, Dataset):
            dataset = load_dataset(dataset, data_dir)
        with run_folder.taken(run_dir, f"sweep-{dataset.name}") as path:
            devices = jax.local_devices(backend=first.platform)
            plan = memory.make_plan(members, dataset.counts, devices, memory.memory(first))
            rows, outcomes = _train(plan, dataset, path / run_folder.SWEEP, observer)
            best = min(outcomes, key=lambda outcome: outcome.rank)
            swept = Swept(path, dataset, outcomes, best)
            write_outcomes(path, swept.settings)
            if best.best:
                winner, params = best.best
                record = Record.of(winner, dataset, data_dir, CheckpointPolicy())
                _save_best(path / run_folder.BEST, record, first, rows, params)
                figures.save(figures.draw_sweep(rows), path / run_folder.CURVES)
    return swept


def _train(
    plan: Plan, dataset: Dataset, file: Path, observer: SweepObserver
) -> tuple[Rows, list[Outcome]]:
    observer.begin(plan, dataset)
    start = time.perf_counter()
    programs = compile_programs(plan, dataset, together=plan.mesh.devices[0].platform != "cpu")
    observer.compiled(time.perf_counter() - start)
    outcomes = outcomes_of(itertools.chain(*plan.groups))
    rows: Rows = []
    try:
        for epoch in fit(plan, dataset, programs):
            rows += epoch.rows
            _append(file, epoch.rows, dataset.name)
            collect(outcomes, epoch)
            observer.advance(epoch)
    finally:
        observer.end()
    return rows, list(outcomes.values())


def compile_programs(plan: Plan, dataset: Dataset, together: bool) -> Programs:
    """What trains any group of the plan; see `for_each`."""
    template, mesh = plan.template, plan.mesh
    own, common = shardings(mesh)
    model = make_model(template)

    def stacked(leaf: jax.ShapeDtypeStruct) -> jax.ShapeDtypeStruct:
        return jax.ShapeDtypeStruct((lanes(plan), *leaf.shape), leaf.dtype, sharding=own)

    order = jax.ShapeDtypeStruct(dataset.train.labels.shape, jnp.int32)
    optimizer = _optimizer(plan, dataset)
    members = jax.tree.map(stacked, (init_state(template, optimizer), order))
    images, labels = (
        jax.ShapeDtypeStruct(array.shape, array.dtype, sharding=common) for array in dataset.train
    )
    train = for_each(functools.partial(train_member, template=template), mesh, together)
    options = runtime.compiler_options(template.deterministic, mesh.devices[0].platform)
    return Programs(
        train.lower(members, images, labels).compile(compiler_options=options),
        # One member's test is work enough for a device, and takes much memory.
        for_each(functools.partial(evaluate, model=model), mesh, together=False),
        for_each(functools.partial(predict, model=model), mesh, together=False),
    )


def fit(plan: Plan, dataset: Dataset, programs: Programs) -> Iterator[Epoch]:
    """Trains one group of members after the other; yields after each of its epochs.

    Where a single run would stop, because its loss is not finite, no other member is concerned.
    """
    template = plan.template
    own, common = shardings(plan.mesh)
    train, test = jax.device_put((dataset.train, dataset.test), common)
    for number, group in enumerate(plan.groups):
        padded = [*group, *[group[-1]] * (lanes(plan) - len(group))]
        states = stacked_states(padded, template, _optimizer(plan, dataset))
        state: Any = jax.device_put(states, own)
        healthy = np.ones(len(group), bool)
        for epoch in range(1, template.epochs + 1):
            order = jax.device_put(_stacked_orders(padded, epoch - 1, len(train.labels)), own)
            began = time.perf_counter()
            state, losses = jax.block_until_ready(programs.train((state, order), *train))
            seconds = time.perf_counter() - began
            fetched = jax.device_get((losses, *programs.evaluate(state.params, *test)))
            values = np.array(fetched, np.float64)[:, : len(group)]
            healthy &= np.isfinite(values).all(axis=0)
            values[:, ~healthy] = np.nan
            metrics = [
                metrics_of(template, len(train.labels), epoch, seconds / len(group), scores)
                for scores in values.T.tolist()
            ]
            trained = None
            if epoch == template.epochs:
                probabilities = programs.predict(state.params, test.images)
                trained = Trained(*jax.device_get((state.params, probabilities)))
            yield Epoch(number, list(zip(group, metrics, strict=True)), trained)


def _optimizer(plan: Plan, dataset: Dataset) -> optax.GradientTransformation:
    steps = steps_per_epoch(plan.template, len(dataset.train.labels))
    return make_optimizer(plan.template, steps)


def _stacked_orders(members: Sequence[Config], epoch: int, n: int) -> NDArray[np.int32]:
    """The members' orders of an epoch, `[members, n]`."""
    by_seed = {seed: epoch_order(seed, epoch, n) for seed in {config.seed for config in members}}
    return np.stack([by_seed[config.seed] for config in members])


def collect(outcomes: dict[tuple[float, float], Outcome], epoch: Epoch) -> None:
    """Adds a group's members to the outcomes of their settings, once they are trained."""
    if epoch.trained is None:
        return
    params, probabilities = epoch.trained
    for i, (config, last) in enumerate(epoch.rows):
        member = jax.tree.map(lambda leaf, i=i: leaf[i], params)
        outcome = outcomes[config.learning_rate, config.momentum]
        outcome.add(config, last.test_loss, last.test_accuracy, member, probabilities[i])


def setting_of(outcome: Outcome, is_best: bool, labels: NDArray[np.int32]) -> Setting:
    """What is kept of an outcome: means and standard deviations."""
    losses, accuracies = outcome.test_losses, outcome.test_accuracies
    return Setting(
        learning_rate=outcome.learning_rate,
        momentum=outcome.momentum,
        test_loss=statistics.fmean(losses) if losses else None,
        test_loss_sd=statistics.stdev(losses) if len(losses) > 1 else None,
        test_accuracy=statistics.fmean(accuracies) if losses else None,
        test_accuracy_sd=statistics.stdev(accuracies) if len(losses) > 1 else None,
        ensemble_accuracy=outcome.ensemble_accuracy(labels) if losses else None,
        members=outcome.diverged + len(losses),
        diverged=outcome.diverged,
        best=is_best and bool(losses),
    )


def _append(file: Path, rows: Rows, dataset_name: str) -> None:
    """Adds a line for each member: its setting and its metrics, which are null once it diverged.

    `seconds` is its share of the time in which all train, `images_per_second` counts all images.
    """
    lines = []
    for config, metrics in rows:
        setting = {name: getattr(config, name) for name in ("learning_rate", "momentum", "seed")}
        values = metrics.known() | {"diverged": math.isnan(metrics.test_loss)}
        finite = {name: None if math.isnan(value) else value for name, value in values.items()}
        lines.append(json.dumps(setting | finite | {"dataset": dataset_name}) + "\n")
    with file.open("a", encoding="utf-8") as stream:
        stream.write("".join(lines))


def _save_best(path: Path, record: Record, device: jax.Device, rows: Rows, params: Params) -> None:
    """Keeps a member as `train` keeps a run, but for its checkpoints."""
    run_folder.create(path, record.dataset)
    write_config(path, record, environment.describe(device, record.config))
    for metrics in (metrics for member, metrics in rows if member == record.config):
        append_metrics(path, metrics, record.dataset)
    save_weights(path / run_folder.WEIGHTS, params)
    draw_curves(path)
