"""Runs that are stopped, killed, disturbed and resumed, as real processes where that matters."""

from __future__ import annotations

import contextlib
import json
import os
import shlex
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks import faults
from flax_mnist.cli.main import main
from flax_mnist.store import checkpoint, run_folder
from flax_mnist.store import run_folder as run_dir
from flax_mnist.store.metrics import read_metrics
from flax_mnist.store.record import read_config
from tests.helpers.command_line import environment
from tests.helpers.idx_files import write_idx_dir

COMMAND = [sys.executable, "-m", "flax_mnist"]


@pytest.fixture(scope="module")
def data(tmp_path_factory, digits) -> Path:
    return write_idx_dir(tmp_path_factory.mktemp("data") / "idx", digits)


def flags(data: Path, path: Path, **more: object) -> list[str]:
    given = {"data-dir": data, "run-dir": path, "dataset": "mnist", "momentum": 0.9} | {
        name.replace("_", "-"): value for name, value in more.items()
    }
    return ["train", *(text for name, value in given.items() for text in (f"--{name}", str(value)))]


def resume(path: Path, *more: object) -> list[str]:
    return ["train", "--resume", "--run-dir", str(path), *map(str, more)]


def result(path: Path) -> tuple[bytes, list[tuple]]:
    """What must not depend on interruptions: weights, and metrics without their times."""
    metrics = [row[: row._fields.index("seconds")] for row in read_metrics(path)]
    return (path / "weights.safetensors").read_bytes(), metrics


@contextlib.contextmanager
def training(data: Path, path: Path, **more: object) -> Iterator[subprocess.Popen]:
    """A process that has finished some epochs of very many; killed at the end if it still runs."""
    process = subprocess.Popen(
        [*COMMAND, *flags(data, path, **({"epochs": 100_000} | more))],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )
    try:
        while not process.stdout.readline().startswith("Epoch 4/"):
            assert process.poll() is None, process.stderr.read()
        yield process
    finally:
        process.kill()
        process.communicate()


@pytest.mark.parametrize(
    ("signum", "code", "word"),
    [(signal.SIGINT, 130, "interrupted"), (signal.SIGTERM, 143, "terminated")],
)
def test_a_stopped_run_goes_on_as_if_it_had_never_stopped(data, tmp_path, signum, code, word):
    path = tmp_path / "a run"
    with training(data, path, checkpoint_every="5steps") as process:
        process.send_signal(signum)
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert f"flax-mnist: {word} after step" in err
    assert f"train --resume --run-dir '{path}'" in err
    assert (path / run_folder.CURVES).exists()
    epochs = len(read_metrics(path)) + 2
    assert main(resume(path, "--epochs", epochs)) == 0
    straight = tmp_path / "straight"
    assert main(flags(data, straight, epochs=epochs, checkpoint_every="5steps")) == 0
    assert result(path) == result(straight)


def test_a_second_signal_ends_it_at_once():
    script = (
        "import os, signal, time\n"
        "from flax_mnist.runs import signals\n"
        "signals.watch()\n"
        "with signals.patience() as received:\n"
        "    os.kill(os.getpid(), signal.SIGINT)\n"
        "    while not received(): time.sleep(0.01)\n"
        "    print(received(), flush=True)\n"
        "    os.kill(os.getpid(), signal.SIGTERM)\n"
        "    time.sleep(100)\n"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, timeout=50, check=False
    )
    assert (done.returncode, done.stdout) == (143, "2\n")
    assert "terminated" in done.stderr


def test_one_writer(data, tmp_path):
    path = tmp_path / "run"
    with training(data, path) as process:
        for again in (resume(path), flags(data, path)):
            done = subprocess.run([*COMMAND, *again], capture_output=True, text=True, check=False)
            assert done.returncode == 2
            assert "another process" in done.stderr or "holds a run already" in done.stderr
        with pytest.raises(run_dir.RequestError, match="another process is training there"):
            run_folder.only_writer(path).__enter__()
        process.kill()
        process.wait()
    assert main(resume(path, "--epochs", len(read_metrics(path)) + 1)) == 0


@pytest.mark.long
def test_a_short_campaign_of_faults(capfd):
    sizes = ["--kills", "1", "--saves", "1", "--damages", "4", "--full-disks", "1"]
    assert faults.main(sizes) == 0
    rows = [line for line in capfd.readouterr().out.splitlines() if line.count("│") == 7]
    assert len(rows) == 5


def test_the_campaign_would_notice_a_run_that_started_over():
    assert faults.begun_after("MNIST ...\nGoing on after step 1,240 of 2,814\n") == 1240
    assert faults.begun_after("runs/a is finished: it has 3 epochs.") > 10**9
    assert faults.begun_after("Epoch 1/3") == 0


def test_a_finished_run_says_so_and_can_be_extended(data, tmp_path, capsys):
    path, straight = tmp_path / "run", tmp_path / "straight"
    assert main(flags(data, path, epochs=2)) == 0
    before = result(path)
    assert main(resume(path)) == 0
    assert "is finished: it has 2 epochs" in capsys.readouterr().out
    assert main(resume(path, "--epochs", 1)) == 0
    assert result(path) == before
    capsys.readouterr()
    assert main(resume(path, "--epochs", 4)) == 0
    assert "\nGoing on after step 32 of 64\n" in capsys.readouterr().out
    assert read_config(path).config.epochs == 4
    assert main(flags(data, straight, epochs=4)) == 0
    assert result(path) == result(straight)
    assert [row[0] for row in result(path)[1]] == [1, 2, 3, 4]


def test_metrics_beyond_the_checkpoint_are_dropped_and_missing_ones_refused(data, tmp_path, capsys):
    path, straight = tmp_path / "run", tmp_path / "straight"
    assert main(flags(data, path, epochs=2)) == 0
    file = path / "metrics.jsonl"
    lines = file.read_text().splitlines(keepends=True)
    # As after a SIGKILL: an epoch that no checkpoint has, and half a line.
    file.write_text("".join(lines) + lines[1].replace('"epoch": 2', '"epoch": 3') + lines[0][:30])
    assert main(resume(path, "--epochs", 3)) == 0
    assert main(flags(data, straight, epochs=3)) == 0
    assert result(path) == result(straight)
    for damaged in (lines[1:], [lines[0], lines[0], lines[1]], [lines[0], "{}\n", lines[1]]):
        file.write_text("".join(damaged))
        assert main(resume(path, "--epochs", 4)) == 1
        assert "metrics.jsonl" in capsys.readouterr().err


def test_a_run_without_a_checkpoint_starts_from_the_beginning(data, tmp_path, capsys):
    path, straight = tmp_path / "run", tmp_path / "straight"
    assert main(flags(data, path, epochs=1)) == 0
    for checkpoint_folder in (path / checkpoint.FOLDER).iterdir():
        for file in checkpoint_folder.rglob("*"):
            if file.is_file():
                file.unlink()
        os.rename(checkpoint_folder, path / checkpoint.FOLDER / checkpoint.UNFINISHED)
    assert main(resume(path, "--epochs", 2)) == 0
    assert "no checkpoint yet" in capsys.readouterr().out
    assert main(flags(data, straight, epochs=2)) == 0
    assert result(path) == result(straight)


def test_checkpoint_every_and_keep(data, tmp_path):
    def steps(name: str, **more: object) -> set[str]:
        assert main(flags(data, tmp_path / name, epochs=3, **more)) == 0
        return {path.name for path in (tmp_path / name / checkpoint.FOLDER).iterdir()}

    assert steps("default") == {"16", "32", "48"}
    assert steps("two", checkpoint_every=2, keep=9) == {"32", "48"}
    # Never more than ten from one to the next, though the steps in flight end with an epoch.
    assert steps("10", checkpoint_every="10steps", keep=9) == {"10", "16", "26", "32", "42", "48"}
    assert steps("20", checkpoint_every="20steps", keep=9) == {"16", "32", "48"}
    assert steps("40", checkpoint_every="40steps", keep=9) == {"32", "48"}
    assert steps("never", checkpoint_every=0) == {"48"}
    assert steps("one", keep=1) == {"48"}


def test_what_cannot_be_resumed_is_refused(data, tmp_path, capsys):
    path = tmp_path / "run"
    assert main(flags(data, path, epochs=1)) == 0
    before = result(path)

    def refused(*arguments: object) -> str:
        capsys.readouterr()
        assert main([str(a) for a in arguments]) == 2
        assert result(path) == before
        return capsys.readouterr().err

    assert "learning-rate is 0.1, the run's is 0.003" in refused(
        *resume(path, "--epochs", 2, "--learning-rate", 0.1)
    )
    assert "hidden-sizes is (9,), the run's is (128, 64)" in refused(
        *resume(path, "--epochs", 2, "--hidden-sizes", 9)
    )
    assert "dataset is kmnist, the run's is mnist" in refused(*resume(path, "--dataset", "kmnist"))
    assert "--resume needs the --run-dir" in refused("train", "--resume")
    assert "leave --config out" in refused(*resume(path, "--config", path / "config.json"))
    assert "is no run folder" in refused(*resume(tmp_path / "nothing"))
    weights = path / "weights.safetensors"
    assert main(["import", str(weights), "--run-dir", str(tmp_path / "imported")]) == 0
    assert "was not trained here" in refused(*resume(tmp_path / "imported"))


def test_other_images_are_refused(data, digits, tmp_path, capsys):
    path = tmp_path / "run"
    assert main(flags(data, path, epochs=1)) == 0
    images = digits["train_images"].copy()
    images[0, 0, 0] ^= 1
    other = write_idx_dir(tmp_path / "other", digits | {"train_images": images})
    assert main(resume(path, "--epochs", 2, "--data-dir", other)) == 2
    assert "images is" in capsys.readouterr().err


def test_a_loss_that_is_not_finite_leaves_the_last_good_checkpoint(data, tmp_path, capsys):
    path = tmp_path / "run"
    rate = ["--learning-rate", "1e4", "--checkpoint-every", "1steps", "--keep", "99"]
    assert main([*flags(data, path, epochs=3), *rate]) == 1
    said = capsys.readouterr().err
    assert "The loss is not finite in step" in said
    assert "--learning-rate below 10000" in said
    bad = int(said.split("in step ")[1].split(":")[0])
    steps = sorted(int(p.name) for p in (path / checkpoint.FOLDER).iterdir())
    assert steps[-1] in (bad - 1, bad - 2)
    assert main(resume(path)) == 1
    assert f"in step {bad}" in capsys.readouterr().err


@pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such shell")
@pytest.mark.parametrize("closed", ["stdout", "stderr"])
def test_a_stream_that_was_never_there_stops_no_training(data, tmp_path, closed):
    words = shlex.join([*COMMAND, *flags(data, tmp_path / "run", epochs=1)])
    redirect = {"stdout": ">&-", "stderr": "2>&-"}[closed]
    done = subprocess.run(
        ["sh", "-c", f"{words} {redirect}"], capture_output=True, text=True, check=False
    )
    assert (done.returncode, done.stderr) == (0, "")
    assert ("Epoch 1/1" in done.stdout) == (closed == "stderr")
    assert len(read_metrics(tmp_path / "run")) == 1


def test_a_reader_of_stderr_that_leaves_takes_nothing_from_stdout(tmp_path):
    ear, stderr = os.pipe()
    os.close(ear)
    done = subprocess.run(
        [*COMMAND, "train", "--json", "--epochs", "1", "--run-dir", tmp_path / "run"],
        stdout=subprocess.PIPE, stderr=stderr, text=True, check=False,
        env=environment(XDG_CACHE_HOME=str(tmp_path), HOME=str(tmp_path)),
    )  # fmt: skip
    os.close(stderr)
    assert done.stdout == (tmp_path / "run" / "metrics.jsonl").read_text()


@pytest.mark.parametrize(
    "left", ["metrics.jsonl", "weights.safetensors", "checkpoints", "sweep.jsonl"]
)
def test_what_is_left_of_a_run_is_not_written_over(data, tmp_path, capsys, left):
    path = tmp_path / "run"
    path.mkdir()
    (path / left).write_text("kept")
    assert main(flags(data, path)) == 2
    assert "holds a run already, or what is left of one" in capsys.readouterr().err
    assert {file.name for file in path.iterdir()} == {left}


@pytest.mark.parametrize("where", ["/dev/full", "closed pipe"])
def test_a_stdout_that_takes_nothing_does_not_stop_a_training(data, tmp_path, where):
    path = tmp_path / "run"
    if where == "/dev/full":
        if not Path(where).exists():
            pytest.skip("there is no /dev/full")
        stdout = os.open(where, os.O_WRONLY)
    else:
        ear, stdout = os.pipe()
        os.close(ear)
    done = subprocess.run(
        [*COMMAND, *flags(data, path, epochs=3)],
        stdout=stdout, stderr=subprocess.PIPE, text=True, check=False,
    )  # fmt: skip
    os.close(stdout)
    assert (
        len(json.loads("[" + ",".join((path / "metrics.jsonl").read_text().splitlines()) + "]"))
        == 3
    )
    assert "Traceback" not in done.stderr
    assert done.returncode == (1 if where == "/dev/full" else 0)
    assert ("No space left" in done.stderr) == (where == "/dev/full")
