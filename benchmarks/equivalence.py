"""Does the JAX program compute what the PyTorch tutorial computes? Measured, as a table.

    python -m benchmarks.equivalence --data-dir DIR

Each function here measures one difference between the two programs. The command prints them beside
their tolerances; `tests/test_torch_equivalence.py` asserts the same measurements, and that each of
them notices a mistake.
"""

from __future__ import annotations

import dataclasses
import functools
import sys
from collections.abc import Iterable, Sequence
from contextlib import AbstractContextManager
from pathlib import Path
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
import scipy.stats  # type: ignore[import-untyped]
import torch
import tyro
from numpy.typing import NDArray
from rich import box
from rich.console import Console
from rich.table import Table
from torch import nn, optim

from benchmarks import torch_reference as reference
from benchmarks import torch_seeds
from flax_mnist import evaluation, model, train
from flax_mnist.config import Config, DatasetName, Precision
from flax_mnist.data.dataset import Dataset, Split, load_dataset
from flax_mnist.data.order import epoch_order
from flax_mnist.store.weights import StateDict, from_torch_state_dict, to_torch_state_dict

# ---- tolerances ---------------------------------------------------------------------------------

INPUTS = 0
"""ulps: an input is one correctly rounded quotient, so both must have the very same bits."""
FORWARD = 64
"""ulps: the frameworks sum 784, 128 and 64 products in different orders; 10 times what is seen."""
LOSS = 16
"""ulps, relative: an exponential, a logarithm and a mean, each good to an ulp or two."""
GRADIENTS = 64
"""ulps of each gradient's largest entry: the same sums as forward, and 64 images more."""
STEP = 16
"""ulps: weights differ by 0.003 of what gradients do, losses of 2.3 by a rounding or two."""
EPOCHS_FLOAT64 = 1e-12
"""Roundings add up to 1e-15; a learning rate wrong by 1e-8 of it makes 3e-11 in 51 steps."""
EPOCHS_FLOAT32 = 2.0
"""Times the larger own drift: two that stray from one path are at most the sum of both apart."""
OWN_DRIFTS = 10.0
"""Times the other's: both round to 24 bits; with bfloat16 products it is 900 times."""
TEST_LOSS_MARGIN = 0.004
"""Nats: the standard deviation between seeds in 10 earlier runs of PyTorch, 0.0035, rounded up.

Fixed, like the next, before the runs that it judges (in which that deviation is 0.005).
"""
TEST_ACCURACY_MARGIN = 0.002
"""Likewise: it was 0.18 percentage points."""
ALPHA = 0.05
"""Of each of the two one-sided tests: the usual level."""


def ulps(n: float, precision: Precision) -> float:
    """`n` units in the last place of a number from 1 to 2."""
    return n * float(np.finfo(precision).eps)


# ---- the same weights and images on both sides ------------------------------------------------


def torch_weights(seed: int, config: Config) -> StateDict:
    """The weights that `torch.manual_seed(seed)` gives the tutorial's network."""
    torch.manual_seed(seed)
    state_dict = reference.build_model(config.hidden_sizes).state_dict()
    return {name: tensor.numpy() for name, tensor in state_dict.items()}


def in_torch(weights: StateDict, config: Config) -> nn.Sequential:
    """The tutorial's network with these weights, in the config's precision."""
    network = reference.build_model(config.hidden_sizes, getattr(torch, config.precision))
    network.load_state_dict({name: torch.tensor(array) for name, array in weights.items()})
    return network


def in_jax(weights: StateDict, config: Config) -> model.Params:
    """The parameters with these weights, in the config's precision."""
    dtype = model.make_model(config).param_dtype
    return from_torch_state_dict({k: v.astype(dtype) for k, v in weights.items()})


def torch_split(split: Split, config: Config) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs [n, 784] and int64 targets [n]."""
    inputs = reference.normalize(split.images, getattr(torch, config.precision))
    return inputs, torch.tensor(split.labels).long()


def in_precision(config: Config) -> AbstractContextManager[object]:
    """The context in which JAX computes in the config's precision."""
    context: AbstractContextManager[object] = jax.enable_x64(config.precision == "float64")
    return context


def first(split: Split, n: int) -> Split:
    """The first `n` images and labels."""
    return Split(split.images[:n], split.labels[:n])


def torch_arrays(network: nn.Module) -> StateDict:
    """Copies of a network's weights, by name."""
    return {name: tensor.numpy().copy() for name, tensor in network.state_dict().items()}


# ---- one difference each ----------------------------------------------------------------------


def difference(ours: Any, theirs: Any, relative: bool = False) -> float:
    """The largest between two pytrees of the same shape; NaN if there is one in either.

    Args:
        ours: arrays.
        theirs: arrays.
        relative: to the largest entry of each of `theirs`.

    Raises:
        ValueError: shapes differ.
    """
    worst = []
    for a, b in zip(jax.tree.leaves(ours), jax.tree.leaves(theirs), strict=True):
        a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
        if a.shape != b.shape:
            raise ValueError(f"shapes differ: {a.shape} and {b.shape}")
        worst.append(np.max(np.abs(a - b)) / (np.max(np.abs(b)) if relative else 1))
    return float(np.max(worst))  # not max(): it loses a NaN


def input_difference(config: Config) -> float:
    """Pixels to inputs: each of the 256 values, compiled."""
    images = np.arange(256, dtype=np.uint8).reshape(1, 16, 16)
    theirs = reference.normalize(images, getattr(torch, config.precision))
    with in_precision(config):
        ours = jax.jit(model.normalize, static_argnums=1)(images, config.precision)
        return difference(ours, theirs.numpy())


def forward_difference(weights: StateDict, split: Split, config: Config) -> float:
    """Logits and log-probabilities, from pixels."""
    network, (inputs, _) = in_torch(weights, config), torch_split(split, config)
    with torch.no_grad():
        theirs = network[:-1](inputs).numpy(), network(inputs).numpy()
    with in_precision(config):
        params, mlp = in_jax(weights, config), model.make_model(config)
        images = model.normalize(split.images, config.precision)
        logits = jax.jit(functools.partial(mlp.apply, method="logits"))({"params": params}, images)
        log_probs = jax.jit(model.log_probs, static_argnums=2)(params, split.images, mlp)
        return difference((logits, log_probs), theirs)


def loss_difference(config: Config) -> float:
    """Both losses, of ordinary logits and of logits up to 10,000; relative."""
    rng = np.random.default_rng(0)
    extreme = np.tile([1e4, -1e4, *rng.normal(size=8)], (10, 1))
    cases = (rng.normal(0, 3, (640, 10)), np.arange(640) % 10), (extreme, np.arange(10))
    ours, theirs = [], []
    for logits, labels in cases:
        scores, targets = torch.tensor(logits.astype(config.precision)), torch.tensor(labels)
        log_probs = nn.LogSoftmax(dim=1)(scores)
        theirs += [nn.NLLLoss()(log_probs, targets), nn.CrossEntropyLoss()(scores, targets)]
        with in_precision(config):
            ours += [
                jax.jit(model.nll_loss)(log_probs.numpy(), labels),
                jax.jit(model.cross_entropy_loss)(scores.numpy(), labels),
            ]
    return difference(ours, theirs, relative=True)


def gradient_difference(weights: StateDict, batch: Split, config: Config) -> float:
    """The gradient of the mean loss by each parameter; relative."""
    network, (inputs, targets) = in_torch(weights, config), torch_split(batch, config)
    nn.NLLLoss()(network(inputs), targets).backward()
    theirs = {name: p.grad.numpy() for name, p in network.named_parameters() if p.grad is not None}
    with in_precision(config):
        mlp = model.make_model(config)

        def loss(params: model.Params) -> jax.Array:
            return model.nll_loss(model.log_probs(params, batch.images, mlp), batch.labels)

        ours = jax.jit(jax.grad(loss))(in_jax(weights, config))
        return difference(to_torch_state_dict(ours), theirs, relative=True)


def step_difference(weights: StateDict, batch: Split, config: Config, steps: int) -> float:
    """Loss and parameters of each of `steps` steps on the same batch."""
    network, n = in_torch(weights, config), len(batch.labels)
    descent = optim.SGD(network.parameters(), lr=config.learning_rate, momentum=config.momentum)
    loader = reference.InOrder(*torch_split(batch, config), np.arange(n), batch_size=n)
    theirs = []
    for _ in range(steps):
        loss = reference.train_epoch(network, nn.NLLLoss(), descent, loader)
        theirs.append((loss, torch_arrays(network)))
    with in_precision(config):
        mlp, optimizer = model.make_model(config), train.make_optimizer(config)
        params = in_jax(weights, config)
        state, ours = train.State(params, optimizer.init(params)), []
        for _ in range(steps):
            state, value = train.train_step(state, *batch, model=mlp, optimizer=optimizer)
            ours.append((float(value), to_torch_state_dict(state.params)))
            # The next step may overwrite the memory of which the state dict's biases are views.
            state = jax.tree.map(jnp.copy, state)
        return difference(ours, theirs)


# ---- whole trainings --------------------------------------------------------------------------


class Run(NamedTuple):
    """What a training came to."""

    losses: list[float]
    """Each epoch's mean over its batches, nats."""
    weights: StateDict
    test_loss: float
    test_accuracy: float


def torch_run(
    weights: StateDict, dataset: Dataset, orders: Iterable[NDArray[np.int32]], config: Config
) -> Run:
    """The tutorial's training from the given weights, an epoch for each order [n]."""
    network = in_torch(weights, config)
    losses = reference.train_in_order(
        network,
        *torch_split(dataset.train, config),
        orders,
        config.batch_size,
        config.learning_rate,
        config.momentum,
    )
    score = reference.evaluate(network, *torch_split(dataset.test, config))
    return Run(losses, torch_arrays(network), *score)


def jax_run(
    weights: StateDict, dataset: Dataset, orders: Iterable[NDArray[np.int32]], config: Config
) -> Run:
    """The same training by `flax_mnist.train.train_epoch`."""
    with in_precision(config):
        mlp, optimizer = model.make_model(config), train.make_optimizer(config)
        params = in_jax(weights, config)
        state, losses = train.State(params, optimizer.init(params)), []
        images, labels = jax.device_put(dataset.train)
        for order in orders:
            state, loss = train.train_epoch(
                state,
                images,
                labels,
                jnp.asarray(order),
                model=mlp,
                optimizer=optimizer,
                batch_size=config.batch_size,
            )
            losses.append(float(loss))
        score = evaluation.evaluate(state.params, *dataset.test, model=mlp)
        weights = to_torch_state_dict(state.params)
        return Run(losses, weights, float(score.loss), float(score.accuracy))


class Runs(NamedTuple):
    """One training, four times: same weights, same batches."""

    torch64: Run
    jax64: Run
    torch32: Run
    jax32: Run


def four_runs(dataset: Dataset, config: Config) -> Runs:
    """Trains in both frameworks and both precisions, from PyTorch's weights, in our orders."""
    weights, n = torch_weights(config.seed, config), len(dataset.train.labels)
    orders = [epoch_order(config.seed, epoch, n) for epoch in range(config.epochs)]
    wide, narrow = (dataclasses.replace(config, precision=p) for p in ("float64", "float32"))
    return Runs(
        torch_run(weights, dataset, orders, wide),
        jax_run(weights, dataset, orders, wide),
        torch_run(weights, dataset, orders, narrow),
        jax_run(weights, dataset, orders, narrow),
    )


class Drift(NamedTuple):
    """How far float32 trainings are apart."""

    between: float
    """The frameworks, from each other."""
    torch: float
    """PyTorch, from its own float64 training."""
    jax: float
    """JAX, from its own float64 training."""

    @property
    def allowed(self) -> float:
        """The most that the frameworks may be apart."""
        return EPOCHS_FLOAT32 * max(self.torch, self.jax)

    @property
    def alike(self) -> bool:
        """Whether neither framework rounds much more coarsely than the other.

        Without it a mistake in float32 alone would allow itself: it is an own drift too.
        """
        return max(self.torch, self.jax) <= OWN_DRIFTS * min(self.torch, self.jax)


def float32_drift(runs: Runs, of: str) -> Drift:
    """Of the `losses` or the `weights`."""
    torch64, jax64, torch32, jax32 = (getattr(run, of) for run in runs)
    return Drift(difference(jax32, torch32), difference(torch32, torch64), difference(jax32, jax64))


# ---- independent trainings --------------------------------------------------------------------


def jax_seeds(
    dataset: Dataset, seeds: Sequence[int], config: Config
) -> list[evaluation.Evaluation]:
    """Trains one network a seed, all at once; their test results [seeds] after each epoch."""
    static = {"model": model.make_model(config), "optimizer": train.make_optimizer(config)}
    epoch = functools.partial(train.train_epoch, **static, batch_size=config.batch_size)
    run_epoch = jax.jit(jax.vmap(epoch, in_axes=(0, None, None, 0)), donate_argnums=0)
    score = functools.partial(evaluation.evaluate, model=static["model"])
    evaluate = jax.vmap(score, in_axes=(0, None, None))

    states = [train.init_state(dataclasses.replace(config, seed=seed)) for seed in seeds]
    state = jax.tree.map(lambda *leaves: jnp.stack(leaves), *states)
    train_data, test_data = jax.device_put((dataset.train, dataset.test))
    scores, n = [], len(dataset.train.labels)
    for number in range(config.epochs):
        orders = np.stack([epoch_order(seed, number, n) for seed in seeds])
        state, _ = run_epoch(state, *train_data, orders)
        scores.append(evaluate(state.params, *test_data))
    return scores


class Tost(NamedTuple):
    """Two one-sided tests: do two means differ by less than a margin?"""

    difference: float
    low: float
    high: float
    """`low` to `high` is the difference's 90 % confidence interval."""
    p: float
    """The larger of the two tests' p-values: below 0.05 just when the interval is in the margin."""


def tost(ours: Sequence[float], theirs: Sequence[float], margin: float) -> Tost:
    """Welch's t-tests of a difference above -margin and below +margin (Schuirmann 1987)."""
    a, b = np.asarray(ours, np.float64), np.asarray(theirs, np.float64)
    test = functools.partial(scipy.stats.ttest_ind, equal_var=False)
    p = max(
        test(a, b - margin, alternative="greater").pvalue,
        test(a, b + margin, alternative="less").pvalue,
    )
    interval = test(a, b).confidence_interval(1 - 2 * ALPHA)
    return Tost(float(a.mean() - b.mean()), float(interval.low), float(interval.high), float(p))


def compare_seeds(
    ours: evaluation.Evaluation, theirs: Sequence[dict[str, Any]]
) -> tuple[Tost, Tost]:
    """Test loss and test accuracy of trained networks against the stored ones of PyTorch."""
    return (
        tost(list(ours.loss), [run["test_loss"] for run in theirs], TEST_LOSS_MARGIN),
        tost(list(ours.accuracy), [run["test_accuracy"] for run in theirs], TEST_ACCURACY_MARGIN),
    )


# ---- the command ------------------------------------------------------------------------------


class Row(NamedTuple):
    """A line of the table: a measurement and its tolerance, twice."""

    what: str
    float64: float
    tolerance64: float
    float32: float
    tolerance32: float

    @property
    def holds(self) -> bool:
        """Whether both are within their tolerances."""
        return self.float64 <= self.tolerance64 and self.float32 <= self.tolerance32


def single_steps(dataset: Dataset, config: Config) -> list[Row]:
    """The parts of a step, from the first weights, on the first batch."""
    weights = torch_weights(config.seed, config)
    batch = first(dataset.train, config.batch_size)
    plain, momentum = (dataclasses.replace(config, momentum=m) for m in (0.0, 0.9))

    def row(what: str, tolerance: float, of: Config, measure: Any) -> Row:
        by_precision = (
            (measure(dataclasses.replace(of, precision=p)), ulps(tolerance, p))
            for p in ("float64", "float32")
        )
        return Row(what, *next(by_precision), *next(by_precision))

    n = len(dataset.test.labels)
    return [
        row("inputs, all 256 pixel values", INPUTS, plain, input_difference),
        row(
            f"logits and log-probabilities, {n:,} images",
            FORWARD,
            plain,
            functools.partial(forward_difference, weights, dataset.test),
        ),
        row("both losses, logits up to 10,000 (relative)", LOSS, plain, loss_difference),
        row(
            "gradients (relative)",
            GRADIENTS,
            plain,
            functools.partial(gradient_difference, weights, batch),
        ),
        row(
            "1 step: parameters and loss",
            STEP,
            plain,
            functools.partial(step_difference, weights, batch, steps=1),
        ),
        row(
            "3 steps with momentum 0.9",
            STEP,
            momentum,
            functools.partial(step_difference, weights, batch, steps=3),
        ),
    ]


def whole_training(runs: Runs, steps: int) -> list[Row]:
    """Parameters at the end and loss of each epoch."""
    rows = []
    for what, of in (("parameters", "weights"), ("loss of each epoch", "losses")):
        wide = difference(getattr(runs.jax64, of), getattr(runs.torch64, of))
        drift = float32_drift(runs, of)
        name = f"{steps:,} steps: {what}"
        rows.append(Row(name, wide, EPOCHS_FLOAT64, drift.between, drift.allowed))
    return rows


def main(
    data_dir: Path | None = None, dataset: DatasetName = "auto", epochs: int = 5, seeds: int = 24
) -> int:
    """Compares the JAX program with the PyTorch tutorial and prints the differences.

    Args:
        data_dir: a folder with the dataset's four IDX files.
        dataset: what to train on.
        epochs: of the training from the same weights on the same batches.
        seeds: independent trainings in JAX, to be compared with the stored ones of PyTorch; 0 for
            none.

    Returns:
        0 if everything is within its tolerance, otherwise 1.
    """
    torch.set_num_threads(1)  # a step is too small to gain from more
    console = Console(width=90, highlight=False)
    data, config = load_dataset(dataset, data_dir), Config(epochs=epochs)
    try:
        stored = torch_seeds.load(data) if seeds else []
    except LookupError as error:
        raise SystemExit(f"{error.args[0]} Or use --seeds 0.") from error
    console.print(
        f"PyTorch {torch.__version__} and JAX {jax.__version__} ({jax.default_backend()}) on "
        f"{data.name}: largest differences\n"
    )
    runs = four_runs(data, config)
    steps = epochs * -(-len(data.train.labels) // config.batch_size)
    rows = single_steps(data, config) + whole_training(runs, steps)
    console.print(difference_table(rows))
    drift = float32_drift(runs, "weights")
    console.print(
        f"\nfloat32 parameters drift from float64's by {drift.torch:.1e} in PyTorch, "
        f"{drift.jax:.1e} in JAX.\nTest accuracy in float32: "
        f"{runs.torch32.test_accuracy:.2%} in PyTorch, {runs.jax32.test_accuracy:.2%} in JAX."
    )
    holds = all(row.holds for row in rows) and drift.alike
    if seeds:
        score = jax_seeds(data, range(seeds), Config())[-1]
        console.print(f"\nIndependent trainings, {len(stored)} in PyTorch and {seeds} in JAX\n")
        console.print(seed_table(score, stored))
        holds = holds and all(test.p < ALPHA for test in compare_seeds(score, stored))
    return 0 if holds else 1


def difference_table(rows: Sequence[Row]) -> Table:
    """Differences and tolerances."""
    table = Table("", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("float64", "at most", "float32", "at most"):
        table.add_column(name, justify="right")
    for row in rows:
        table.add_row(row.what, *(f"{x:.1e}" if x else "0" for x in row[1:]))
    return table


def seed_table(ours: evaluation.Evaluation, theirs: Sequence[dict[str, Any]]) -> Table:
    """Means, and the interval of their difference beside its margin."""
    table = Table("", box=box.SIMPLE_HEAD, show_edge=False, pad_edge=False)
    for name in ("PyTorch", "JAX", "difference", "90 % interval", "margin"):
        table.add_column(name, justify="right")
    loss, accuracy = compare_seeds(ours, theirs)
    for what, test, key, own, margin, unit in (
        ("test loss, nats", loss, "test_loss", ours.loss, TEST_LOSS_MARGIN, 1),
        ("test accuracy, %", accuracy, "test_accuracy", ours.accuracy, TEST_ACCURACY_MARGIN, 100),
    ):
        means = np.mean([run[key] for run in theirs]), np.mean(own)
        digits = 4 if unit == 1 else 2
        table.add_row(
            what,
            *(f"{mean * unit:.{digits}f}" for mean in means),
            f"{test.difference * unit:+.{digits}f}",
            f"{test.low * unit:+.{digits}f} to {test.high * unit:+.{digits}f}",
            f"±{margin * unit:.{digits}f}",
        )
    return table


if __name__ == "__main__":
    sys.exit(tyro.cli(main))
