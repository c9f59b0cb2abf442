"""The list of runs: what it holds, and what does not stop it."""

from __future__ import annotations

import json
import os
from datetime import date
from pathlib import Path

import jax
import pytest

from flax_mnist import Config
from flax_mnist.config import CheckpointPolicy
from flax_mnist.data.dataset import DIGITS
from flax_mnist.devices import environment
from flax_mnist.errors import DataError, FlaxMnistError
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import Metrics, append_metrics, read_metrics
from flax_mnist.store.record import Record, read_config, write_config
from tests.helpers.command_line import ask

STARTED = [1_790_000_000 + 86_400 * day for day in range(5)]
DATES = [str(date.fromtimestamp(seconds)) for seconds in STARTED]


def add_run(
    folder: Path, started: int, dataset: str, accuracies: list[float], imported: bool = False
) -> Path:
    """A folder as a training leaves it after as many of its five epochs."""
    folder.mkdir(parents=True)
    checkpoints = None if imported else CheckpointPolicy("1", 3)
    record = Record(Config(), dataset, "somewhere", None, DIGITS, checkpoints)
    write_config(folder, record, environment.describe(jax.devices()[0], record.config))
    os.utime(folder / "config.json", (started, started))
    for epoch, accuracy in enumerate(accuracies, start=1):
        row = Metrics(epoch, 938 * epoch, 2 - epoch / 4, 1 - epoch / 8, accuracy, 0.1, 6e5)
        append_metrics(folder, row, dataset)
    return folder


@pytest.fixture
def runs(tmp_path: Path) -> Path:
    """Runs of every kind, their names in another order than their times."""
    folder = tmp_path / "runs"
    add_run(folder / "b", STARTED[0], "mnist", [0.7, 0.8, 0.95, 0.9, 0.92])
    add_run(folder / "d", STARTED[1], "synthetic", [0.99])
    add_run(folder / "a", STARTED[2], "mnist", [0.8, 0.89])
    add_run(folder / "c", STARTED[3], "mnist", [])
    add_run(folder / "e", STARTED[4], "kmnist", [], imported=True)
    (folder / "no run").mkdir()
    (folder / "a file").write_text("no run either")
    return folder


def rows(out: str) -> list[list[str]]:
    return [line.split() for line in out.partition("\n\n")[0].splitlines()]


def test_runs_are_listed_by_time_with_their_last_epochs_results(runs, capsys):
    assert ask("runs", runs) == 0
    said = capsys.readouterr()
    assert said.err == ""
    header, *table = rows(said.out)
    assert header == ["run", "dataset", "epoch", "train", "test", "correct", "started"]
    assert table == [
        ["b", "mnist", "5/5", "0.7500", "0.3750", "92.00%*", DATES[0]],
        ["d", "synthetic", "1/5", "1.7500", "0.8750", "99.00%*", DATES[1]],
        ["a", "mnist", "2/5", "1.5000", "0.7500", "89.00%", DATES[2]],
        ["c", "mnist", "0/5", "-", "-", "-", DATES[3]],
        ["e", "kmnist", "-", "-", "-", "-", DATES[4]],
    ]
    lines = said.out.partition("\n\n")[0].splitlines()
    assert len({len(line) for line in lines}) == 1  # the columns stand under each other


def test_the_list_as_json_says_the_same(runs, capsys):
    assert ask("runs", runs, "--json") == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(row["run"]).name for row in objects] == ["b", "d", "a", "c", "e"]
    assert [row["best"] for row in objects] == [True, True, False, False, False]
    assert [row["epochs"] for row in objects] == [5, 5, 5, 5, None]
    assert [row["epoch"] for row in objects] == [5, 1, 2, None, None]
    assert len({tuple(row) for row in objects}) == 1
    row = objects[2]
    assert (row["train_loss"], row["test_loss"], row["test_accuracy"]) == (1.5, 0.75, 0.89)
    assert row["started"].startswith(DATES[2])


def test_damaged_runs_are_named_and_do_not_stop_the_list(runs, capsys):
    (runs / "b" / "config.json").write_text("{")
    (runs / "d" / "metrics.jsonl").write_text("no metrics\n")
    assert ask("runs", runs) == 0
    table, _, rest = capsys.readouterr().out.partition("\n\n")
    assert [line[0] for line in table.splitlines()[1:]] == ["a", "c", "e"]
    damages = rest.splitlines()[1:]
    assert damages[0].startswith(f"{runs / 'b' / 'config.json'}: damaged")
    assert damages[1].startswith(f"{runs / 'd' / 'metrics.jsonl'}: line 1 is damaged")
    assert ask("runs", runs, "--json") == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("error") for row in objects] == [None] * 3 + damages
    assert [row["run"] for row in objects[3:]] == [str(runs / "b"), str(runs / "d")]


def test_no_runs_and_no_folder(tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert ask("runs") == 2
    assert capsys.readouterr().err == "flax-mnist: runs: there is no such folder.\n"
    Path("runs").mkdir()
    assert ask("runs") == 0
    assert capsys.readouterr().out == "runs: there are no runs.\n"
    assert ask("runs", "--json") == 0
    assert capsys.readouterr().out == ""


@pytest.mark.parametrize(
    ("part", "name", "wrong"),
    [
        ("dataset", "source", 3),
        ("dataset", "class_names", list(range(10))),
        ("dataset", "data_dir", 1),
        ("dataset", "form", 1),
        ("dataset", "sha256", "0"),
        ("dataset", "sha256", {"train_images": 1}),
        ("checkpoints", "keep", "3"),
        ("checkpoints", "every", 1),
        ("topology", "devices", 1.5),
    ],
)
def test_settings_of_another_type_are_damaged(runs, tmp_path, part, name, wrong):
    content = json.loads((runs / "a" / run_folder.CONFIG).read_text())
    content[part][name] = wrong
    (tmp_path / run_folder.CONFIG).write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"config\.json: damaged .* is no "):
        read_config(tmp_path)


def test_settings_and_metrics_that_are_no_text_are_damaged(tmp_path):
    (tmp_path / run_folder.CONFIG).write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"config\.json: damaged"):
        read_config(tmp_path)
    (tmp_path / run_folder.METRICS).write_bytes(b"\xff")
    with pytest.raises(DataError, match=r"metrics\.jsonl: damaged"):
        read_metrics(tmp_path)


def test_a_folder_that_cannot_be_locked_is_named(tmp_path):
    (tmp_path / run_folder.LOCK).mkdir()
    with (
        pytest.raises(FlaxMnistError, match=rf"{tmp_path}: cannot be written to"),
        run_folder.taken(tmp_path, "mnist"),
    ):
        pass
