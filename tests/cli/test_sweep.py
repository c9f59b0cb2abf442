"""`flax-mnist sweep`: that what it says and keeps is true."""

from __future__ import annotations

import dataclasses
import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flax_mnist.store.metrics import Metrics, read_metrics
from flax_mnist.store.record import read_config
from tests.helpers.command_line import ask, environment, refused, said
from tests.helpers.sweeps import FLOAT32, SMALL, rows_of, single_run

FIVE_CORES = """
import sys
from flax_mnist.cli import main as cli
from flax_mnist.devices import memory
memory.cores = lambda: 5
sys.exit(cli.main())
"""


@pytest.fixture(scope="module")
def swept(tmp_path_factory, data) -> Path:
    """A sweep of twelve members over five devices, which they do not divide evenly."""
    folder = tmp_path_factory.mktemp("sweep")
    done = subprocess.run(
        [sys.executable, "-c", FIVE_CORES, "sweep", "--data-dir", data, "--dataset", "mnist",
         "--learning-rates", "0.003", "0.01", "1e30", "--momenta", "0", "0.9", "--seeds", "2",
         "--seed", "3", "--epochs", "2", "--hidden-sizes", "16", "--run-dir", "out"],
        cwd=folder, env=environment(), capture_output=True, text=True, encoding="utf-8",
        check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "stdout").write_text(done.stdout, encoding="utf-8")
    return folder / "out"


@pytest.mark.long
def test_the_file_has_a_line_for_each_member_and_epoch(swept, dataset):
    rows = rows_of(swept)
    assert [row["seed"] for row in rows] == [3, 4] * 12
    assert set(rows[0]) == {
        "learning_rate", "momentum", "seed", "batch_size", "hidden_sizes",
        *Metrics._fields[:7], "diverged", "dataset",
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
    text = (swept.parent / "stdout").read_text(encoding="utf-8")
    assert "12 members at once on 5 x cpu" in text
    table = [line.split() for line in text.splitlines() if re.match(r" +(0\.0|1e)", line)]
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


def test_the_best_member_is_kept_as_a_run_that_can_be_repeated(capsys, swept, dataset):
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
    expected = f"test loss {best['test_loss']:.4f}  test accuracy {best['test_accuracy']:.2%}"
    assert said(capsys, "evaluate", swept / "best")[-1] == expected
    said(capsys, "predict", swept / "best", "--index", 0)
    assert {"best", "loss.png", "sweep.jsonl"} <= {path.name for path in swept.iterdir()}
    assert (swept / "best" / "loss.png").exists()


def test_its_table_is_printed_again(capsys, swept):
    """As it was at its end, and as JSON, whose numbers are those of the lines of the members."""
    printed = (swept.parent / "stdout").read_text(encoding="utf-8")
    again = said(capsys, "runs", swept)
    assert "\n".join(again) in printed
    assert again[0].split()[:2] == ["learning", "rate"]
    settings = [json.loads(line) for line in said(capsys, "runs", swept, "--json")]
    last = [row for row in rows_of(swept) if row["epoch"] == 2]
    for i, setting in enumerate(settings):
        losses = [row["test_loss"] for row in last[2 * i : 2 * i + 2]]
        if setting["diverged"]:
            assert (setting["test_loss"], setting["members"], setting["best"]) == (None, 2, False)
        else:
            assert setting["test_loss"] == pytest.approx(np.mean(losses))
            assert setting["test_loss_sd"] == pytest.approx(np.std(losses, ddof=1))
    assert sum(setting["best"] for setting in settings) == 1


@pytest.mark.parametrize(
    "command", ["evaluate", "predict --index 0", "plot --output a.png", "report --output a.html"]
)
def test_a_command_that_is_given_a_sweep_takes_its_best_member(
    capsys, swept, command, monkeypatch, tmp_path
):
    monkeypatch.chdir(tmp_path)
    name, *flags = command.split()
    assert ask(name, swept, *flags) == 0
    out, err = capsys.readouterr()
    assert err == f"{swept} is a sweep: taking its best member, {swept / 'best'}.\n"
    if name == "evaluate":
        assert out.splitlines() == said(capsys, name, swept / "best", *flags)


def test_a_sweep_without_a_best_member_says_so(capsys, tmp_path):
    (tmp_path / "sweep.jsonl").touch()
    assert "is a sweep without a best member" in refused(capsys, "evaluate", tmp_path)
    assert "a sweep that did not come to its end" in refused(capsys, "runs", tmp_path)


def test_json_prints_an_object_a_setting_and_nothing_else(capsys, data, tmp_path):
    flags = ("--lr", 0.01, 0.03, "--seeds", 1, "--epochs", 1, "--hidden-sizes", 8)
    lines = said(capsys, "sweep", "--data-dir", data, "--run-dir", tmp_path / "s", *flags, "--json")
    assert [json.loads(line)["learning_rate"] for line in lines] == [0.01, 0.03]
    assert lines == (tmp_path / "s" / "outcomes.jsonl").read_text().splitlines()


def test_a_sweep_is_not_overwritten(capsys, data, swept):
    before = (swept / "sweep.jsonl").read_bytes()
    errors = refused(capsys, "sweep", "--data-dir", data, "--run-dir", swept)
    assert errors.startswith(f"2 flax-mnist: {swept}: holds a run already")
    assert (swept / "sweep.jsonl").read_bytes() == before


def test_where_all_diverge_there_is_no_best(data, tmp_path, capsys):
    rates = ("--learning-rates", 1e29, 1e30)
    flags = (*rates, "--seeds", 1, "--epochs", 1, "--hidden-sizes", 8)
    assert ask("sweep", "--data-dir", data, "--run-dir", tmp_path / "out", *flags) == 1
    out, err = capsys.readouterr()
    assert "Every member diverged" in err
    assert "below 1e+29" in err
    assert out.count("1 of 1 diverged") == 2
    assert not (tmp_path / "out" / "best").exists()
    assert [row["test_loss"] for row in rows_of(tmp_path / "out")] == [None, None]


@pytest.mark.parametrize(
    ("flags", "reason"),
    [
        (("--seeds", "0"), "seeds: there must be at least 1."),
        (("--learning-rates",), "learning-rates: there must be at least 1."),
        (("--learning-rates", "0.1", "-1"), "learning-rate is -1.0"),
        (("--networks", "128-x"), "networks: '128-x' is none; write 128-64."),
        (("--networks", "16", "--hidden-sizes", "8"), "--networks and --hidden-sizes: choose one"),
        (("--batch-sizes", "0"), "batch-size is 0"),
        (("--group-size", "0"), "group-size is 0"),
        (("--checkpoint-every", "often"), "checkpoint-every is 'often'"),
        (("--resume",), "--resume needs the --run-dir"),
        (("--resume", "--run-dir", "nowhere"), "nowhere: is no folder of a sweep"),
        (("--seed", "4294967295"), "seed is 4294967296"),
    ],
)
def test_a_wrong_request_is_refused(capsys, flags, reason):
    errors = refused(capsys, "sweep", *flags)
    assert errors.startswith("2 ")
    assert reason in errors
