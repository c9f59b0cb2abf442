"""Sweeps: that each member is what its single run is, and that what is said of them is true."""

from __future__ import annotations

import dataclasses
import itertools
import json
import math
import os
import re
import subprocess
import sys
from pathlib import Path

import jax
import numpy as np
import pytest
from matplotlib.colors import to_hex
from safetensors.numpy import load_file

from flax_mnist import Config, Dataset, evaluate, init_state, train_epoch
from flax_mnist.cli.main import main
from flax_mnist.data.dataset import DIGITS, Split
from flax_mnist.data.order import epoch_order
from flax_mnist.devices.memory import (
    MEMORY_SHARE,
    Plan,
    make_plan,
    member_bytes,
    memory,
    shared_bytes,
)
from flax_mnist.errors import RequestError
from flax_mnist.model import make_model
from flax_mnist.runs import sweeping
from flax_mnist.runs.sweeping import Trained, fit
from flax_mnist.show.curves import draw_sweep
from flax_mnist.store.metrics import Metrics, read_metrics
from flax_mnist.store.record import read_config
from flax_mnist.sweep import Outcome, collect, combinations, outcomes_of
from flax_mnist.train import make_optimizer
from tests.helpers.idx_files import write_idx_dir

jax.devices()  # JAX is in use from now on: no test changes how many devices there are

SMALL = Config(epochs=2, hidden_sizes=(16,))  # and 1,000 images: the last batch is ragged
FLOAT64 = 1e-12
FLOAT32 = 1e-5
"""Of 32 steps: roundings make 1e-7, a learning rate that is 1 % off makes 1e-4."""


@pytest.fixture(scope="module")
def dataset(digits) -> Dataset:
    train, test = (
        Split(digits[f"{split}_images"], digits[f"{split}_labels"].astype(np.int32))
        for split in ("train", "test")
    )
    return Dataset("synthetic", "a test", DIGITS, train, test)


def run_sweep(members, dataset, together, free=math.inf) -> list[sweeping.Epoch]:
    plan = make_plan(members, dataset, jax.devices(), free)
    return list(fit(plan, dataset, sweeping.compile_programs(plan, dataset, together)))


def single_run(config: Config, dataset: Dataset) -> tuple:
    """Its parameters, and training loss, test loss and test accuracy of each epoch."""
    model, optimizer = make_model(config), make_optimizer(config)
    state, history = init_state(config), []
    for epoch in range(config.epochs):
        order = epoch_order(config.seed, epoch, len(dataset.train.labels))
        state, loss = train_epoch(
            state, *dataset.train, order,
            model=model, optimizer=optimizer, batch_size=config.batch_size,
        )  # fmt: skip
        history.append((loss, *evaluate(state.params, *dataset.test, model=model)))
    return state.params, np.array(history, np.float64)


def member(trained: Trained, i: int):
    return jax.tree.map(lambda leaf: leaf[i], trained.params)


def values(metrics: Metrics) -> tuple[float, float, float]:
    return metrics.train_loss, metrics.test_loss, metrics.test_accuracy


# ---- Members --------------------------------------------------------------------------------


@pytest.mark.parametrize("together", [False, True], ids=["one by one", "vmap"])
def test_a_member_is_its_single_run(dataset, together):
    config = dataclasses.replace(SMALL, epochs=3, precision="float64")
    members = combinations(config, (0.003, 0.05), (0.0, 0.9), seeds=2)
    with jax.enable_x64(True):
        epochs = run_sweep(members, dataset, together)
        assert [(e.group, e.trained is not None) for e in epochs] == [
            (0, False), (0, False), (0, True),
        ]  # fmt: skip
        for i in (0, 7):
            params, history = single_run(members[i], dataset)
            jax.tree.map(
                lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=FLOAT64),
                member(epochs[-1].trained, i),
                params,
            )
            ours = np.array([values(epoch.rows[i][1]) for epoch in epochs])
            np.testing.assert_allclose(ours[:, :2], history[:, :2], rtol=0, atol=FLOAT64)
            np.testing.assert_allclose(ours[:, 2], history[:, 2], atol=1e-6)
            assert [epoch.rows[i][0] for epoch in epochs] == [members[i]] * 3
    assert [epoch.rows[0][1].step for epoch in epochs] == [16, 32, 48]


@pytest.fixture(scope="module")
def grouped(dataset) -> list[sweeping.Epoch]:
    """Five members, of whom the first three can learn; two fit at a time."""
    members = combinations(SMALL, (0.01,), (0.9,), seeds=3)
    members += combinations(SMALL, (1e30,), (0.0,), seeds=2)
    config = dataclasses.replace(members[0], momentum=0.9)
    room = shared_bytes(config, dataset) + 2.5 * member_bytes(config, dataset)
    return run_sweep(members, dataset, together=True, free=room)


def test_groups_give_what_single_runs_give(grouped, dataset):
    assert [(e.group, len(e.rows), e.trained is not None) for e in grouped] == [
        (0, 2, False), (0, 2, True), (1, 2, False), (1, 2, True), (2, 1, False), (2, 1, True),
    ]  # fmt: skip
    for seed, (first, last, place) in enumerate(((0, 1, 0), (0, 1, 1), (2, 3, 0))):
        config = dataclasses.replace(SMALL, learning_rate=0.01, momentum=0.9, seed=seed)
        params, history = single_run(config, dataset)
        ours = [grouped[number].rows[place] for number in (first, last)]
        assert [member for member, _ in ours] == [config] * 2
        got = [values(metrics) for _, metrics in ours]
        np.testing.assert_allclose(got, history, rtol=0, atol=FLOAT32)
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=0, atol=FLOAT32),
            member(grouped[last].trained, place),
            params,
        )


def test_a_member_that_diverges_does_so_alone(grouped):
    lost = [bool(np.isnan(values(metrics)).all()) for e in grouped[2:4] for _, metrics in e.rows]
    assert lost == [False, True] * 2  # what its neighbour came to is tested above
    assert np.isnan([values(metrics) for e in grouped[4:] for _, metrics in e.rows]).all()


@pytest.fixture(scope="module")
def three(dataset) -> tuple[Plan, sweeping.Programs]:
    """What trains three seeds for two epochs."""
    members = combinations(SMALL, (0.05,), (0.9,), 3)
    plan = make_plan(members, dataset, jax.devices(), math.inf)
    return plan, sweeping.compile_programs(plan, dataset, together=False)


def test_once_diverged_is_for_ever(three, dataset):
    plan, programs = three
    losses = iter((1.0, math.inf, 1.0))

    def train(own, images, labels):
        state, _ = programs.train(own, images, labels)
        return state, np.array([1.0, next(losses), 1.0])

    plan = plan._replace(template=dataclasses.replace(plan.template, epochs=3))
    diverged = [
        [bool(np.isnan(values(metrics)).all()) for _, metrics in epoch.rows]
        for epoch in fit(plan, dataset, programs._replace(train=train))
    ]
    assert diverged == [[False, False, False], [False, True, False], [False, True, False]]


def test_the_seconds_are_shared(three, dataset, monkeypatch):
    clock = itertools.count(step=6.0)
    monkeypatch.setattr(sweeping.time, "perf_counter", lambda: next(clock))
    for epoch in fit(three[0], dataset, three[1]):
        for _, metrics in epoch.rows:
            assert (metrics.seconds, metrics.images_per_second) == (2.0, 500.0)


def test_combinations_are_the_product_each_once():
    members = combinations(Config(seed=5, epochs=2), (0.1, 0.2, 0.1), (0.0, 0.9), 2)
    assert [(m.learning_rate, m.momentum, m.seed) for m in members] == [
        (0.1, 0.0, 5), (0.1, 0.0, 6), (0.1, 0.9, 5), (0.1, 0.9, 6),
        (0.2, 0.0, 5), (0.2, 0.0, 6), (0.2, 0.9, 5), (0.2, 0.9, 6),
    ]  # fmt: skip
    assert {m.epochs for m in members} == {2}
    for rates, momenta, seeds in (((), (0.0,), 1), ((0.1,), (), 1), ((0.1,), (0.0,), 0)):
        with pytest.raises(RequestError, match="at least 1"):
            combinations(Config(), rates, momenta, seeds)
    with pytest.raises(RequestError, match=r"momentum is 1\.5"):
        combinations(Config(), (0.1,), (1.5,), 1)


# ---- Memory ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "config",
    [
        Config(momentum=0.9),
        Config(hidden_sizes=(16,), batch_size=1000, precision="float64"),
    ],
    ids=["much state", "large batch"],
)
def test_the_estimate_is_what_the_compiler_needs(dataset, config):
    with jax.enable_x64(config.precision == "float64"):
        plan = make_plan([config] * 8, dataset, jax.devices()[:1], math.inf)
        needed = sweeping.compile_programs(plan, dataset, together=True).train.memory_analysis()
    images = sum(array.nbytes for array in dataset.train)
    state, rest = needed.output_size_in_bytes, needed.temp_size_in_bytes
    member = (needed.argument_size_in_bytes - images + state + rest) / 8
    assert 0.95 < member_bytes(config, dataset) / member < 1.5
    assert plan.bytes > 8 * member + images


def test_what_does_not_fit_is_cut_evenly(dataset):
    members, devices = [Config(seed=i) for i in range(24)], jax.devices()
    each, shared = (f(members[0], dataset) for f in (member_bytes, shared_bytes))

    def sizes(free: float, count: int = 1) -> list[int]:
        return [len(g) for g in make_plan(members, dataset, devices[:1] * count, free).groups]

    assert sizes(math.inf) == sizes(shared + 24 * each) == [24]
    assert sizes(shared + 23.5 * each) == [12, 12]
    assert sizes(shared + 10 * each) == [8, 8, 8]
    assert sizes(shared + 7 * each) == [6, 6, 6, 6]
    assert sizes(shared + 1 * each) == sizes(0) == [1] * 24  # one must be tried
    plan = make_plan(members, dataset, devices, shared + 10 * each)
    assert [config for group in plan.groups for config in group] == members
    assert plan.bytes <= shared + 10 * each


@pytest.mark.skipif(not Path("/proc/meminfo").exists(), reason="reads Linux's /proc")
def test_a_cpus_memory_is_the_machines():
    kilobytes = re.search(r"MemTotal:\s+(\d+) kB", Path("/proc/meminfo").read_text())
    expected = MEMORY_SHARE * 1024 * int(kilobytes[1]) / len(jax.devices())
    assert memory(jax.devices()[0]) == pytest.approx(expected, rel=0.01)


def test_an_accelerators_memory_is_its_own():
    class Gpu:
        platform = "gpu"

        def memory_stats(self):
            return {"bytes_limit": 1000}

    assert memory(Gpu()) == 500


# ---- Outcomes -------------------------------------------------------------------------------


def metrics_of(test_loss: float, test_accuracy: float = 0.5, epoch: int = 1) -> Metrics:
    return Metrics(epoch, 16 * epoch, 2 * test_loss, test_loss, test_accuracy, 0.5, 2000.0)


def ended(rows: sweeping.Rows, probabilities=None) -> sweeping.Epoch:
    """A group at its end, whose parameters are the members' numbers."""
    numbers = np.arange(len(rows), dtype=np.float32)
    if probabilities is None:
        probabilities = np.full((len(rows), 3, 10), 0.1, np.float32)
    return sweeping.Epoch(0, rows, Trained({"Dense_0": {"bias": numbers}}, probabilities))


def test_the_ensemble_is_the_mean_of_the_probabilities(three, dataset):
    plan, programs = three
    (members,) = plan.groups
    _, epoch = fit(plan, dataset, programs)
    outcomes = outcomes_of(members)
    collect(outcomes, epoch)
    images, labels = dataset.test
    total = np.zeros((len(labels), 10))
    for i in range(3):
        params = member(epoch.trained, i)
        x = (images.reshape(-1, 784) / 255 - 0.5) / 0.5
        for number in range(2):
            layer = params[f"Dense_{number}"]
            x = x @ layer["kernel"].astype(np.float64) + layer["bias"]
            x = np.exp(x) if number else np.maximum(x, 0)
        total += x / x.sum(-1, keepdims=True)
    expected = np.mean(total.argmax(-1) == labels)
    single = [metrics.test_accuracy for _, metrics in epoch.rows]
    assert expected not in single, "the test could not tell an ensemble from a member"
    outcome = outcomes[0.05, 0.9]
    assert outcome.ensemble_accuracy(labels) == pytest.approx(expected, abs=1e-9)
    assert outcome.test_accuracies == single


def test_a_settings_outcome_is_that_of_its_members():
    first, second = Config(learning_rate=0.1), Config(learning_rate=0.1, seed=1)
    third, other = Config(learning_rate=0.1, seed=2), Config(learning_rate=0.2)
    outcomes = outcomes_of([first, second, third, other])
    votes = np.zeros((3, 3, 10))
    votes[0, :, 1], votes[1, :, 1], votes[2, :, 7] = 0.6, 0.9, 1.0
    collect(outcomes, ended([(first, metrics_of(3.0)), (other, metrics_of(0.1))]))
    outcomes[0.1, 0.0].probabilities = 0.0
    collect(
        outcomes,
        ended([(second, metrics_of(1.0)), (first, metrics_of(2.0)), (third, metrics_of(math.nan))],
              votes),
    )  # fmt: skip
    outcome = outcomes[0.1, 0.0]
    assert outcome.test_losses == [3.0, 1.0, 2.0]
    assert outcome.best[0] == second
    assert float(outcome.best[1]["Dense_0"]["bias"]) == 0
    assert outcome.diverged == 1
    assert outcome.rank == (1, 2.0)
    assert outcome.ensemble_accuracy(np.array([1, 1, 7])) == pytest.approx(2 / 3)
    unfinished = sweeping.Epoch(0, [(first, metrics_of(9.0))], None)
    collect(outcomes, unfinished)
    assert len(outcome.test_losses) == 3


def test_few_that_diverge_come_before_a_low_loss():
    ranked = [
        Outcome(0.1, 0, diverged=0, test_losses=[0.3, 0.5]),
        Outcome(0.2, 0, diverged=0, test_losses=[0.1, 0.8]),
        Outcome(0.3, 0, diverged=1, test_losses=[0.01]),
        Outcome(0.4, 0, diverged=2),
    ]
    assert sorted([ranked[i] for i in (2, 0, 3, 1)], key=lambda outcome: outcome.rank) == ranked


def test_the_picture_shows_each_member_and_the_means():
    rows = [
        (Config(learning_rate=rate, seed=seed), metrics_of(loss, epoch=epoch))
        for epoch in (1, 2)
        for rate, seed, loss in (
            (0.1, 0, 1.0 / epoch), (0.1, 1, 3.0 / epoch),
            (0.2, 0, 2.0), (0.2, 1, 5.0 if epoch == 1 else math.nan),
        )
    ]  # fmt: skip
    figure = draw_sweep(rows)
    train, test = figure.axes
    drawn = [line.get_ydata().tolist() for line in test.lines]
    assert drawn[:3] == [[1.0, 0.5], [3.0, 1.5], [2.0, 1.0]]
    assert drawn[3] == drawn[5] == [2.0, 2.0]  # a member, and the mean of those that go on
    assert drawn[4][0] == 5.0
    assert math.isnan(drawn[4][1])
    assert train.lines[2].get_ydata().tolist() == [4.0, 2.0]
    colours = [to_hex(line.get_color()) for line in test.lines]
    assert len(set(colours[:3])) == len(set(colours[3:])) == 1
    assert colours[0] != colours[3]
    said = [text.get_text() for text in figure.legends[0].get_texts()]
    assert said == ["0.1", "0.2 (1 diverged)"]


# ---- The command ----------------------------------------------------------------------------


def rows_of(folder: Path) -> list[dict]:
    def refuse(constant: str) -> None:
        raise AssertionError(f"{constant} is no JSON")

    lines = (folder / "sweep.jsonl").read_text().splitlines()
    return [json.loads(line, parse_constant=refuse) for line in lines]


FIVE_CORES = """
import sys
from flax_mnist.cli import main as cli
from flax_mnist.devices import memory
memory.cpu_devices = lambda members: 5
sys.exit(cli.main())
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory, digits) -> Path:
    """A sweep of twelve members over five devices, which they do not divide evenly."""
    folder = tmp_path_factory.mktemp("sweep")
    write_idx_dir(folder / "idx", digits)
    done = subprocess.run(
        [sys.executable, "-c", FIVE_CORES, "sweep", "--data-dir", "idx", "--dataset", "mnist",
         "--learning-rates", "0.003", "0.01", "1e30", "--momenta", "0", "0.9", "--seeds", "2",
         "--seed", "3", "--epochs", "2", "--hidden-sizes", "16", "--run-dir", "out"],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    (folder / "stdout").write_text(done.stdout, encoding="utf-8")
    return folder / "out"


def test_the_file_has_a_line_for_each_member_and_epoch(swept, dataset):
    rows = rows_of(swept)
    assert len(rows) == 24
    assert set(rows[0]) == {
        "learning_rate", "momentum", "seed", *Metrics._fields, "diverged", "dataset",
    }  # fmt: skip
    for row in rows:
        assert row["diverged"] == (row["learning_rate"] == 1e30)
        assert row["dataset"] == "mnist"
        for name in ("train_loss", "test_loss", "test_accuracy"):
            assert (row[name] is None) == row["diverged"]
        assert row["images_per_second"] == pytest.approx(1000 / row["seconds"], rel=0.01)
    for number in (6, 7):
        setting = {name: rows[number][name] for name in ("learning_rate", "momentum", "seed")}
        _, history = single_run(dataclasses.replace(SMALL, **setting), dataset)
        ours = [[row[k] for k in ("train_loss", "test_loss", "test_accuracy")]
                for row in (rows[number], rows[number + 12])]  # fmt: skip
        np.testing.assert_allclose(ours, history, rtol=0, atol=FLOAT32)


def test_the_table_has_means_and_spreads_and_marks_the_best(swept):
    said = (swept.parent / "stdout").read_text(encoding="utf-8")
    assert "12 members at once on 5 x cpu" in said
    table = [line.split() for line in said.splitlines() if re.match(r" +(0\.0|1e)", line)]
    assert len(table) == 6
    last = [row for row in rows_of(swept) if row["epoch"] == 2]
    means = {}
    for i, line in enumerate(table[:4]):
        pair = last[2 * i : 2 * i + 2]
        assert line[:2] == [f"{pair[0]['learning_rate']:g}", f"{pair[0]['momentum']:g}"]
        losses, correct = ([row[k] for row in pair] for k in ("test_loss", "test_accuracy"))
        assert float(line[2]) == pytest.approx(np.mean(losses), abs=6e-5)
        assert float(line[3]) == pytest.approx(np.std(losses, ddof=1), abs=6e-5)
        assert float(line[4].rstrip("%")) == pytest.approx(100 * np.mean(correct), abs=6e-3)
        assert float(line[5].rstrip("%")) == pytest.approx(100 * np.std(correct, ddof=1), abs=6e-3)
        assert 0 < float(line[6].rstrip("%")) <= 100
        means[i] = np.mean(losses)
    assert [line[-1] == "best" for line in table[:4]] == [
        means[i] == min(means.values()) for i in range(4)
    ]
    assert [line[2:] for line in table[4:]] == [[*"-----", "2", "of", "2", "diverged"]] * 2


def test_the_best_member_is_kept_as_a_run_that_can_be_repeated(swept, dataset, capsys):
    last = [row for row in rows_of(swept) if row["epoch"] == 2 and not row["diverged"]]
    best = min(last, key=lambda row: row["test_loss"])
    record = read_config(swept / "best")
    setting = {name: best[name] for name in ("learning_rate", "momentum", "seed")}
    assert record.config == dataclasses.replace(SMALL, **setting)
    assert read_metrics(swept / "best")[-1].test_loss == best["test_loss"]
    assert len(read_metrics(swept / "best")) == 2
    params, _ = single_run(record.config, dataset)
    weights = load_file(swept / "best" / "weights.safetensors")
    for i in range(2):
        kernel = np.asarray(params[f"Dense_{i}"]["kernel"])
        np.testing.assert_allclose(weights[f"{2 * i}.weight"], kernel.T, rtol=0, atol=FLOAT32)
    assert main(["evaluate", str(swept / "best")]) == 0
    expected = f"test loss {best['test_loss']:.4f}  test accuracy {best['test_accuracy']:.2%}"
    assert expected in capsys.readouterr().out
    assert main(["predict", str(swept / "best"), "--index", "0"]) == 0
    assert {"best", "loss.png", "sweep.jsonl"} <= {path.name for path in swept.iterdir()}
    assert (swept / "best" / "loss.png").exists()


def test_a_sweep_is_not_overwritten(swept, capsys):
    before = (swept / "sweep.jsonl").read_bytes()
    asked = ["sweep", "--data-dir", str(swept.parent / "idx"), "--run-dir", str(swept)]
    assert main(asked) == 2
    assert "holds a run already" in capsys.readouterr().err
    assert (swept / "sweep.jsonl").read_bytes() == before


def test_where_all_diverge_there_is_no_best(idx_dir, tmp_path, capsys, monkeypatch):
    def lose_all(plan, *_):
        rows = [(config, metrics_of(math.nan, math.nan)) for config in plan.groups[0]]
        return iter([ended(rows)])

    monkeypatch.setattr(sweeping, "compile_programs", lambda *_, **__: None)
    monkeypatch.setattr(sweeping, "fit", lose_all)
    asked = ["sweep", "--data-dir", str(idx_dir), "--run-dir", str(tmp_path / "out"),
             "--learning-rates", "1e29", "1e30", "--seeds", "1", "--epochs", "1"]  # fmt: skip
    assert main(asked) == 1
    said = capsys.readouterr()
    assert "Every member diverged" in said.err
    assert "below 1e+29" in said.err
    assert said.out.count("1 of 1 diverged") == 2
    assert not (tmp_path / "out" / "best").exists()
    assert [row["test_loss"] for row in rows_of(tmp_path / "out")] == [None, None]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--seeds", "0"), "seeds: there must be at least 1."),
        (("--learning-rates",), "learning-rates: there must be at least 1."),
        (("--learning-rates", "0.1", "-1"), "learning-rate is -1.0"),
        (("--learning-rate", "0.1"), "--learning-rate"),
        (("--seed", "4294967295"), "seed is 4294967296"),
    ],
)
def test_a_wrong_request_is_refused(capsys, flags, reason):
    assert main(["sweep", *flags]) == 2
    said = capsys.readouterr()
    assert reason in said.err
    assert said.out == ""
