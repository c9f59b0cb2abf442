"""Runs that are stopped, killed, disturbed and resumed, as real processes where that matters."""

from __future__ import annotations

import contextlib
import signal
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import faults
from flax_mnist.errors import RequestError
from flax_mnist.store import checkpoint, run_folder
from flax_mnist.store.metrics import read_metrics
from flax_mnist.store.record import read_config
from tests.helpers import runs
from tests.helpers.command_line import COMMAND, ask, refused
from tests.helpers.idx_files import write_idx_dir
from tests.helpers.platforms import POSIX
from tests.helpers.processes import running, wait_for
from tests.helpers.runs import result, resume


def flags(data: Path, path: Path, **more: object) -> list[str]:
    return runs.train(data, path, **{"dataset": "mnist", "momentum": 0.9} | more)


@contextlib.contextmanager
def training(data: Path, path: Path, **more: object) -> Iterator[subprocess.Popen]:
    """A process that has finished some epochs of very many; killed at the end if it still runs."""
    with running([*COMMAND, *flags(data, path, **({"epochs": 100_000} | more))]) as (process,):
        wait_for(process, "Epoch 4/")
        yield process


@pytest.mark.long
@pytest.mark.parametrize(
    ("signum", "code", "word"),
    [
        ("SIGINT", 130, "interrupted"),
        ("SIGTERM", 143, "terminated"),
        pytest.param("SIGHUP", 129, "hung up", marks=POSIX),
    ],
)
def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(data, tmp_path, signum, code, word):
    path = tmp_path / "a run"
    with training(data, path, checkpoint_every="5steps") as process:
        process.send_signal(signal.Signals[signum])
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"flax-mnist: {word} after step" in err
    assert f"train --resume --run-dir '{path}'" in err
    assert (path / run_folder.CURVES).exists()
    epochs = len(read_metrics(path)) + 2
    assert ask(*resume(path, epochs=epochs)) == 0
    straight = tmp_path / "straight"
    assert ask(*flags(data, straight, epochs=epochs, checkpoint_every="5steps")) == 0
    assert result(path) == result(straight)


@pytest.mark.long
def test_one_writer(data, tmp_path, capsys):
    path = tmp_path / "run"
    with training(data, path) as process:
        for again in (resume(path), flags(data, path)):
            errors = refused(capsys, *again)
            assert errors.startswith("2 ")
            assert "another process" in errors or "holds a run already" in errors
        # Locks on a network's disk may outlive the machine that held them.
        remedy = f"another process is training there.* remove {path / run_folder.LOCK}"
        with pytest.raises(RequestError, match=remedy):
            run_folder.taken(path, "mnist", resume=True).__enter__()
        process.kill()
        process.wait()
    assert ask(*resume(path, epochs=len(read_metrics(path)) + 1)) == 0


@pytest.mark.long
def test_a_short_campaign_of_faults(capfd):
    assert faults.main(kills=1, sweeps=1, saves=1, damages=4, full_disks=1) == 0
    header, rule, *rows = [
        line for line in capfd.readouterr().out.splitlines() if line.count("|") == 7
    ]
    assert header.startswith("| fault ")
    assert set(rule) <= set("|-: ")
    assert [int(row.split("|")[2]) for row in rows] == [1, 1, 2, 2, 1, 1]
    assert len({len(row) for row in (header, rule, *rows)}) == 1


def test_the_campaign_would_notice_a_run_that_started_over():
    assert faults.begun_after("MNIST ...\nGoing on after step 1,240 of 2,814\n") == 1240
    assert faults.begun_after("runs/a is finished: it has 3 epochs.") > 10**9
    assert faults.begun_after("Epoch 1/3") == 0


def test_a_finished_run_says_so_and_can_be_extended(data, tmp_path, capsys):
    path, straight = tmp_path / "run", tmp_path / "straight"
    assert ask(*flags(data, path, epochs=2)) == 0
    before = result(path)
    assert ask(*resume(path)) == 0
    assert "is finished: it has 2 epochs" in capsys.readouterr().out
    assert ask(*resume(path, epochs=1)) == 0
    assert result(path) == before
    capsys.readouterr()
    assert ask(*resume(path, epochs=4)) == 0
    assert "\nGoing on after step 32 of 64\n" in capsys.readouterr().out
    assert read_config(path).config.epochs == 4
    assert ask(*flags(data, straight, epochs=4)) == 0
    assert result(path) == result(straight)
    assert [row[0] for row in result(path)[1]] == [1, 2, 3, 4]


def test_metrics_beyond_the_checkpoint_are_dropped_and_missing_ones_refused(data, tmp_path, capsys):
    path, straight = tmp_path / "run", tmp_path / "straight"
    assert ask(*flags(data, path, epochs=2)) == 0
    file = path / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    # As after a SIGKILL: an epoch that no checkpoint has, and half a line.
    file.write_text("".join(lines) + lines[1].replace('"epoch": 2', '"epoch": 3') + lines[0][:30])
    assert ask(*resume(path, epochs=3)) == 0
    assert ask(*flags(data, straight, epochs=3)) == 0
    assert result(path) == result(straight)
    for damaged in (lines[1:], [lines[0], lines[0], lines[1]], [lines[0], "{}\n", lines[1]]):
        file.write_text("".join(damaged))
        assert ask(*resume(path, epochs=4)) == 1
        assert "metrics.jsonl" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_starts_from_the_beginning(data, tmp_path, capsys):
    path, straight = tmp_path / "run", tmp_path / "straight"
    assert ask(*flags(data, path, epochs=1)) == 0
    (file,) = (path / checkpoint.FOLDER).iterdir()
    file.rename(file.with_name(f"{file.name}.4711{checkpoint.PARTIAL}"))
    assert ask(*resume(path, epochs=2)) == 0
    assert "no checkpoint yet" in capsys.readouterr().out
    assert ask(*flags(data, straight, epochs=2)) == 0
    assert result(path) == result(straight)


@pytest.mark.long
def test_checkpoint_every_and_keep(data, tmp_path):
    def steps(name: str, **more: object) -> list[int]:
        assert ask(*flags(data, tmp_path / name, epochs=3, **more)) == 0
        names = [path.name for path in (tmp_path / name / checkpoint.FOLDER).iterdir()]
        assert all(name.endswith(".safetensors") for name in names)
        return sorted(int(name.removesuffix(".safetensors")) for name in names)

    assert steps("default") == [16, 32, 48]
    assert steps("two", checkpoint_every=2, keep=9) == [32, 48]
    # Never more than ten from one to the next, though the steps in flight end with an epoch.
    assert steps("10", checkpoint_every="10steps", keep=9) == [10, 16, 26, 32, 42, 48]
    assert steps("20", checkpoint_every="20steps", keep=9) == [16, 32, 48]
    assert steps("40", checkpoint_every="40steps", keep=9) == [32, 48]
    assert steps("never", checkpoint_every=0) == [48]
    assert steps("one", keep=1) == [48]


def test_what_cannot_be_resumed_is_refused(data, tmp_path, capsys):
    path = tmp_path / "run"
    assert ask(*flags(data, path, epochs=1)) == 0
    before = result(path)

    def refusal(*arguments: object) -> str:
        errors = refused(capsys, *arguments)
        assert errors.startswith("2 ")
        assert result(path) == before
        return errors

    assert "learning-rate is 0.1, the run's is 0.003" in refusal(
        *resume(path, epochs=2, learning_rate=0.1)
    )
    assert "hidden-sizes is (9,), the run's is (128, 64)" in refusal(
        *resume(path, epochs=2, hidden_sizes=9)
    )
    assert "dataset is kmnist, the run's is mnist" in refusal(*resume(path, dataset="kmnist"))
    assert "--resume needs the --run-dir" in refusal("train", "--resume")
    assert "leave --config out" in refusal(*resume(path, config=path / "config.json"))
    missing = tmp_path / "nothing"
    assert f"{missing}: there is no such file or folder" in refusal(*resume(missing))
    missing.mkdir()
    assert f"{missing}: is no run folder" in refusal(*resume(missing))
    weights = path / "weights.safetensors"
    assert ask("import", weights, "--run-dir", tmp_path / "imported") == 0
    assert "was not trained here" in refusal(*resume(tmp_path / "imported"))


def test_other_images_are_refused(data, digits, tmp_path, capsys):
    path = tmp_path / "run"
    assert ask(*flags(data, path, epochs=1)) == 0
    images = digits["train_images"].copy()
    images[0, 0, 0] ^= 1
    other = write_idx_dir(tmp_path / "other", digits | {"train_images": images})
    assert ask(*resume(path, epochs=2, data_dir=other)) == 2
    assert "images is" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(data, tmp_path, capsys):
    path = tmp_path / "run"
    rate = ["--learning-rate", "1e4", "--checkpoint-every", "1steps", "--keep", "99"]
    assert ask(*flags(data, path, epochs=3), *rate) == 1
    said = capsys.readouterr().err
    assert "The loss is not finite in step" in said
    assert "--learning-rate below 10000" in said
    bad = int(said.split("in step ")[1].split(":")[0])
    assert checkpoint.steps(path)[-1] in (bad - 1, bad - 2)
    assert ask(*resume(path)) == 1
    assert f"in step {bad}" in capsys.readouterr().err


@pytest.mark.parametrize(
    "left", ["metrics.jsonl", "weights.safetensors", "checkpoints", "sweep.jsonl"]
)
def test_what_is_left_of_a_run_is_not_written_over(data, tmp_path, capsys, left):
    path = tmp_path / "run"
    path.mkdir()
    (path / left).write_text("kept")
    assert ask(*flags(data, path)) == 2
    assert "holds a run already, or what is left of one" in capsys.readouterr().err
    assert {file.name for file in path.iterdir()} == {left}
