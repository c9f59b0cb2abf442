"""What `flax-mnist train` shows and writes besides the run itself."""

from __future__ import annotations

import json
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

from flax_mnist import Config, init_state
from flax_mnist.cli.main import main, parse
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import read_metrics
from flax_mnist.store.record import Checkpoints, Record, read_config, write_config
from tests.helpers.command_line import ask, run
from tests.helpers.idx_files import write_idx_dir


@pytest.fixture(scope="module")
def data(tmp_path_factory, digits) -> Path:
    return write_idx_dir(tmp_path_factory.mktemp("data") / "idx", digits)


def train(data: Path, path: Path, *more: object) -> int:
    flags = ["--data-dir", data, "--run-dir", path, "--learning-rate", 0.05, "--epochs", 2, *more]
    return main(["train", *map(str, flags)])


def test_quiet_prints_nothing(data, tmp_path, capsys):
    assert train(data, tmp_path / "run", "--quiet") == 0
    assert capsys.readouterr() == ("", "")
    assert len(read_metrics(tmp_path / "run")) == 2


def test_json_prints_the_metrics_and_nothing_else(data, tmp_path, capsys):
    assert train(data, tmp_path / "run", "--json") == 0
    said = capsys.readouterr().out
    assert said == (tmp_path / "run" / "metrics.jsonl").read_text()
    assert [json.loads(line)["epoch"] for line in said.splitlines()] == [1, 2]


def test_quiet_and_json_exclude_each_other(data, tmp_path, capsys):
    assert train(data, tmp_path / "run", "--json", "--quiet") == 2
    assert "choose one" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_a_dry_run_takes_two_steps_and_writes_no_files(data, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    assert ask("train", "--data-dir", data, "--dry-run") == 0
    out = capsys.readouterr().out
    assert "Dry run, two steps" in out
    # Two batches' mean loss is near log(10) at the beginning.
    assert float(out.split("Training loss: ")[1].split()[0]) == pytest.approx(np.log(10), abs=0.05)
    assert list(tmp_path.iterdir()) == []


def test_a_config_file_repeats_a_run_and_flags_override_it(data, tmp_path):
    old, same, other = tmp_path / "old", tmp_path / "same", tmp_path / "other"
    assert train(data, old, "--momentum", 0.5, "--seed", 3, "--hidden-sizes", 16) == 0
    assert main(["train", "--config", str(old / "config.json"), "--run-dir", str(same)]) == 0
    weights = "weights.safetensors"
    assert (same / weights).read_bytes() == (old / weights).read_bytes()
    assert main(["train", "--config", str(old), "--run-dir", str(other), "--seed", "4"]) == 0
    assert (other / weights).read_bytes() != (old / weights).read_bytes()
    assert read_config(other).config == Config(
        epochs=2, learning_rate=0.05, momentum=0.5, seed=4, hidden_sizes=(16,)
    )


def test_a_config_file_repeats_the_devices_too(data, tmp_path):
    old, same = tmp_path / "old", tmp_path / "same"
    flags = ["--data-dir", data, "--learning-rate", 0.05, "--epochs", 2, "--num-devices", 4]
    assert run("train", "--run-dir", old, "--device", "cpu", *flags).returncode == 0
    assert run("train", "--run-dir", same, "--config", old / "config.json").returncode == 0
    topologies = [json.loads((r / "config.json").read_text())["topology"] for r in (old, same)]
    assert topologies[0] == topologies[1]
    assert topologies[0]["devices"] == 4
    assert (old / run_folder.WEIGHTS).read_bytes() == (same / run_folder.WEIGHTS).read_bytes()


@pytest.mark.parametrize("then", [True, False])
@pytest.mark.parametrize("now", [True, False])
def test_a_flag_overrides_a_config_file_both_ways(tmp_path, then, now):
    record = Record(
        Config(deterministic=then),
        "mnist",
        "",
        None,
        tuple("0123456789"),
        Checkpoints("1", 3),
    )
    write_config(tmp_path, record, jax.devices()[0])
    flag = "--deterministic" if now else "--no-deterministic"
    command = parse(["train", "--config", str(tmp_path / "config.json"), flag])
    assert command.config == Config(deterministic=now)


def test_a_config_file_that_is_none_is_refused(tmp_path, capsys):
    assert main(["train", "--config", str(tmp_path / "nothing.json")]) == 2
    (tmp_path / "bad.json").write_text("{")
    assert main(["train", "--config", str(tmp_path / "bad.json")]) == 1
    said = capsys.readouterr().err
    assert "nothing.json" in said
    assert "bad.json: damaged" in said


def test_every_run_folder_has_its_curves(data, tmp_path):
    assert train(data, tmp_path / "run", "--quiet") == 0
    with Image.open(tmp_path / "run" / "loss.png") as picture:
        assert min(picture.size) > 200


def test_the_gif_has_a_frame_for_the_beginning_and_one_for_each_epoch(data, tmp_path):
    assert train(data, tmp_path / "run", "--quiet", "--gif") == 0
    with Image.open(tmp_path / "run" / "weights.gif") as picture:
        assert picture.n_frames == 3


def test_tensorboard_gets_what_the_metrics_say(data, tmp_path):
    reader = pytest.importorskip("tensorboardX.proto.event_pb2")
    assert train(data, tmp_path / "run", "--quiet", "--tensorboard") == 0
    (file,) = (tmp_path / "run" / "tensorboard").iterdir()
    content, at, seen = file.read_bytes(), 0, {}
    while at < len(content):  # length, its checksum, the event, its checksum
        length = int.from_bytes(content[at : at + 8], "little")
        event = reader.Event.FromString(content[at + 12 : at + 12 + length])
        at += 16 + length
        for value in event.summary.value:
            seen[value.tag, event.step] = value.simple_value
    for row in read_metrics(tmp_path / "run"):
        assert seen["loss/training", row.step] == pytest.approx(row.train_loss)
        assert seen["loss/test", row.step] == pytest.approx(row.test_loss)
        assert seen["accuracy/test", row.step] == pytest.approx(row.test_accuracy)


def test_tensorboard_without_its_package_names_the_extra(data, tmp_path, capsys, monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "tensorboardX", None)
    assert train(data, tmp_path / "run", "--tensorboard") == 2
    assert "flax-mnist[tensorboard]" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("epochs", [1, 3])
def test_the_profile_is_a_trace(data, tmp_path, epochs):
    assert (
        train(data, tmp_path / "run", "--quiet", "--profile", tmp_path / "p", "--epochs", epochs)
        == 0
    )
    assert len(list((tmp_path / "p").rglob("*.xplane.pb"))) == 1


def test_a_profile_that_has_no_folder_trains_nothing(data, tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert train(data, tmp_path / "run", "--profile", tmp_path / "file") == 2
    assert "is a file, and must be a folder" in capsys.readouterr().err
    assert train(data, tmp_path / "run", "--profile", tmp_path / "file" / "in") == 1
    assert f"{tmp_path / 'file' / 'in'}: Not a directory" in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


def test_the_first_weights_are_those_of_the_seed(data, tmp_path):
    """A learning rate too small to move a float32 leaves them as they were."""
    assert main(
        ["train", "--data-dir", str(data), "--run-dir", str(tmp_path / "run"), "--quiet",
         "--learning-rate", "1e-30", "--seed", "5", "--epochs", "1"]
    ) == 0  # fmt: skip
    kernel = load_file(tmp_path / "run" / "weights.safetensors")["0.weight"]
    params = init_state(Config(seed=5)).params
    np.testing.assert_array_equal(kernel, np.asarray(params["Dense_0"]["kernel"]).T)
