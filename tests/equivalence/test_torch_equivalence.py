"""The ladder: the JAX program computes what the PyTorch tutorial computes, rung by rung.

`benchmarks/equivalence.py` measures the differences of rungs 2 to 7 and 9 to 11 and states their
tolerances; `python -m benchmarks.equivalence` prints them. A rung asserts them on real MNIST, or on
the built-in digits where that is not at hand. The negative controls put a mistake into the program
and show that the rung's own check notices.
"""

from __future__ import annotations

import dataclasses
import functools
from collections.abc import Callable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.stats
import torch
from PIL import Image

from benchmarks import equivalence, torch_seeds
from benchmarks import torch_reference as reference
from benchmarks.equivalence import first, ulps
from flax_mnist import model, train
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import epoch_order
from flax_mnist.evaluation import Evaluation
from flax_mnist.store.weights import StateDict, from_torch_state_dict, to_torch_state_dict

DRAWS = 100
"""Networks a side: 10,035,200 weights of the first layer, 1,000 biases of the last."""
KS_SIZE = 100_000
"""Of them a test looks at so many: enough to tell distribution functions 1 % apart."""
KS_LEVEL = 1e-3
"""The seeds are fixed, so a p-value is a constant; a wrong rule's is 0 to many digits."""
EXTREME_MISSES = 30
"""n draws come as near to a bound as 30/n of the range, but for a chance of exp(-30)."""
BOUND_ROUNDING = 1e-7
"""Relative: the bound itself is rounded to float32, by 6e-8 of it at most."""
LOADER = 1e-6
"""Rounding of 48 float32 steps; another order of the same images is 1,000 times that away."""
COMPILED = 16
"""ulps: a compiler may fuse a product and a sum and so leave one rounding out a step."""

PRECISIONS = (Config(precision="float64"), Config(precision="float32"))
JAX_SEEDS = range(24)


@pytest.fixture(autouse=True, scope="module")
def one_thread() -> Iterator[None]:
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    yield
    torch.set_num_threads(threads)


@pytest.fixture(scope="module")
def runs(full_dataset: Dataset) -> equivalence.Runs:
    return equivalence.four_runs(full_dataset, Config())


@pytest.fixture(scope="module")
def scores(full_dataset: Dataset) -> list[Evaluation]:
    return equivalence.jax_seeds(full_dataset, JAX_SEEDS, Config())


def shortened(data: Dataset, n: int) -> Dataset:
    return data._replace(train=first(data.train, n), test=first(data.test, 1000))


def require(what: str, measured: float, tolerance: float) -> None:
    assert measured <= tolerance, f"{what}: {measured:.3g} is above {tolerance:.3g}"


# ---- the checks, which the rungs and the negative controls share: all take the dataset --------


def check_initialisation(data: Dataset) -> None:
    ours = [to_torch_state_dict(train.init_state(Config(seed=s)).params) for s in range(DRAWS)]
    theirs = [equivalence.torch_weights(seed, Config()) for seed in range(DRAWS)]
    for name in theirs[0]:
        a, b = (np.stack([draw[name] for draw in side]) for side in (ours, theirs))
        assert a.shape == b.shape
        bound = theirs[0][name.replace("bias", "weight")].shape[1] ** -0.5
        uniform = scipy.stats.uniform(-bound, 2 * bound).cdf
        sample = functools.partial(np.random.default_rng(0).choice, size=KS_SIZE)
        few_a, few_b = (x.ravel() if x.size <= KS_SIZE else sample(x.ravel()) for x in (a, b))
        for p in (
            scipy.stats.ks_2samp(few_a, few_b).pvalue,
            scipy.stats.ks_1samp(few_a, uniform).pvalue,
            scipy.stats.ks_1samp(few_b, uniform).pvalue,
        ):
            assert p > KS_LEVEL, f"initial {name}: other distributions, p = {p:.1e}"
        reach = 2 * EXTREME_MISSES / a.size
        for side in (a, b):
            extremes = np.array([-side.min(), side.max()], np.float64) / bound
            require(f"initial {name}: beyond the bound", extremes.max(), 1 + BOUND_ROUNDING)
            require(f"initial {name}: short of the bound", 1 - extremes.min(), reach)


def check_inputs(data: Dataset) -> None:
    for config in PRECISIONS:
        what = f"inputs in {config.precision}"
        require(what, equivalence.input_difference(config), equivalence.INPUTS)
    pixels = np.arange(256, dtype=np.uint8).reshape(16, 16)
    theirs = reference.transform(Image.fromarray(pixels)).numpy().reshape(1, 256)
    np.testing.assert_array_equal(jax.jit(model.normalize)(pixels[None]), theirs, "inputs")


def check_forward(data: Dataset) -> None:
    # A square layer without its transpose has the right shape.
    for config in (
        dataclasses.replace(c, hidden_sizes=h) for c in PRECISIONS for h in ((128, 64), (64, 64))
    ):
        measured = equivalence.forward_difference(
            equivalence.torch_weights(0, config), data.test, config
        )
        require("forward", measured, ulps(equivalence.FORWARD, config.precision))


def check_loss(data: Dataset) -> None:
    for config in PRECISIONS:
        measured = equivalence.loss_difference(config)
        require("loss", measured, ulps(equivalence.LOSS, config.precision))


def check_gradients(data: Dataset) -> None:
    weights, batch = equivalence.torch_weights(0, Config()), first(data.train, 64)
    # Half of the first layer's units are at exactly 0, where relu has no derivative.
    at_zero = {name: array.copy() for name, array in weights.items()}
    at_zero["0.weight"][::2] = at_zero["0.bias"][::2] = 0
    for config in PRECISIONS:
        for start in (weights, at_zero):
            measured = equivalence.gradient_difference(start, batch, config)
            require("gradients", measured, ulps(equivalence.GRADIENTS, config.precision))


def check_step(data: Dataset) -> None:
    weights, batch = equivalence.torch_weights(0, Config()), first(data.train, 64)
    # The first step has no velocity yet.
    for momentum, steps in ((0.0, 1), (0.9, 3)):
        for config in (dataclasses.replace(config, momentum=momentum) for config in PRECISIONS):
            measured = equivalence.step_difference(weights, batch, config, steps)
            require("step", measured, ulps(equivalence.STEP, config.precision))


def check_ragged_batch(data: Dataset) -> None:
    weights, short = equivalence.torch_weights(0, Config()), shortened(data, 64 + 32)
    order = epoch_order(0, 0, 96)
    for config in PRECISIONS:
        ours = equivalence.jax_run(weights, short, [order], config)
        theirs = equivalence.torch_run(weights, short, [order], config)
        for what in ("losses", "weights"):
            measured = equivalence.difference(getattr(ours, what), getattr(theirs, what))
            require(f"ragged batch, {what}", measured, ulps(equivalence.STEP, config.precision))


def check_batches(data: Dataset) -> None:
    weights, short = equivalence.torch_weights(0, Config()), shortened(data, 1000)
    network = equivalence.in_torch(weights, Config())
    loader = reference.tutorial_loader(*short.train, generator=torch.Generator().manual_seed(7))
    losses = reference.train_tutorial(network, loader, epochs=3, report=lambda line: None)

    generator = torch.Generator().manual_seed(7)
    orders = [reference.dataloader_order(1000, generator) for _ in range(3)]
    ours = equivalence.jax_run(weights, short, orders, Config())
    require("batches, losses", equivalence.difference(ours.losses, losses), LOADER)
    theirs = equivalence.torch_arrays(network)
    require("batches, weights", equivalence.difference(ours.weights, theirs), LOADER)


def check_float64_training(runs: equivalence.Runs) -> None:
    for what in ("weights", "losses"):
        measured = equivalence.difference(getattr(runs.jax64, what), getattr(runs.torch64, what))
        require(f"float64 training, {what}", measured, equivalence.EPOCHS_FLOAT64)


def check_float32_training(runs: equivalence.Runs) -> None:
    for what in ("weights", "losses"):
        drift = equivalence.float32_drift(runs, what)
        require(f"float32 training, {what} between frameworks", drift.between, drift.allowed)
    drift = equivalence.float32_drift(runs, "weights")
    assert drift.alike, f"float32 training: own drifts are not alike: {drift}"


def check_independent_runs(data: Dataset, score: Evaluation) -> None:
    for what, test in zip(
        ("test loss", "test accuracy"),
        equivalence.compare_seeds(score, torch_seeds.load(data)),
        strict=True,
    ):
        require(f"independent runs, {what}: p", test.p, equivalence.ALPHA)


# ---- the rungs --------------------------------------------------------------------------------


def test_rung_01_initialisation(full_dataset):
    check_initialisation(full_dataset)


def test_rung_02_pixels_to_inputs(full_dataset):
    check_inputs(full_dataset)


def test_rung_03_forward(full_dataset):
    check_forward(full_dataset)


def test_rung_04_loss(full_dataset):
    check_loss(full_dataset)


def test_rung_05_gradients(full_dataset):
    check_gradients(full_dataset)


def test_rung_06_sgd_step(full_dataset):
    check_step(full_dataset)


def test_rung_07_ragged_batch(full_dataset):
    check_ragged_batch(full_dataset)


def test_rung_08_batches_of_the_dataloader(full_dataset):
    check_batches(full_dataset)


@pytest.mark.long
def test_rung_09_five_epochs_in_float64(runs):
    assert len(runs.jax64.losses) == 5
    assert runs.jax64.losses[4] < 0.4 < 1 < runs.jax64.losses[0], "it did not train"
    check_float64_training(runs)


@pytest.mark.long
def test_rung_10_five_epochs_in_float32(runs):
    check_float32_training(runs)


@pytest.mark.long
def test_rung_11_independent_runs(full_dataset, scores):
    assert len(torch_seeds.load(full_dataset)) >= 20
    assert len(JAX_SEEDS) >= 20
    check_independent_runs(full_dataset, scores[-1])


# ---- negative controls ------------------------------------------------------------------------


def short_runs(data: Dataset) -> equivalence.Runs:
    """50 full batches and one of 32."""
    return equivalence.four_runs(shortened(data, 50 * 64 + 32), Config(epochs=1))


def check_short_float64(data: Dataset) -> None:
    check_float64_training(short_runs(data))


def check_short_float32(data: Dataset) -> None:
    check_float32_training(short_runs(data))


def faster(patch: pytest.MonkeyPatch) -> None:
    sgd = train.sgd
    patch.setattr(train, "sgd", lambda rate, momentum: sgd(1.01 * rate, momentum))


def rate_in_float32(patch: pytest.MonkeyPatch) -> None:
    sgd = train.sgd
    patch.setattr(train, "sgd", lambda rate, momentum: sgd(float(np.float32(rate)), momentum))


def untransposed(patch: pytest.MonkeyPatch) -> None:
    def wrong(state_dict: StateDict) -> model.Params:
        # Where the shapes of a layer let it pass.
        return jax.tree.map(
            lambda a: a.T if a.ndim == 2 and a.shape[0] == a.shape[1] else a, right(state_dict)
        )

    right = from_torch_state_dict
    patch.setattr(equivalence, "from_torch_state_dict", wrong)


def reshaped(patch: pytest.MonkeyPatch) -> None:
    def wrong(state_dict: StateDict) -> model.Params:
        return jax.tree.map(lambda a: a.T.reshape(a.shape), right(state_dict))

    right = from_torch_state_dict
    patch.setattr(equivalence, "from_torch_state_dict", wrong)


def last_batch_dropped(patch: pytest.MonkeyPatch) -> None:
    def wrong(state, images, labels, order, *, batch_size, **static):
        full = order[: len(order) // batch_size * batch_size]
        return right(state, images, labels, full, batch_size=batch_size, **static)

    right = train.train_epoch
    patch.setattr(train, "train_epoch", wrong)


def losses_weighted_by_size(patch: pytest.MonkeyPatch) -> None:
    def wrong(state, images, labels, order, *, batch_size, **static):
        total = 0.0
        for start in range(0, len(order), batch_size):
            rows = order[start : start + batch_size]
            state, loss = train.train_step(state, images[rows], labels[rows], **static)
            total += loss * len(rows)
        return state, total / len(order)

    patch.setattr(train, "train_epoch", wrong)


def maximum(patch: pytest.MonkeyPatch) -> None:
    patch.setattr(jax.nn, "relu", lambda x: jnp.maximum(x, 0))


def maximum_not_subtracted(patch: pytest.MonkeyPatch) -> None:
    def wrong(x):
        return x - jnp.log(jnp.exp(x).sum(-1, keepdims=True))

    patch.setattr(jax.nn, "log_softmax", wrong)


def flax_initialiser(patch: pytest.MonkeyPatch) -> None:
    right = train.make_model
    patch.setattr(
        train, "make_model", lambda config: right(dataclasses.replace(config, init="flax"))
    )


def from_0_to_1(patch: pytest.MonkeyPatch) -> None:
    right = model.normalize
    patch.setattr(
        model, "normalize", lambda images, dtype=np.float32: right(images, dtype) / 2 + 0.5
    )


def second_permutation_forgotten(patch: pytest.MonkeyPatch) -> None:
    def wrong(n: int, generator: torch.Generator) -> np.ndarray:
        torch.empty((), dtype=torch.int64).random_(generator=generator)
        return torch.randperm(n, generator=generator).numpy().astype(np.int32)

    patch.setattr(reference, "dataloader_order", wrong)


def bfloat16_products(patch: pytest.MonkeyPatch) -> None:
    def wrong(config: Config) -> model.MLP:
        if config.precision == "float32":
            config = dataclasses.replace(config, precision="bfloat16")
        return right(config)

    right = model.make_model
    patch.setattr(model, "make_model", wrong)


Control = tuple[Callable[[pytest.MonkeyPatch], None], Callable[[Dataset], None], str]

CONTROLS: dict[str, Control] = {
    "learning rate +1 %: rung 6": (faster, check_step, "step"),
    "learning rate +1 %: rung 9": (faster, check_short_float64, "float64 training, weights"),
    "learning rate +1 %: rung 10": (faster, check_short_float32, "between frameworks"),
    "learning rate in float32: rung 9": (rate_in_float32, check_short_float64, "float64 training"),
    "missing transpose: rung 3": (untransposed, check_forward, "forward"),
    "reshape for a transpose: rung 3": (reshaped, check_forward, "forward"),
    "last batch dropped: rung 7": (last_batch_dropped, check_ragged_batch, "ragged batch, losses"),
    "losses weighted by size: rung 7": (
        losses_weighted_by_size,
        check_ragged_batch,
        "ragged batch, losses",
    ),
    "maximum(x, 0) for relu: rung 5": (maximum, check_gradients, "gradients: "),
    "log-softmax without the maximum subtracted: rung 4": (
        maximum_not_subtracted,
        check_loss,
        "loss: ",
    ),
    "Flax's initialiser: rung 1": (flax_initialiser, check_initialisation, "initial 0.weight"),
    "inputs in [0, 1]: rung 2": (from_0_to_1, check_inputs, "inputs"),
    "second permutation forgotten: rung 8": (
        second_permutation_forgotten,
        check_batches,
        "batches, losses",
    ),
    "bfloat16 products: rung 10": (bfloat16_products, check_short_float32, "own drifts"),
}


@pytest.fixture
def fresh_traces() -> Iterator[None]:
    """What is compiled with a mistake must not outlive it."""
    jax.clear_caches()
    yield
    jax.clear_caches()


@pytest.mark.parametrize("check", [check_short_float64, check_short_float32])
def test_without_a_mistake_short_trainings_pass(full_dataset, check):
    check(full_dataset)


@pytest.mark.usefixtures("fresh_traces")
@pytest.mark.parametrize(("inject", "check", "message"), CONTROLS.values(), ids=CONTROLS)
def test_control(full_dataset, monkeypatch, inject, check, message):
    inject(monkeypatch)
    with pytest.raises(AssertionError, match=message):
        check(full_dataset)


@pytest.mark.long
def test_control_an_epoch_too_few_is_caught_by_rung_11(full_dataset, scores):
    with pytest.raises(AssertionError, match="independent runs, test loss"):
        check_independent_runs(full_dataset, scores[-2])


# ---- compiled equals eager --------------------------------------------------------------------


@pytest.mark.parametrize(("precision", "momentum"), [("float64", 0.0), ("float32", 0.9)])
def test_compiled_equals_eager(full_dataset, precision, momentum):
    config = Config(precision=precision, momentum=momentum)
    static = {"model": model.make_model(config), "optimizer": train.make_optimizer(config)}
    data, order = first(full_dataset.train, 160), epoch_order(0, 0, 160)

    def scanned(state: train.State) -> tuple:
        return train.train_epoch(state, *data, order, batch_size=64, **static)

    def unrolled(state: train.State) -> tuple:
        total = 0.0
        for rows in np.split(order, [64, 128]):
            state, loss = train.train_step(state, data.images[rows], data.labels[rows], **static)
            total += loss
        return state, total / 3

    with equivalence.in_precision(config):
        results = {
            "scanned, compiled": scanned(train.init_state(config)),
            "unrolled, a compiled step": unrolled(train.init_state(config)),
            "unrolled, one program": jax.jit(unrolled)(train.init_state(config)),
        }
        for name, run in (("scanned, eager", scanned), ("unrolled, eager", unrolled)):
            start = train.init_state(config)
            with jax.disable_jit():
                results[name] = run(start)
        expected = results.pop("unrolled, eager")
        assert equivalence.difference(expected[0], train.init_state(config)) > 1e-3
    for name, result in results.items():
        require(name, equivalence.difference(result, expected), ulps(COMPILED, precision))
