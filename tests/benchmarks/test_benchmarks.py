"""The benchmark: do its rows compute the same, and would it notice if one did not?

Every loop is handed to an independent judge: `flax_mnist.backprop`, the formulas of the tutorial in
float64, replays the epoch from the loop's own first weights and order of images.
"""

from __future__ import annotations

import dataclasses
import json
import statistics
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import jax
import numpy as np
import pytest
import torch

from benchmarks import __main__ as command
from benchmarks import machine, protocol, scoring, table, torch_reference
from benchmarks import statistics as benchmark_statistics
from benchmarks.loops import this_project
from benchmarks.loops.numpy_backprop import Backpropagation
from benchmarks.program import Program, Settings, Weights, epoch_flops
from benchmarks.rows import ROWS, Row, Variant
from benchmarks.stopwatch import time_calls
from flax_mnist import backprop
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset, Split
from flax_mnist.data.order import epoch_order

SEED = 3
SLEEP = 0.002


@pytest.fixture(scope="module")
def dataset(digits: dict[str, np.ndarray]) -> Dataset:
    train, test = (
        Split(digits[f"{s}_images"], digits[f"{s}_labels"].astype(np.int32))
        for s in ("train", "test")
    )
    return Dataset("synthetic", "drawn", (), train, test)


@pytest.fixture
def settings() -> Settings:
    # A rate at which one epoch of 16 steps goes somewhere.
    return Settings(config=Config(learning_rate=0.05, seed=SEED), models=3)


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    # The loops make settings for the whole process, as they may in one of their own.
    names = ("jax_platforms", "jax_default_device", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    yield
    for name, value in before.items():
        jax.config.update(name, value)


# ---- every loop against the formulas ----------------------------------------------------------


def replay(weights: Weights, dataset: Dataset, order: np.ndarray, config: Config) -> Weights:
    """One epoch from these weights in this order, in float64 by the tutorial's formulas."""
    layers = [
        (weights[f"{i}.weight"].T.astype(float), weights[f"{i}.bias"].astype(float))
        for i in range(0, len(weights), 2)
    ]
    images = dataset.train.images.reshape(len(dataset.train.images), -1)
    for start in range(0, len(order), config.batch_size):
        rows = order[start : start + config.batch_size]
        inputs = (images[rows] / 255 - 0.5) / 0.5
        _, gradients = backprop.mlp_gradients(layers, inputs, dataset.train.labels[rows])
        layers = list(backprop.gradient_descent(layers, gradients, config.learning_rate))
    return {f"{2 * i}.weight": np.asarray(kernel).T for i, (kernel, _) in enumerate(layers)} | {
        f"{2 * i}.bias": np.asarray(bias) for i, (_, bias) in enumerate(layers)
    }


def loader_orders(n: int, models: int) -> list[np.ndarray]:
    return [torch_reference.dataloader_order(n, torch.Generator().manual_seed(SEED))]


def torch_orders(n: int, models: int) -> list[np.ndarray]:
    generator = torch.Generator().manual_seed(SEED)
    return [torch.randperm(n, generator=generator).numpy() for _ in range(models)]


def our_orders(n: int, models: int) -> list[np.ndarray]:
    return [epoch_order(SEED + i, 0, n) for i in range(models)]


EXACT = 2e-3
"""Rounding may put an activation on the other side of ReLU's kink: a thousandth of the way."""

LOOPS = [
    ("P1", loader_orders, EXACT),
    ("P2", loader_orders, EXACT),
    ("P3", torch_orders, EXACT),
    ("P4", torch_orders, EXACT),
    ("P5", torch_orders, EXACT),
    ("P8", torch_orders, EXACT),
    ("J1", our_orders, EXACT),
    ("J2", our_orders, EXACT),
    ("J4", our_orders, EXACT),
    ("J5", our_orders, 0.2),
    ("N1", our_orders, EXACT),
]


def row(name: str) -> Row:
    return next(row for row in ROWS if row.name == name)


def start(variant: Variant, dataset: Dataset, settings: Settings) -> Program:
    module, _, name = variant.entry.partition(":")
    made: Program = getattr(sys.modules.get(module) or __import__(module, fromlist=[name]), name)(
        dataset, settings, **variant.options
    )
    return made


@pytest.mark.parametrize(("name", "orders", "tolerance"), LOOPS, ids=[loop[0] for loop in LOOPS])
def test_an_epoch_is_the_tutorials(
    name: str,
    orders: Any,
    tolerance: float,
    dataset: Dataset,
    settings: Settings,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    # What P5 and P6 compile, uncompiled: a minute less. The benchmark scores the compiled one.
    monkeypatch.setattr(torch, "compile", lambda function, **_: function)
    # Exact to rounding: no image is shown twice or left out, no batch cut short, no update missed.
    for variant in row(name).variants:
        if variant.options.get("workers"):
            continue  # it forks, which a process with JAX's threads in it may not survive
        program = start(variant, dataset, settings)
        before = program.weights()
        program.epoch()
        program.wait()
        after = program.weights()
        assert len(after) == program.models == (3 if name in ("P8", "J4") else 1)
        n = len(dataset.train.labels)
        for first, last, order in zip(before, after, orders(n, program.models), strict=True):
            expected = replay(first, dataset, order, settings.config)
            assert distance(last, expected, first) < tolerance
            # The sharpness of the test: one image of the thousand shown twice, another one never.
            order[0] = order[-1]
            wrong = replay(first, dataset, order, settings.config)
            assert distance(wrong, expected, first) > 2 * EXACT


def distance(a: Weights, b: Weights, start: Weights) -> float:
    """Between two ends of a way, as a part of the way."""
    assert a.keys() == b.keys()
    return max(
        float(np.linalg.norm(a[name] - b[name]) / np.linalg.norm(b[name] - start[name]))
        for name in b
    )


def test_all_epochs_at_once_are_the_epochs(dataset: Dataset, settings: Settings) -> None:
    at_once = this_project.AllEpochs(dataset, settings)
    at_once.epoch()
    one_by_one = this_project.EpochScan(dataset, settings)
    for _ in range(settings.config.epochs):
        one_by_one.epoch()
    assert at_once.epochs_per_call == settings.config.epochs
    for a, b in zip(at_once.weights(), one_by_one.weights(), strict=True):
        for key in b:
            np.testing.assert_allclose(a[key], b[key], rtol=0, atol=1e-5)


def test_models_differ(dataset: Dataset, settings: Settings) -> None:
    for name in ("P8", "J4"):
        first, second, *_ = start(row(name).variants[0], dataset, settings).weights()
        assert np.abs(first["0.weight"] - second["0.weight"]).max() > 0.01


def test_the_ceiling_counts_the_steps_products() -> None:
    # 29.1 MFLOP for a batch of 64: three products of each layer, without the images' gradient.
    assert epoch_flops(Config(), 64) == 2 * 64 * (3 * (784 * 128 + 128 * 64 + 64 * 10) - 784 * 128)


def test_ceilings_run(dataset: Dataset, settings: Settings) -> None:
    for name in ("G1", "G2", "G3"):
        for variant in row(name).variants:
            small = dataclasses.replace(variant, options=dict.fromkeys(variant.options, 64))
            program = start(small, dataset, settings)
            assert time_calls(program, 2)[1] > 0
            assert program.weights() == []


# ---- rows that cheat ----------------------------------------------------------------------------


class Slow(Backpropagation):
    def step(self, rows: np.ndarray) -> float:
        time.sleep(SLEEP)
        return super().step(rows)


class Lazy(Backpropagation):
    def step(self, rows: np.ndarray) -> float:
        self.odd = not getattr(self, "odd", False)
        return super().step(rows) if self.odd else 0.0


class Broken(Program):
    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        raise ValueError("on purpose\nand more")


class Dying(Backpropagation):
    def epoch(self) -> None:
        sys.exit(3)


def injected(*names: str) -> tuple[Row, ...]:
    return tuple(
        Row(name, name, "headline", "peers", (Variant(f"tests.benchmarks.test_benchmarks:{name}"),))
        for name in names
    )


HONEST = Row(
    "N1",
    "honest",
    "headline",
    "peers",
    (Variant("benchmarks.loops.numpy_backprop:Backpropagation"),),
)
BRIEF = protocol.Plan(rounds=3, turn_seconds=0.02, settle_seconds=0)


@pytest.fixture(scope="module")
def result(idx_dir_of_module: Path) -> dict[str, Any]:
    """Rows that behave and rows that do not, measured as the command measures them."""
    settings = Settings(
        config=Config(learning_rate=0.05), dataset="mnist", data_dir=str(idx_dir_of_module)
    )
    rows = (HONEST, *injected("Slow", "Lazy", "Broken", "Dying"), row("P7"))
    measured = protocol.measure(rows, settings, BRIEF, 1, lambda _: None)
    honest = measured[0]["scores"][0]
    reference = scoring.Reference(honest[0], honest[1], "the honest row")
    made = {
        "date": "2026-01-01T00:00:00+00:00",
        "settings": dataclasses.asdict(settings),
        "plan": dataclasses.asdict(BRIEF),
        "machine": {
            "device": "a CPU", "platform": "cpu", "cores": 1, "dataset": "mnist", "images": 1000,
            "versions": machine.versions(), "commit": None,
        },
        "rows": [*measured, protocol.left_out(row("P1"), "not in --quick")],
        "reference": reference._asdict(),
        "processes": [],
        "scaling": [],
        "load_average": [0.0, 0.0],
    }  # fmt: skip
    return json.loads(json.dumps(made))  # type: ignore[no-any-return]


@pytest.fixture(scope="module")
def idx_dir_of_module(
    tmp_path_factory: pytest.TempPathFactory, digits: dict[str, np.ndarray]
) -> Path:
    from tests.helpers.idx_files import write_idx_dir

    return write_idx_dir(tmp_path_factory.mktemp("data") / "idx", digits)


def lines_of(result: dict[str, Any]) -> dict[str, table.Line]:
    return {line.name: line for line in table.summarize(result).lines}


def test_a_slowed_step_shows(result: dict[str, Any]) -> None:
    lines = lines_of(result)
    slow, honest = lines["Slow"].step_seconds, lines["N1"].step_seconds
    assert slow
    assert honest
    assert slow.low >= SLEEP  # sleep never returns early
    assert lines["Slow"].status == "ok"
    for turn in result["rows"][1]["turns"]:
        assert min(turn["seconds"]) >= 16 * SLEEP


def test_skipped_batches_are_caught(result: dict[str, Any]) -> None:
    lines = lines_of(result)
    assert lines["N1"].status == "ok"
    assert lines["Lazy"].status == "invalid"
    assert table.cells(lines["Lazy"])[-1] == "INVALID"
    assert "- Lazy: invalid: test accuracy" in table.render(result)


def test_what_did_not_run_is_shown_with_its_reason(result: dict[str, Any]) -> None:
    text = table.render(result)
    for name, status, reason in (
        ("Broken", "failed", "ValueError: on purpose"),
        ("Dying", "failed", "its process ended with code 3"),
        ("P7", "skipped", "CUDA graphs need an NVIDIA GPU"),
        ("P1", "skipped", "not in --quick"),
    ):
        assert lines_of(result)[name].status == status
        assert any(line.startswith(f"| {name} ") for line in text.splitlines())
        assert f"- {name}: {status}: {reason}." in text


def test_the_table_is_aligned_markdown_of_110_columns(result: dict[str, Any]) -> None:
    lines = table.render(result).splitlines()
    drawn = [line for line in lines if line.startswith("|")]
    assert len({line.count("|") for line in drawn}) == 1
    assert len({len(line) for line in drawn}) == 1
    assert max(map(len, lines)) <= table.WIDTH


def test_a_full_table_fits() -> None:
    # The widest that each cell gets on machines of today.
    wide = benchmark_statistics.Estimate(1e6, 0.9e6, 1.1e6)
    line = table.Line(
        "P1", max((r.label for r in ROWS), key=len), "headline", "ours", "skipped",
        step_seconds=benchmark_statistics.Estimate(0.0159, 0, 0), images_per_second=wide,
        to_tutorial=wide._replace(value=45.6), to_pytorch=wide._replace(value=12.34),
        of_products=wide._replace(value=1.2), of_peak=0.123,
        compile_seconds=54.3, memory=1_234_000_000,
    )  # fmt: skip
    assert len(table.markdown(table.HEADER, [table.cells(line)]).splitlines()[0]) <= table.WIDTH


def test_report_makes_the_files_from_the_stored_result(
    result: dict[str, Any], tmp_path: Path
) -> None:
    pytest.importorskip("matplotlib")
    path = tmp_path / "result.json"
    path.write_text(json.dumps(result))
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.report", path],
        cwd=machine.ROOT, capture_output=True, text=True, check=True,
    )  # fmt: skip
    assert path.with_suffix(".md").read_text() == table.render(result) == done.stdout[:-1]
    assert path.with_suffix(".png").read_bytes().startswith(b"\x89PNG")


def test_turns_taken_again_are_told(result: dict[str, Any]) -> None:
    turns = result["rows"][0]["turns"]
    again = {**result, "rows": [{**result["rows"][0], "retaken": turns[:2]}, *result["rows"][1:]]}
    assert "- Turns over 1.25 x their row's best, taken again: N1 2" in table.render(again)


def test_a_row_that_was_held_back_in_most_rounds_is_warned_of(result: dict[str, Any]) -> None:
    def turns(*seconds: float) -> dict[str, Any]:
        return {"turns": [{"seconds": [s, s], "round": i} for i, s in enumerate(seconds)]}

    trials = {"trials": [{"seconds": 1.0}, {"reason": "given up"}]}
    none: dict[str, Any] = {"retaken": []}
    assert table.lagged(turns(2.0, 2.0, 1.0) | none, 1.25)
    assert not table.lagged(turns(2.0, 1.1, 1.0) | none, 1.25)
    assert table.lagged(turns(1.3, 1.3, 1.3) | none | trials, 1.25)
    assert table.lagged(turns(2.0, 2.0) | {"retaken": turns(1.5)["turns"]}, 1.25)
    assert not table.lagged(turns() | none, 1.25)
    slow = result["rows"][0]["turns"][0]
    turned = [slow, *({**slow, "seconds": [9.0], "round": i} for i in (1, 2))]
    rows = [{**result["rows"][0], "turns": turned}, *result["rows"][1:]]
    assert "WARNING: N1 stayed behind" in table.render({**result, "rows": rows})


def test_the_result_keeps_every_sample(result: dict[str, Any]) -> None:
    honest = result["rows"][0]
    assert [turn["round"] for turn in honest["turns"]] == [0, 1, 2]
    assert honest["first_seconds"] > 0
    assert honest["import_seconds"] > 0
    assert honest["peak_memory"] > 1e7
    assert honest["environment"]["OPENBLAS_NUM_THREADS"] == str(honest["threads"])


def test_a_whole_process_is_timed(idx_dir_of_module: Path, tmp_path: Path) -> None:
    settings = Settings(dataset="mnist", data_dir=str(idx_dir_of_module))
    run = protocol.whole_process(row("J2").variants[0], 1, settings, tmp_path / "cache")
    assert run["seconds"] > 0
    assert len(run["scores"]) == 1
    assert list((tmp_path / "cache").iterdir()), "nothing was kept for a warm start"


def test_the_command(
    idx_dir_of_module: Path, tmp_path: Path, capsys: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(command, "FULL", BRIEF)
    arguments = ["--rows", "G3", "P7", "--device", "cpu", "--data-dir", str(idx_dir_of_module)]
    assert command.main([*arguments, "--output", str(tmp_path)]) == 0
    (stored,) = tmp_path.glob("*.json")
    result = json.loads(stored.read_text())
    assert [row["name"] for row in result["rows"]] == ["P7", "G3"]
    assert {"commit", "versions", "environment", "processor"} <= result["machine"].keys()
    assert table.render(result) in capsys.readouterr().out


# ---- the parts ----------------------------------------------------------------------------------


def test_scoring_agrees_with_pytorch(dataset: Dataset) -> None:
    torch.manual_seed(0)
    model = torch_reference.build_model()
    inputs = torch_reference.normalize(dataset.test.images)
    expected = torch_reference.evaluate(model, inputs, torch.tensor(dataset.test.labels).long())
    weights = {name: tensor.numpy() for name, tensor in model.state_dict().items()}
    np.testing.assert_allclose(scoring.score(weights, dataset.test), expected, rtol=1e-5)


@pytest.mark.parametrize(
    ("loss", "accuracy", "valid"),
    [(0.357, 0.898, True), (0.37, 0.905, True), (0.45, 0.898, False), (0.357, 0.88, False),
     (float("nan"), 0.898, False)],
)  # fmt: skip
def test_validity(loss: float, accuracy: float, valid: bool) -> None:
    reference = scoring.Reference(0.357, 0.898, "")
    assert scoring.is_valid([(loss, accuracy)], reference) is valid
    # One wrong model among many is enough.
    assert scoring.is_valid([(0.357, 0.898), (loss, accuracy)], reference) is valid
    assert scoring.is_valid([(loss, accuracy)], None) is None


def test_the_stored_runs_are_the_reference_for_the_tutorials_settings_only() -> None:
    reference = scoring.stored_reference("mnist", Config())
    assert reference
    assert reference.accuracy == pytest.approx(0.898, abs=0.002)
    assert scoring.stored_reference("mnist", Config(batch_size=128)) is None
    assert scoring.stored_reference("kmnist", Config()) is None


def test_estimate_against_every_resample() -> None:
    # With three values there are 27 resamples: the exact distribution of their medians.
    values = [1.0, 2.0, 10.0]
    medians = sorted(statistics.median((a, b, c)) for a in values for b in values for c in values)
    found = benchmark_statistics.estimate(values)
    assert found.value == 2
    assert (found.low, found.high) == (medians[0], medians[-1])
    # The middle value of five is the median of 317 in 625 * 5 resamples; its interval is inside.
    many = benchmark_statistics.estimate(np.random.default_rng(0).normal(5, 1, 400))
    half_width = 1.96 * 1.2533 / 20  # of the median of normal values
    assert many.high - many.low == pytest.approx(2 * half_width, rel=0.25)


def test_ratio_is_taken_round_by_round() -> None:
    # The machine was ten times slower in the second round: no matter.
    slow, fast = {0: 2.0, 1: 20.0, 2: 2.0}, {0: 1.0, 1: 10.0, 2: 1.0, 3: 99.0}
    assert benchmark_statistics.ratio(slow, fast) == (2.0, 2.0, 2.0)
    assert benchmark_statistics.ratio({0: 1.0}, {1: 1.0}) is None


def test_slow_rows_have_fewer_turns_evenly_spread() -> None:
    plan = protocol.Plan(rounds=7, slow_rounds=3)
    assert plan.turns_of(slow=True) == {0, 3, 6}
    assert plan.turns_of(slow=False) == set(range(7))
    assert protocol.Plan(rounds=1, slow_rounds=3).turns_of(slow=True) == {0}


class Scripted:
    """Stands in for a row's process: its next turns take so long."""

    first: ClassVar = {"models": 1}

    def __init__(self, *seconds: float) -> None:
        self.seconds = list(seconds)
        self.is_closed = False

    def ask(self, warm_up: int, calls: int, timeout: float = 0) -> dict[str, Any]:
        turn = [self.seconds.pop(0)] * calls
        return {"seconds": turn, "idle_cpu_seconds": 0.0, "peak_memory": None}

    def close(self) -> None:
        self.is_closed = True


@pytest.mark.parametrize(("again", "threads"), [(0.6, 2), (1.4, 1)])
def test_threads_that_lost_to_one_compete_again(again: float, threads: int) -> None:
    variant = row("N1").variants[0]
    one = protocol.Trial(variant, 1, Scripted(1.1), seconds=1.0)  # type: ignore[arg-type]
    two = protocol.Trial(variant, 2, Scripted(again), seconds=1.5)  # type: ignore[arg-type]
    entrant = protocol.Entrant(row("N1"), protocol.blank(row("N1")), trials=[one, two])
    entrant.choose(one)
    processes = [one.process, two.process]
    assert protocol.reconsider(entrant, protocol.Plan(trial_turns=1, settle_seconds=0))
    assert entrant.result["threads"] == threads
    assert entrant.epoch_seconds == min(again, 1.0)
    assert entrant.process is processes[threads - 1]
    assert [process.is_closed for process in processes] == [threads == 2, threads == 1]  # type: ignore[union-attr]
    assert not protocol.reconsider(entrant, protocol.Plan(trial_turns=1, settle_seconds=0))


def test_a_turn_that_lags_is_taken_again_and_the_faster_counts() -> None:
    plan = protocol.Plan(rounds=4, settle_seconds=0, lag=1.25, retakes=2)
    steady, caught, slow_from_the_start = (
        protocol.Entrant(row("N1"), protocol.blank(row("N1")), Scripted(*seconds), 1.0, best)  # type: ignore[arg-type]
        for best, *seconds in (
            (1.0, 1.2, 1.1, 1.0, 1.2),
            #    as ever; once lagging; all three lagging; as fast as never before
            (1.0, 1.0, 2.0, 1.1, 2.0, 3.0, 2.5, 0.5),
            (2.0, 2.0, 2.0, 2.0, 2.0),
        )
    )
    for number in range(plan.rounds):
        protocol.take_round([steady, caught, slow_from_the_start], number, plan)

    def counted(entrant: protocol.Entrant, which: str = "turns") -> list[float]:
        return [turn["seconds"][0] for turn in entrant.result[which]]

    assert counted(steady) == [1.2, 1.1, 1.0, 1.2]
    assert counted(caught) == [1.0, 1.1, 2.0, 0.5]
    assert counted(caught, "retaken") == [2.0, 3.0, 2.5]
    assert [turn["round"] for turn in caught.result["turns"]] == [0, 1, 2, 3]
    assert counted(slow_from_the_start, "retaken") == []


def test_candidates(monkeypatch: pytest.MonkeyPatch) -> None:
    assert [threads for _, threads in row("P3").candidates(4, "cpu")] == [1, 4]  # type: ignore[misc]
    assert [threads for _, threads in row("P3").candidates(1, "cpu")] == [1]  # type: ignore[misc]
    assert [threads for _, threads in row("J2").candidates(4, "cpu")] == [4]  # type: ignore[misc]
    monkeypatch.setattr("shutil.which", lambda _: None)
    assert row("P5").candidates(2, "cpu") == "torch.compile needs a C++ compiler"
    monkeypatch.setattr("importlib.util.find_spec", lambda _: None)
    assert row("T1").candidates(2, "cpu") == "tinygrad is not installed"
    # NumPy is always there.
    assert len(row("G1").candidates(1, "cpu")) == 1


def test_rows_are_named_once_and_quick_has_the_main_ones() -> None:
    names = [row.name for row in ROWS]
    assert len(set(names)) == len(names)
    assert {"P1", "P3", "J1", "J2", "J4", "N1", "G1", "G2"} <= {r.name for r in ROWS if r.quick}


def test_settings_survive_json() -> None:
    settings = Settings(config=Config(hidden_sizes=(3, 2)), data_dir="x")
    assert Settings.from_json(json.loads(json.dumps(dataclasses.asdict(settings)))) == settings
