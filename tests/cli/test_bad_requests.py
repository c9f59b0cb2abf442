"""What the command line refuses, and what it says of it."""

from __future__ import annotations

import jax
import pytest

from tests.helpers.command_line import ask, mistaken, refused, run


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "Expected one of {train, sweep, evaluate, predict, plot, runs, report,"),
        ("train --epoch 3", "Unrecognized options: --epoch, 3 Perhaps you meant: -e,"),
        ("train --learning-rat 1", "--learning-rat, 1 Perhaps you meant: --lr, --learning-rate"),
        ("train --dataset mnits", "'mnits' for argument '--dataset'. Expected one of ('auto',"),
        ("predict x --invert maybe", "'maybe' for argument '--invert'. Expected one of ('auto',"),
        ("train --epochs 1.5", "Error parsing -e/--epochs: invalid literal for int()"),
        ("train --epochs nan", "Error parsing -e/--epochs: invalid literal for int()"),
        ("train --epochs", "Missing value for argument '-e/--epochs'."),
        ("train --learning-rate fast", "Error parsing --lr/--learning-rate: could not convert"),
        ("train --hidden-sizes 8.5", "Error parsing --hidden-sizes:"),
        ("evaluate", "Missing from flax-mnist evaluate: RUN_DIR|FILE"),
        ("predict no.safetensors --index 0.5", "Error parsing --index:"),
        ("export no.safetensors --output x --format onxx", "'onxx' for argument '--format'."),
        ("sweep --learning-rate 0.1", "Perhaps you meant: --lr, --learning-rates [FLOAT"),
    ],
)
def test_a_mistake_in_the_flags_is_shown_by_tyros_panel(capsys, arguments, says):
    words = mistaken(capsys, *arguments.split())
    assert says in words
    assert "For full helptext, " in words


def test_a_process_with_a_mistake_in_the_flags_ends_with_2():
    done = run("train", "--epoch", 3)
    assert (done.returncode, done.stdout) == (2, "")
    assert "--epochs INT" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize("arguments", ["train --learning-rat 1", "train --dataset mnits"])
def test_twenty_columns_hide_nothing(capsys, monkeypatch, arguments):
    wide = mistaken(capsys, *arguments.split())
    monkeypatch.setenv("COLUMNS", "20")
    assert mistaken(capsys, *arguments.split()).replace(" ", "") == wide.replace(" ", "")


def test_twenty_columns_make_no_more_lines(capsys, monkeypatch):
    arguments = ("train", "--hidden-sizes", 1_000_000_000)
    wide = refused(capsys, *arguments)
    monkeypatch.setenv("COLUMNS", "20")
    assert refused(capsys, *arguments) == wide


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("tarin", "tarin: there is no such command. Did you mean train?"),
        ("evalute runs/a", "evalute: there is no such command. Did you mean evaluate?"),
        ("fly", "fly: there is no such command. There are train, sweep, evaluate, predict,"),
        ("train --epochs 0", "epochs is 0; it must be at least 1."),
        ("train --batch-size -1", "batch-size is -1; it must be from 1 to"),
        (f"train --batch-size {10**30}", "it must be from 1 to 2,147,483,647."),
        ("train --learning-rate nan", "learning-rate is nan; it must be above 0 and finite."),
        ("train --learning-rate=-inf", "learning-rate is -inf; it must be above 0 and finite."),
        ("train --momentum 1", "momentum is 1.0; it must be in [0, 1)."),
        ("train --hidden-sizes 1000000000", "hidden-sizes is 1000000000; it must be"),
        ("train --hidden-sizes 8 0", "hidden-sizes is 8 0; it must be"),
        ("train --hidden-sizes", "hidden-sizes is empty; it must be"),
        ("train --seed 4294967296", "seed is 4294967296; it must be from 0 to 2**32 - 1."),
        ("train --weight-decay 0.1", "weight-decay is 0.1; it must be left out: adamw alone has"),
        (
            "train --optimizer adam --momentum 0.9",
            "momentum is 0.9; it must be left out with adam,",
        ),
        ("train --patience 3", "patience is 3; it must be left out without validation, whose"),
        ("train --warmup 5", "warmup is 5.0; it must be from 0 to below the epochs, which are 5."),
        ("train --until-accuracy 97", "until-accuracy is 97.0; it must be above 0 and at most 1,"),
        ("sweep --optimizer adam --momenta 0.9", "momentum is 0.9; it must be left out with adam,"),
        ("train --keep 0", "keep is 0; it must be at least 1."),
        ("train --checkpoint-every often", "checkpoint-every is 'often'; it must be a number"),
        (
            "train --checkpoint-every 10s",
            "checkpoint-every is '10s'; it must be a number of epochs",
        ),
        ("train --checkpoint-every s", "checkpoint-every is 's'; it must be"),
        ("train --config nope.json", "nope.json: there is no such file or folder."),
        ("train --lr 0", "learning-rate is 0.0; it must be above 0"),
        ("train --bs 0", "batch-size is 0; it must be"),
        ("train -b 0", "batch-size is 0; it must be"),
        ("train -e 0", "epochs is 0; it must be at least 1."),
        ("sweep --lr 0.1 -1", "learning-rate is -1.0; it must be above 0"),
        ("sweep --seeds 1000000000", "seeds is 1,000,000,000; it must be at most"),
        ("train --data-dir no/such/folder", "no/such/folder: is no folder or file to read (No"),
        ("train --device gpu", "--device gpu: there is none; JAX finds cpu."),
        ("evaluate no.safetensors", "no.safetensors: there is no such file."),
        ("predict no.safetensors", "predict needs picture files, or --index"),
        ("import no.pt --run-dir x", "no.pt: there is no such file."),
    ],
)
def test_what_is_ours_to_refuse_exits_2_with_a_line(capsys, arguments, says):
    words = " ".join(refused(capsys, *arguments.split()).split())
    assert words.startswith("2 ")
    assert says in words


def test_what_is_absurdly_large_is_refused_before_it_is_allocated(capsys, monkeypatch):
    monkeypatch.setattr(jax, "jit", lambda *_, **__: pytest.fail("something is computed"))
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: pytest.fail("a device is sought"))
    refused(capsys, "train", "--dataset", "synthetic", "--hidden-sizes", 1_000_000_000)


@pytest.mark.long
def test_bad_requests_about_a_run(capsys, trained, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    assert "is none of PNG, JPEG" in refused(capsys, "predict", trained, tmp_path / "a.png")
    assert "index is 200; the test images are 0 to 199" in refused(
        capsys, "predict", trained, "--index", 200
    )
    assert "index is -1" in refused(capsys, "predict", trained, "--index", -1)
    assert "is no run folder" in refused(capsys, "evaluate", tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert refused(capsys, "evaluate", tmp_path).startswith("1 ")


def test_corrupt_data_exits_1_and_names_the_file(capsys, idx_dir, tmp_path):
    path = idx_dir / "train-labels-idx1-ubyte.gz"
    path.write_bytes(path.read_bytes() + b"\0")
    said = refused(capsys, "train", "--data-dir", idx_dir, "--run-dir", tmp_path / "run")
    assert said.startswith("1 ")
    assert str(path) in said
    assert not (tmp_path / "run").exists()


def test_debug_shows_the_traceback_and_changes_nothing_else(capsys):
    assert ask("train", "--data-dir", "no/such/folder", "--debug") == 2
    errors = capsys.readouterr().err
    assert "Traceback" in errors
    assert errors.splitlines()[-1].startswith("flax-mnist: no/such/folder")
