"""Every measurement beside its tolerance."""

import functools
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, NamedTuple

import jax
import torch

from benchmarks.entry import require_at_least
from benchmarks.equivalence import measurements, sides, stored_runs, tolerances, trainings
from benchmarks.equivalence.recipes import RECIPES
from benchmarks.equivalence.tolerances import ulps
from flax_mnist.config import Config, DatasetName
from flax_mnist.data.dataset import Dataset, Split, load_dataset
from flax_mnist.data.order import steps_per_epoch
from flax_mnist.errors import RequestError
from flax_mnist.show import text
from flax_mnist.store.weights import StateDict


class Comparison(NamedTuple):
    """A line of the table: a measurement and its tolerance, twice."""

    what: str
    float64: float
    tolerance64: float
    float32: float
    tolerance32: float


def single_steps(dataset: Dataset, config: Config) -> list[Comparison]:
    """The parts of a step, from the first weights, on the first batch."""
    weights, test = sides.torch_weights(config.seed, config), dataset.test
    batch = sides.first(dataset.train, config.batch_size)

    parts: list[tuple[str, float, Callable[[Config], float]]] = [
        ("inputs, all 256 pixel values", tolerances.INPUTS, measurements.input_difference),
        (f"logits and log-probabilities, {len(test.labels):,} images", tolerances.FORWARD,
         lambda c: measurements.forward_difference(weights, test, c)),
        ("both losses, logits up to 10,000 (relative)", tolerances.LOSS,
         measurements.loss_difference),
        ("gradients (relative)", tolerances.GRADIENTS,
         lambda c: measurements.gradient_difference(weights, batch, c)),
        ("1 step: parameters and loss", tolerances.STEP,
         lambda c: measurements.step_difference(weights, batch, c, steps=1)),
        ("3 steps with momentum 0.9", tolerances.STEP,
         lambda c: measurements.step_difference(weights, batch, replace(c, momentum=0.9), steps=3)),
    ]  # fmt: skip
    three = sides.batches(dataset.train, 3)
    for name, recipe in RECIPES.items():
        measure = functools.partial(optimizer_steps, weights, three, recipe)
        parts.append((f"3 steps: {name}", tolerances.STEP, measure))
    wide, narrow = (replace(config, precision=p) for p in ("float64", "float32"))
    return [
        Comparison(what, measure(wide), ulps(n, "float64"), measure(narrow), ulps(n, "float32"))
        for what, n, measure in parts
    ]


def optimizer_steps(
    weights: StateDict, batches: Sequence[Split], recipe: Config, config: Config
) -> float:
    """A recipe's steps on the batches' gradients, in the config's precision."""
    in_precision = replace(recipe, precision=config.precision)
    return measurements.optimizer_difference(weights, batches, in_precision)


def whole_training(runs: trainings.FourRuns, steps: int) -> list[Comparison]:
    """Parameters at the end and loss of each epoch."""
    lines = []
    for part, of in (("parameters", "weights"), ("loss of each epoch", "losses")):
        what, allowed = f"{steps:,} steps: {part}", tolerances.EPOCHS_FLOAT64
        wide = measurements.difference(getattr(runs.jax64, of), getattr(runs.torch64, of))
        drift = trainings.float32_drift(runs, of)
        lines.append(Comparison(what, wide, allowed, drift.between, drift.allowed))
    return lines


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
    require_at_least(0, "seeds", seeds)
    torch.set_num_threads(1)  # a step is too small to gain from more
    data, config = load_dataset(dataset, data_dir), Config(epochs=epochs)
    try:
        stored = stored_runs.runs_on(data) if seeds else []
    except LookupError as error:
        raise RequestError(f"{error.args[0]} Or use --seeds 0.") from error
    print(
        f"PyTorch {torch.__version__} and JAX {jax.__version__} ({jax.default_backend()}) on "
        f"{data.name}: largest differences\n"
    )
    runs = trainings.four_runs(data, config)
    steps = epochs * steps_per_epoch(config, len(data.train.labels))
    lines = single_steps(data, config) + whole_training(runs, steps)
    rows = [(line.what, *(f"{x:.1e}" if x else "0" for x in line[1:])) for line in lines]
    print(text.table([("", "float64", "at most", "float32", "at most"), *rows]))
    drift = trainings.float32_drift(runs, "weights")
    print(
        f"\nfloat32 parameters drift from float64's by {drift.torch:.1e} in PyTorch, "
        f"{drift.jax:.1e} in JAX.\nTest accuracy in float32: "
        f"{runs.torch32.test_accuracy:.2%} in PyTorch, {runs.jax32.test_accuracy:.2%} in JAX."
    )
    within = (x.float64 <= x.tolerance64 and x.float32 <= x.tolerance32 for x in lines)
    holds = all(within) and drift.alike
    if seeds:
        holds = compare_independent(data, seeds, stored) and holds
    return 0 if holds else 1


def compare_independent(data: Dataset, count: int, stored: Sequence[dict[str, Any]]) -> bool:
    """Trains as many networks, and prints how they compare; whether they are equivalent."""
    score = trainings.jax_seeds(data, range(count), Config())[-1]
    loss, accuracy = trainings.compare_seeds(score, stored)
    rows = [("", "PyTorch", "JAX", "difference", "90 % interval", "margin")]
    parts = ("test loss, nats", 1, 4, loss), ("test accuracy, %", 100, 2, accuracy)
    for what, unit, digits, test in parts:
        plain, signed = (test.theirs, test.ours, test.margin), (test.ours - test.theirs, *test[3:5])
        theirs, ours, margin = (f"{unit * x:.{digits}f}" for x in plain)
        difference, low, high = (f"{unit * x:+.{digits}f}" for x in signed)
        rows.append((what, theirs, ours, difference, f"{low} to {high}", f"±{margin}"))
    print(f"\nIndependent trainings, {len(stored)} in PyTorch and {count} in JAX\n")
    print(text.table(rows))
    return all(test.p < tolerances.ALPHA for test in (loss, accuracy))
