"""`flax-mnist train`: the run itself, and what is shown and written besides."""

from __future__ import annotations

import json
import re
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image
from safetensors.numpy import load_file

import flax_mnist
from flax_mnist import Config, init_state
from flax_mnist.cli.train import flags_of, parse
from flax_mnist.config import CheckpointPolicy
from flax_mnist.devices import environment
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import read_metrics
from flax_mnist.store.record import Record, read_config, write_config
from tests.helpers.command_line import OFFLINE, ask, refused, run, said
from tests.helpers.runs import LEARNS, metrics


def train(data: Path, path: Path, *more: object) -> int:
    flags = ("--data-dir", data, "--run-dir", path, "--learning-rate", 0.05, "--epochs", 2)
    return ask("train", *flags, *more)


def test_train_prints_the_tutorials_line_and_what_it_trained_on(trained):
    text = (trained.parent / "stdout").read_text()
    lines = text.splitlines()
    assert lines[0] == "mnist: 1,000 training and 200 test images from idx"
    assert "784-128-64-10 MLP, 109,386 parameters" in lines[1]
    epochs = [line for line in lines if line.startswith("Epoch")]
    assert len(epochs) == 3
    for line, row in zip(epochs, metrics(trained), strict=True):
        told = re.search(r"Training loss: (\d\.\d{4})  test (\S+), (\S+)%", line)
        assert float(told[1]) == pytest.approx(row["train_loss"], abs=5e-5)
        assert float(told[2]) == pytest.approx(row["test_loss"], abs=5e-5)
        assert float(told[3]) == pytest.approx(100 * row["test_accuracy"], abs=5e-3)
    assert lines[-1] == "Saved in run"
    # No terminal, no bar and no colours, whatever FORCE_COLOR says.
    assert "Steps" not in text
    assert "\x1b" not in text


def test_where_more_was_written_is_said_at_the_end(capsys, data, tmp_path):
    run, trace = tmp_path / "run", tmp_path / "a trace"
    flags = ("--tensorboard", "--gif", "--profile", trace)
    lines = said(capsys, "train", "--data-dir", data, "--run-dir", run, "--epochs", 1, *flags)
    assert lines[-4:] == [
        f"Saved in {run}",
        f"Curves: tensorboard --logdir {run / 'tensorboard'}",
        f"Weights: {run / 'weights.gif'}",
        f"Profile: xprof --logdir '{trace}' (pip install xprof)",
    ]
    assert list((run / "tensorboard").iterdir())
    assert (run / "weights.gif").exists()
    assert list(trace.rglob("*.xplane.pb"))


def test_metrics_have_a_line_an_epoch(trained):
    rows = metrics(trained)
    assert [row["epoch"] for row in rows] == [1, 2, 3]
    assert [row["step"] for row in rows] == [16, 32, 48]
    assert set(rows[0]) == {
        "epoch", "step", "train_loss", "test_loss", "test_accuracy", "seconds",
        "images_per_second", "dataset",
    }  # fmt: skip
    assert all(row["dataset"] == "mnist" for row in rows)


def test_config_says_what_is_needed_to_repeat_the_run(trained):
    record = read_config(trained)
    assert record.config == flax_mnist.Config(epochs=3, learning_rate=0.05, momentum=0.9)
    assert (record.dataset, record.data_dir) == ("mnist", trained.parent / "idx")
    environment = json.loads((trained / "config.json").read_text())["environment"]
    assert environment["versions"]["flax-mnist"] == flax_mnist.__version__
    assert environment["device"].startswith("cpu")


def test_the_saved_weights_score_in_pytorch_what_training_said(torch, tutorial, trained, digits):
    model = tutorial.build_model()
    tensors = {k: torch.tensor(v) for k, v in load_file(trained / "weights.safetensors").items()}
    model.load_state_dict(tensors, strict=True)
    labels = torch.tensor(digits["test_labels"], dtype=torch.int64)
    inputs = tutorial.normalize(digits["test_images"])
    loss, accuracy = tutorial.evaluate(model, inputs, labels)
    assert loss == pytest.approx(metrics(trained)[-1]["test_loss"], rel=1e-5)
    assert accuracy == pytest.approx(metrics(trained)[-1]["test_accuracy"])
    assert accuracy > 0.5


def test_the_same_command_gives_the_same_bytes(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(trained.parent)
    assert ask("train", "--data-dir", "idx", "--run-dir", tmp_path / "again", *LEARNS) == 0
    again, first = (path / "weights.safetensors" for path in (tmp_path / "again", trained))
    assert again.read_bytes() == first.read_bytes()


def test_a_run_is_not_overwritten(capsys, data, trained):
    before = (trained / "weights.safetensors").read_bytes()
    said = refused(capsys, "train", "--data-dir", data, "--run-dir", trained)
    assert said.startswith(f"2 flax-mnist: {trained}: holds a run already")
    assert (trained / "weights.safetensors").read_bytes() == before


@pytest.mark.long
@pytest.mark.parametrize(
    "flags",
    [
        ("--batch-size", 1000),
        ("--batch-size", 100_000),
        ("--batch-size", 1),
        ("--hidden-sizes", 32),
        ("--hidden-sizes", 256, 256, 128),
        ("--init", "flax"),
        ("--precision", "bfloat16"),
        ("--precision", "float64"),
        ("--device", "cpu"),
        ("--no-compilation-cache",),
    ],
    ids=lambda flags: " ".join(map(str, flags)),
)
def test_what_can_be_asked_for_trains(capsys, data, tmp_path, flags):
    out = tmp_path / "run"
    said(capsys, "train", "--data-dir", data, "--run-dir", out, "--epochs", 1, *flags)
    assert 0 < metrics(out)[0]["train_loss"] < 2.5
    score = said(capsys, "evaluate", out)[-1]
    assert f"test loss {metrics(out)[0]['test_loss']:.4f}" in score


def test_the_default_run_folder_is_named_after_the_dataset(capsys, data, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        said(capsys, "train", "--data-dir", data, "--epochs", 1)
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(runs) == 2
    assert all(re.fullmatch(r"mnist-\d{8}-\d{6}(-2)?", name) for name in runs)


@pytest.mark.long
def test_without_mnist_it_trains_on_synthetic_and_says_so_twice(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable, value in OFFLINE.items():
        monkeypatch.setenv(variable, value)
    assert ask("train", "--epochs", 1, "--batch-size", 1000) == 0
    out, err = capsys.readouterr()
    assert out.startswith("synthetic: 60,000 training and 10,000 test images")
    assert sum("NOT MNIST" in line for line in err.splitlines()) == 2
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("synthetic-")
    assert metrics(folder)[0]["dataset"] == "synthetic"
    asked = refused(capsys, "train", "--dataset", "mnist")
    assert asked.startswith("1 flax-mnist: mnist is not on disk and not to be had")
    assert len(list((tmp_path / "runs").iterdir())) == 1


@pytest.mark.long
def test_a_loss_that_is_not_finite_exits_1(capsys, data, tmp_path):
    def train(*flags: object) -> str:
        assert ask("train", "--data-dir", data, *flags) == 1
        return capsys.readouterr().err

    errors = train("--run-dir", tmp_path / "r", "--learning-rate", 1e20)
    assert errors.startswith("flax-mnist: The loss is not finite in step")
    # A single step: the loss before it is finite, the network after it is not.
    errors = train(
        "--run-dir", tmp_path / "s", "--learning-rate", 1e37, "--batch-size", 1000, "--epochs", 1
    )
    assert errors.startswith("flax-mnist: The loss is not finite in the test after epoch 1")
    assert not (tmp_path / "s" / "metrics.jsonl").exists()


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


@pytest.mark.long
def test_a_config_file_repeats_a_run_and_flags_override_it(data, tmp_path):
    old, same, other = tmp_path / "old", tmp_path / "same", tmp_path / "other"
    assert train(data, old, "--momentum", 0.5, "--seed", 3, "--hidden-sizes", 16) == 0
    assert ask("train", "--config", old / "config.json", "--run-dir", same) == 0
    weights = "weights.safetensors"
    assert (same / weights).read_bytes() == (old / weights).read_bytes()
    assert ask("train", "--config", old, "--run-dir", other, "--seed", 4) == 0
    assert (other / weights).read_bytes() != (old / weights).read_bytes()
    assert read_config(other).config == Config(
        epochs=2, learning_rate=0.05, momentum=0.5, seed=4, hidden_sizes=(16,)
    )


@pytest.mark.long
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
    names = tuple("0123456789")
    old = Record(Config(deterministic=then), "mnist", "", None, names, CheckpointPolicy("1", 3))
    write_config(tmp_path, old, environment.describe(jax.devices()[0], old.config))
    default = flags_of(read_config(tmp_path), None)
    assert default.config == Config(deterministic=then)
    flag = "--deterministic" if now else "--no-deterministic"
    assert parse(["train", flag], default).config == Config(deterministic=now)


def test_a_config_file_that_is_none_is_refused(tmp_path, capsys):
    assert ask("train", "--config", tmp_path / "nothing.json") == 2
    (tmp_path / "bad.json").write_text("{")
    assert ask("train", "--config", tmp_path / "bad.json") == 1
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
    flags = ("--learning-rate", 1e-30, "--seed", 5, "--epochs", 1)
    assert train(data, tmp_path / "run", "--quiet", *flags) == 0
    kernel = load_file(tmp_path / "run" / "weights.safetensors")["0.weight"]
    params = init_state(Config(seed=5)).params
    np.testing.assert_array_equal(kernel, np.asarray(params["Dense_0"]["kernel"]).T)
