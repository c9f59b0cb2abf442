"""The list of runs: what it holds, and what does not stop it."""

from __future__ import annotations

import json
import os
from datetime import datetime
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
from tests.helpers.command_line import ask, refused

STARTED = [1_790_000_000 + 86_400 * day for day in range(5)]
DATES = [f"{datetime.fromtimestamp(s):%Y-%m-%d %H:%M}".split() for s in STARTED]


def add_run(
    folder: Path,
    started: int,
    dataset: str,
    accuracies: list[float],
    imported: bool = False,
    config: Config | None = None,
) -> Path:
    """A folder as a training leaves it after as many of its five epochs."""
    folder.mkdir(parents=True)
    checkpoints = None if imported else CheckpointPolicy("1", 3)
    record = Record(config or Config(), dataset, "somewhere", None, DIGITS, checkpoints)
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
    assert header == [
        "run", "dataset", "epoch", "train", "test", "correct", "took", "started",
    ]  # fmt: skip
    assert table == [
        ["b", "mnist", "5/5", "0.7500", "0.3750", "92.00%*", "0.50", "s", *DATES[0]],
        ["d", "synthetic", "1/5", "1.7500", "0.8750", "99.00%*", "0.10", "s", *DATES[1]],
        ["a", "mnist", "2/5", "1.5000", "0.7500", "89.00%", "0.20", "s", *DATES[2]],
        ["c", "mnist", "0/5", "-", "-", "-", "-", *DATES[3]],
        ["e", "kmnist", "-", "-", "-", "-", "-", *DATES[4]],
    ]
    lines = said.out.partition("\n\n")[0].splitlines()
    assert len({len(line) for line in lines}) == 1  # the columns stand under each other


def test_with_validation_the_results_are_those_of_the_weights_that_are_kept(tmp_path, capsys):
    path = add_run(tmp_path / "a", STARTED[0], "mnist", [0.8])
    for epoch, accuracy, best in [(2, 0.9, 2), (3, 0.95, 2)]:
        row = Metrics(epoch, 938 * epoch, 1.5, 1 / epoch, accuracy, 0.1, 6e5, 0.5, 0.8, best)
        append_metrics(path, row, "mnist")
    assert ask("runs", tmp_path) == 0
    _, row = rows(capsys.readouterr().out)
    assert row[:5] == ["a", "3/5", "1.5000", "0.5000", "90.00%*"]


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
    assert row["started"].startswith(DATES[2][0])


def test_damaged_runs_are_named_and_do_not_stop_the_list(runs, capsys):
    (runs / "b" / "config.json").write_text("{")
    (runs / "d" / "metrics.jsonl").write_text("no metrics\n")
    assert ask("runs", runs) == 0
    table, _, rest = capsys.readouterr().out.partition("\n\n")
    assert [line[0] for line in table.splitlines()[1:]] == ["a", "c", "e"]
    damages = rest.splitlines()[3:]
    assert damages[0].startswith(f"{runs / 'b' / 'config.json'}: damaged")
    assert damages[1].startswith(f"{runs / 'd' / 'metrics.jsonl'}: line 1 is damaged")
    assert ask("runs", runs, "--json") == 0
    objects = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [row.get("error") for row in objects] == [None] * 3 + damages
    assert [row["run"] for row in objects[3:]] == [str(runs / "b"), str(runs / "d")]


@pytest.fixture
def varied(tmp_path: Path) -> Path:
    """Runs on one dataset that differ in three settings, one of them the best of a sweep."""
    folder = tmp_path / "varied"
    small = Config(learning_rate=0.01, hidden_sizes=(32,))
    add_run(folder / "a", STARTED[0], "mnist", [0.8, 0.9], config=Config(momentum=0.9))
    add_run(folder / "b", STARTED[1], "mnist", [0.95], config=small)
    add_run(folder / "c", STARTED[2], "mnist", [])
    add_run(folder / "s" / "best", STARTED[3], "mnist", [0.7], config=Config(learning_rate=0.01))
    (folder / "s" / "sweep.jsonl").touch()
    (folder / "t").mkdir()
    (folder / "t" / "sweep.jsonl").touch()
    return folder


def names(capsys, *arguments: object) -> list[str]:
    assert ask("runs", *arguments) == 0
    return [row[0] for row in rows(capsys.readouterr().out)[1:]]


def test_runs_that_differ_are_told_apart_by_what_they_differ_in(varied, capsys):
    assert ask("runs", varied) == 0
    out = capsys.readouterr().out
    header, *table = rows(out)
    assert header[:5] == ["run", "lr", "momentum", "hidden_sizes", "epoch"]
    assert [row[:4] for row in table] == [
        ["a", "0.003", "0.9", "128-64"],
        ["b", "0.01", "0", "32"],
        ["c", "0.003", "0", "128-64"],
        ["s/best", "0.01", "0", "128-64"],
    ]
    assert out.splitlines()[-1] == (
        f"{varied / 't'}: is a sweep without a best member: it was stopped, "
        "or every member diverged."
    )


@pytest.mark.parametrize(
    ("conditions", "left"),
    [
        (["learning_rate=0.01"], ["b", "s/best"]),
        (["lr=1e-2"], ["b", "s/best"]),
        (["learning-rate=0.01", "hidden_sizes=128 64"], ["s/best"]),
        (["hidden_sizes=32"], ["b"]),
        (["run=a"], ["a"]),
        (["dataset=kmnist"], []),
        (["deterministic=false", "momentum=0.9"], ["a"]),
    ],
)
def test_where_leaves_those_of_which_it_is_so(varied, capsys, conditions, left):
    words = [word for condition in conditions for word in ("--where", condition)]
    (varied / "t" / "sweep.jsonl").unlink()
    assert names(capsys, varied, *words) == left


@pytest.mark.parametrize(
    ("flags", "order"),
    [
        ([], ["a", "b", "c", "s/best"]),
        (["--sort", "test_accuracy"], ["s/best", "a", "b", "c"]),
        (["--sort", "lr"], ["a", "c", "b", "s/best"]),
        (["--sort", "run", "--reverse"], ["s/best", "c", "b", "a"]),
        (["--sort", "took"], ["b", "s/best", "a", "c"]),
    ],
)
def test_sort_puts_the_smallest_first_and_what_lacks_it_last(varied, capsys, flags, order):
    assert names(capsys, varied, *flags) == order


def test_the_json_of_runs_has_all_settings(varied, capsys):
    assert ask("runs", varied, "--json", "--where", "lr=0.01") == 0
    *found, wrong = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert [Path(row["run"]).name for row in found] == ["b", "best"]
    assert [row["sweep"] for row in found] == [None, str(varied / "s")]
    assert Config(**found[0]["config"]) == Config(learning_rate=0.01, hidden_sizes=(32,))
    assert wrong.keys() == {"run", "error"}


@pytest.mark.parametrize(
    ("flags", "says"),
    [
        (("--where", "rate=1"), "rate: runs have no such thing. They have run, dataset,"),
        (("--where", "learning_rate"), "--where learning_rate: must be NAME=VALUE"),
        (("--sort", "beauty"), "beauty: runs have no such thing."),
    ],
)
def test_what_runs_have_not_is_refused(varied, capsys, flags, says):
    assert says in refused(capsys, "runs", varied, *flags)


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
