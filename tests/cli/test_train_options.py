"""`flax-mnist train`: what there is beside the tutorial's settings."""

from __future__ import annotations

import hashlib
import json

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from flax_mnist.store import checkpoint, run_folder
from tests.helpers.command_line import ask, refused, said
from tests.helpers.runs import LEARNS, metrics, resume, train


@pytest.mark.long
def test_validation_is_shown_and_kept_and_the_best_epoch_said(data, tmp_path, capsys):
    path = tmp_path / "run"
    flags = {"epochs": 2, "learning_rate": 0.02, "momentum": 0.9, "validation": 300}
    lines = said(capsys, *train(data, path, **flags))
    assert lines[0].startswith("mnist: 700 training, 300 validation and 200 test images from ")
    rows = metrics(path)
    told = [line for line in lines if line.startswith("  validation")]
    assert told == [
        f"  validation {row['validation_loss']:.4f}, {row['validation_accuracy']:.2%}"
        for row in rows
    ]
    best = min(rows, key=lambda row: row["validation_loss"])
    assert lines[-2:] == [
        f"Kept are the weights of epoch {best['epoch']}: "
        f"validation loss {best['validation_loss']:.4f}",
        f"Saved in {path}",
    ]
    assert rows[-1]["best_epoch"] == best["epoch"]


@pytest.mark.long
def test_the_header_says_how_it_is_trained(data, tmp_path, capsys):
    flags = {"epochs": 2, "optimizer": "adamw", "schedule": "cosine", "warmup": 0.5}
    lines = said(capsys, *train(data, tmp_path / "run", **flags))
    assert lines[2:4] == [
        "AdamW, weight decay 0.01, learning rate 0.003, batches of 64, on cpu",
        "Schedule: cosine after a warm-up of 0.5 epochs",
    ]


def test_a_target_that_is_reached_ends_the_run_with_its_time(data, tmp_path, capsys):
    path, learns = tmp_path / "run", [*LEARNS[:2], "--learning-rate", "0.02", "--momentum", "0.9"]
    lines = said(capsys, *train(data, path), *learns, "--epochs", 20, "--until-accuracy", 0.6)
    rows = metrics(path)
    assert len(rows) < 20
    seconds = sum(row["seconds"] for row in rows)
    assert lines[-2] == (
        f"Test accuracy {rows[-1]['test_accuracy']:.2%} after epoch {len(rows)}: "
        f"0.6 was reached in {seconds:.2f} s of training."
    )
    lines = said(capsys, *resume(path))
    assert lines[-1].startswith(f"{path} is finished. Test accuracy ")


def test_a_target_that_is_not_reached_is_a_failure_and_the_run_is_kept(data, tmp_path, capsys):
    path = tmp_path / "run"
    assert ask(*train(data, path, epochs=1, until_accuracy=0.99)) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[-1] == f"Saved in {path}"
    accuracy = metrics(path)[0]["test_accuracy"]
    assert err.startswith(f"flax-mnist: until-accuracy 0.99 was not reached, but {accuracy:g}. ")
    # The target can be given up.
    assert ask(*resume(path, until_accuracy=0)) == 0


def test_a_run_begins_with_given_weights_and_goes_on_without_their_file(data, tmp_path, capsys):
    first, path, straight = (tmp_path / name for name in ("first", "run", "straight"))
    assert ask(*train(data, first, epochs=1)) == 0
    given = first / run_folder.WEIGHTS
    digest = hashlib.sha256(given.read_bytes()).hexdigest()
    assert ask(*train(data, straight, epochs=2, init_from=given, seed=3)) == 0
    assert ask(*train(data, path, epochs=1, init_from=first, seed=3)) == 0
    arrays = checkpoint.read_checkpoint(path / checkpoint.FOLDER / "0.safetensors").arrays
    kernel = next(array for name, array in arrays.items() if "Dense_0" in name and array.ndim == 2)
    np.testing.assert_array_equal(kernel, load_file(given)["0.weight"].T)
    record = json.loads((path / run_folder.CONFIG).read_text())
    assert record["init_from"] == {"path": str(first), "sha256": digest}
    given.unlink()
    assert ask(*resume(path, epochs=2)) == 0
    assert (path / run_folder.WEIGHTS).read_bytes() == (straight / run_folder.WEIGHTS).read_bytes()
    assert json.loads((path / run_folder.CONFIG).read_text())["init_from"] == record["init_from"]
    for file in (path / checkpoint.FOLDER).iterdir():
        file.unlink()
    capsys.readouterr()
    assert refused(capsys, *resume(path, epochs=3)).startswith(
        f"1 flax-mnist: {path}: has no checkpoint, and began with the weights of {first}."
    )


def test_given_weights_must_fit(data, tmp_path, capsys):
    first, path = tmp_path / "first", tmp_path / "run"
    assert ask(*train(data, first, epochs=1, hidden_sizes=16)) == 0
    assert refused(capsys, *train(data, path, init_from=first)) == (
        f"2 flax-mnist: {first}: its hidden sizes are 16, not 128 64. Give --hidden-sizes 16.\n"
    )
    assert refused(capsys, *train(data, path, init_from="no.pt")).startswith("2 flax-mnist: no.pt:")
    assert refused(capsys, *resume(first, init_from=first)) == (
        "2 flax-mnist: --init-from is for a new run: --resume goes on with the run's weights.\n"
    )
    assert not path.exists()
    wide = {name: array.astype(np.float64) for name, array in load_file(
        first / run_folder.WEIGHTS
    ).items()}  # fmt: skip
    save_file(wide, tmp_path / "wide.safetensors")
    flags = {"init_from": tmp_path / "wide.safetensors", "hidden_sizes": 16, "epochs": 1}
    assert ask(*train(data, path, **flags)) == 0
    assert "its float64 weights are rounded to float32." in capsys.readouterr().err


def test_what_learned_nothing_says_so_once(data, tmp_path, capsys):
    flags = {"epochs": 7, "learning_rate": 1.0, "momentum": 0.9}
    assert ask(*train(data, tmp_path / "run", quiet=True, **flags)) == 0
    out, err = capsys.readouterr()
    words = " ".join(err.split())
    assert out == ""
    assert words.count("WARNING: the network has learned nothing: its test loss is") == 1
    assert words.endswith("Try a --learning-rate below 1, or less --momentum.")
