"""The command line, as processes that a user would start."""

from __future__ import annotations

import gzip
import json
import os
import re
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file

import flax_mnist
from benchmarks.torch_reference import build_model, evaluate, normalize
from flax_mnist.cli import main
from flax_mnist.run_dir import read_config
from tests.conftest import write_idx_dir

COMMAND = [sys.executable, "-m", "flax_mnist"]


def run(
    *arguments: object, cwd: Path | None = None, **environment: str
) -> subprocess.CompletedProcess:
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), **environment},
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits) -> Path:
    """A run of three epochs on the small set, and its folder's neighbour `idx` with the data."""
    folder = tmp_path_factory.mktemp("trained")
    write_idx_dir(folder / "idx", digits)
    done = run(
        "train", "--data-dir", "idx", "--dataset", "mnist", "--run-dir", "run", "--epochs", 3,
        "--learning-rate", 0.05, "--momentum", 0.9, cwd=folder,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    (folder / "stdout").write_text(done.stdout)
    return folder / "run"


def metrics(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


# ---- train ----------------------------------------------------------------------------------


def test_train_prints_the_tutorials_line_and_what_it_trained_on(trained):
    lines = (trained.parent / "stdout").read_text().splitlines()
    assert lines[0] == "mnist: 1,000 training and 200 test images from idx"
    assert "784-128-64-10 MLP, 109,386 parameters" in lines[1]
    epochs = [line for line in lines if line.startswith("Epoch")]
    assert len(epochs) == 3
    for line, row in zip(epochs, metrics(trained), strict=True):
        said = re.search(r"Training loss: (\d\.\d{4})  test loss (\S+)  test accuracy (\S+)%", line)
        assert float(said[1]) == pytest.approx(row["train_loss"], abs=5e-5)
        assert float(said[2]) == pytest.approx(row["test_loss"], abs=5e-5)
        assert float(said[3]) == pytest.approx(100 * row["test_accuracy"], abs=5e-3)
    assert lines[-1] == "Saved in run"


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


def test_the_saved_weights_score_in_pytorch_what_training_said(trained, digits):
    model = build_model()
    tensors = {k: torch.tensor(v) for k, v in load_file(trained / "weights.safetensors").items()}
    model.load_state_dict(tensors, strict=True)
    labels = torch.tensor(digits["test_labels"], dtype=torch.int64)
    loss, accuracy = evaluate(model, normalize(digits["test_images"]), labels)
    assert loss == pytest.approx(metrics(trained)[-1]["test_loss"], rel=1e-5)
    assert accuracy == pytest.approx(metrics(trained)[-1]["test_accuracy"])
    assert accuracy > 0.5


def test_the_same_command_gives_the_same_bytes(trained):
    run("train", "--data-dir", "idx", "--dataset", "mnist", "--run-dir", "again", "--epochs", 3,
        "--learning-rate", 0.05, "--momentum", 0.9, cwd=trained.parent)  # fmt: skip
    again = trained.parent / "again"
    assert (again / "weights.safetensors").read_bytes() == (
        trained / "weights.safetensors"
    ).read_bytes()


def test_a_run_is_not_overwritten(trained):
    before = (trained / "weights.safetensors").read_bytes()
    done = run("train", "--data-dir", trained.parent / "idx", "--run-dir", trained)
    assert done.returncode == 2
    assert "holds a run already" in done.stderr
    assert (trained / "weights.safetensors").read_bytes() == before


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
def test_what_can_be_asked_for_trains(idx_dir, tmp_path, flags):
    out = tmp_path / "run"
    done = run("train", "--data-dir", idx_dir, "--run-dir", out, "--epochs", 1, *flags)
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    assert 0 < metrics(out)[0]["train_loss"] < 2.5
    scored = run("evaluate", out)
    assert scored.returncode == 0, scored.stderr
    assert f"test loss {metrics(out)[0]['test_loss']:.4f}" in scored.stdout


def test_the_default_run_folder_is_named_after_the_dataset(idx_dir, tmp_path):
    for _ in range(2):
        done = run("train", "--data-dir", idx_dir, "--epochs", 1, cwd=tmp_path)
        assert done.returncode == 0, done.stderr
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(runs) == 2
    assert all(re.fullmatch(r"mnist-\d{8}-\d{6}(-2)?", name) for name in runs)


def test_without_mnist_it_trains_on_synthetic_and_says_so_twice(tmp_path):
    offline = dict.fromkeys(("http_proxy", "https_proxy"), "http://127.0.0.1:9") | {"no_proxy": ""}
    done = run("train", "--epochs", 1, "--batch-size", 1000, cwd=tmp_path, **offline)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("synthetic: 60,000 training and 10,000 test images")
    warnings = [line for line in done.stderr.splitlines() if "NOT MNIST" in line]
    assert len(warnings) == 2
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name.startswith("synthetic-")
    assert metrics(folder)[0]["dataset"] == "synthetic"
    asked = run("train", "--dataset", "mnist", cwd=tmp_path, **offline)
    assert asked.returncode == 1
    assert asked.stderr.startswith("flax-mnist: mnist is not on disk and not to be had")
    assert len(list((tmp_path / "runs").iterdir())) == 1


# ---- evaluate and predict -------------------------------------------------------------------


def test_evaluate_repeats_what_training_said(trained, tmp_path):
    last = metrics(trained)[-1]
    expected = f"test loss {last['test_loss']:.4f}  test accuracy {last['test_accuracy']:.2%}"
    # From elsewhere: the run knows where its data is.
    done = run("evaluate", trained, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == expected
    file = run("evaluate", trained / "weights.safetensors", "--data-dir", trained.parent / "idx")
    assert file.stdout.splitlines()[-1] == expected


def test_predict_agrees_with_pytorch(trained, digits):
    done = run("predict", trained, "--index", 0, 5, "--json")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    model = build_model()
    tensors = {k: torch.tensor(v) for k, v in load_file(trained / "weights.safetensors").items()}
    model.load_state_dict(tensors)
    with torch.no_grad():
        expected = model(normalize(digits["test_images"][[0, 5]])).exp().numpy()
    for row, index, probabilities in zip(rows, (0, 5), expected, strict=True):
        assert row["label"] == str(digits["test_labels"][index])
        assert row["prediction"] == str(probabilities.argmax())
        np.testing.assert_allclose(list(row["probabilities"].values()), probabilities, atol=1e-5)


def test_predict_shows_pictures_in_files_as_it_shows_test_images(trained, digits, tmp_path):
    path = tmp_path / "a digit.png"
    Image.fromarray(255 - digits["test_images"][7]).save(path)
    by_file = run("predict", trained, path).stdout.splitlines()
    by_index = run("predict", trained, "--index", 7).stdout.splitlines()
    assert by_file[0].startswith(f"{path}: ")
    assert by_index[0].endswith(f"(label: {digits['test_labels'][7]})")
    assert by_file[1:] == by_index[1:]
    assert len(by_file) == 11
    percentages = [float(line.split()[1].rstrip("%")) for line in by_file[1:]]
    assert sum(percentages) == pytest.approx(100, abs=0.1)


def test_predict_draws_with_what_the_terminal_has(trained):
    plain = run("predict", trained, "--index", 0, PYTHONIOENCODING="ascii")
    assert "#" in plain.stdout
    assert "█" in run("predict", trained, "--index", 0, PYTHONIOENCODING="utf-8").stdout


# ---- export and import ----------------------------------------------------------------------


def test_export_and_import_round_trip(trained, tmp_path):
    file = tmp_path / "weights.safetensors"
    assert run("export", trained, "--output", file).returncode == 0
    assert file.read_bytes() == (trained / "weights.safetensors").read_bytes()
    torch.save({k: torch.tensor(v) for k, v in load_file(file).items()}, tmp_path / "weights.pt")
    for source in (file, tmp_path / "weights.pt"):
        out = tmp_path / f"from{source.suffix}"
        done = run("import", source, "--run-dir", out, "--data-dir", trained.parent / "idx")
        assert done.returncode == 0, done.stderr
        assert (out / "weights.safetensors").read_bytes() == file.read_bytes()
        expected = run("evaluate", trained).stdout.splitlines()[-1]
        assert run("evaluate", out).stdout.splitlines()[-1] == expected


# ---- Bad requests ---------------------------------------------------------------------------


def refused(capsys, *arguments: object) -> str:
    """Runs a request in this process; what it says on stderr, having checked that it is short."""
    code = main([str(argument) for argument in arguments])
    said = capsys.readouterr()
    assert said.out == ""
    lines = said.err.splitlines()
    assert 1 <= len(lines) <= 2, said.err
    assert lines[0].startswith("flax-mnist: ")
    assert "Traceback" not in said.err
    assert code in (1, 2)
    return f"{code} {said.err}"


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "Expected one of {train, evaluate, predict"),
        ("trian", "Unrecognized options: trian. Available subcommands: train"),
        ("train --epoch 3", "--epoch, 3. Perhaps you meant: --epochs"),
        ("train --dataset mnits", "invalid choice 'mnits' for argument '--dataset'"),
        ("train --epochs 0", "epochs is 0; it must be at least 1."),
        ("train --epochs 1.5", "Error parsing --epochs"),
        ("train --epochs", "--epochs"),
        ("train --batch-size -1", "batch-size is -1; it must be from 1 to"),
        ("train --learning-rate nan", "learning-rate is nan; it must be above 0 and finite."),
        ("train --hidden-sizes 1000000000", "hidden-sizes is 1000000000; it must be"),
        ("train --data-dir no/such/folder", "no/such/folder: there is no such folder."),
        ("train --device gpu", "--device gpu: there is none; JAX finds cpu."),
        ("evaluate", "Missing from flax-mnist evaluate: RUN_DIR|FILE.safetensors"),
        ("evaluate no.safetensors", "no.safetensors: there is no such file."),
        ("predict no.safetensors", "predict needs picture files, or --index"),
    ],
)
def test_bad_requests_exit_2_with_a_line(capsys, arguments, says):
    assert refused(capsys, *arguments.split()).startswith("2 ")
    main(arguments.split())
    assert says in " ".join(capsys.readouterr().err.split())


def test_bad_requests_about_a_run(capsys, trained, tmp_path):
    (tmp_path / "a.png").write_text("no picture")
    assert "not a picture" in refused(capsys, "predict", trained, tmp_path / "a.png")
    assert "index is 200; the test images are 0 to 199" in refused(
        capsys, "predict", trained, "--index", 200
    )
    assert "index is -1" in refused(capsys, "predict", trained, "--index", -1)
    assert "is no run folder" in refused(capsys, "evaluate", tmp_path)
    (tmp_path / "config.json").write_text("{")
    assert refused(capsys, "evaluate", tmp_path).startswith("1 ")


def test_corrupt_data_exits_1_and_names_the_file(capsys, idx_dir, tmp_path):
    path = idx_dir / "train-labels-idx1-ubyte.gz"
    labels = bytearray(gzip.decompress(path.read_bytes()))
    labels[-1] = 10
    path.write_bytes(gzip.compress(bytes(labels)))
    said = refused(capsys, "train", "--data-dir", idx_dir, "--run-dir", tmp_path / "run")
    assert said.startswith("1 ")
    assert str(path) in said
    assert not (tmp_path / "run").exists()


def test_a_loss_that_is_not_finite_exits_1(idx_dir, tmp_path):
    out = tmp_path / "r"
    done = run("train", "--data-dir", idx_dir, "--run-dir", out, "--learning-rate", 1e20)
    assert done.returncode == 1
    assert done.stderr.startswith("flax-mnist: The training loss is nan in epoch 1")
    # A single step: the loss before it is finite, the network after it is not.
    done = run(
        "train", "--data-dir", idx_dir, "--run-dir", tmp_path / "s", "--learning-rate", 1e37,
        "--batch-size", 1000, "--epochs", 1,
    )  # fmt: skip
    assert done.returncode == 1
    assert done.stderr.startswith("flax-mnist: The test loss is nan in epoch 1")
    assert not (tmp_path / "s" / "metrics.jsonl").exists()


def test_debug_shows_the_traceback_and_changes_nothing_else():
    done = run("train", "--data-dir", "no/such/folder", "--debug")
    assert "Traceback" in done.stderr
    assert done.stderr.splitlines()[-1].startswith("flax-mnist: no/such/folder")
    assert done.returncode == 2


# ---- Start, help, signals -------------------------------------------------------------------


def test_help_needs_no_jax():
    code = (
        "import sys\nfrom flax_mnist.cli import main\n"
        "try: main(['train', '--help'])\nexcept SystemExit as stop: assert not stop.code\n"
        "assert not {'jax', 'flax', 'optax', 'tensorflow_datasets'} & set(sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    for flag in ("--data-dir", "--learning-rate FLOAT", "(default: 0.003)"):
        assert flag in done.stdout


def test_training_on_idx_files_needs_no_tensorflow_datasets(idx_dir, tmp_path):
    code = (
        "import sys\nfrom flax_mnist.cli import main\n"
        f"assert main(['train', '--data-dir', {str(idx_dir)!r}, '--epochs', '1']) == 0\n"
        "assert not {'tensorflow', 'tensorflow_datasets', 'torch', 'benchmarks'} & set(sys.modules)"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], cwd=tmp_path, capture_output=True, text=True, check=False,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    assert done.returncode == 0, done.stderr


def test_version(capsys):
    assert main(["--version"]) == 0
    assert capsys.readouterr().out == f"flax-mnist {flax_mnist.__version__}\n"


def test_doctor_names_versions_devices_and_data():
    said = run("doctor").stdout
    for word in ("jax", "optax", "cpu:0", "kmnist", "not on disk", "synthetic"):
        assert word in said
    said = run("doctor", JAX_PLATFORMS="nonsense")
    assert said.returncode == 0
    assert re.search(r"device +NONE: .*nonsense", said.stdout)


POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals or pipes")


@POSIX
@pytest.mark.parametrize("delay", [0.4, 0.7, 1.0])
def test_a_signal_is_obeyed_while_the_program_still_starts(idx_dir, tmp_path, delay):
    process = subprocess.Popen(
        [*COMMAND, "train", "--data-dir", idx_dir, "--run-dir", "r", "--epochs", "1000000"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    assert (process.returncode, errors) == (143, "flax-mnist: terminated\n")


@POSIX
def test_a_closed_pipe_does_not_end_a_training(idx_dir, tmp_path):
    command = [*COMMAND, "train", "--data-dir", idx_dir, "--run-dir", "r", "--epochs", "3"]
    process = subprocess.Popen(
        command, cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    process.stdout.readline()
    process.stdout.close()
    errors = process.stderr.read()
    assert (process.wait(60), errors) == (0, "")
    assert len(metrics(tmp_path / "r")) == 3


@POSIX
def test_a_terminal_gets_a_progress_bar_and_a_pipe_does_not(idx_dir, tmp_path):
    import pty

    command = [*COMMAND, "train", "--data-dir", str(idx_dir), "--epochs", "3", "--run-dir"]
    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        [*command, tmp_path / "a"], stdout=theirs, stderr=subprocess.PIPE,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1]), "TERM": "xterm"},
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while chunk := _read(ours):
        seen += chunk
    assert process.wait(60) == 0, process.stderr.read()
    assert "Epochs " in seen.decode()
    assert "━" in seen.decode()
    assert "3/3" in seen.decode()
    assert "Epochs" not in run(*command[3:], tmp_path / "b", FORCE_COLOR="1").stdout


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""


def test_a_terminal_without_utf8_is_no_obstacle(idx_dir, tmp_path):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": ""}
    assert run("--help", **plain).returncode == 0
    out = tmp_path / "é ß"
    done = run("train", "--data-dir", idx_dir, "--epochs", 1, "--run-dir", out, **plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert (out / "weights.safetensors").exists()


def test_the_compilation_cache_can_be_turned_off(idx_dir, tmp_path):
    for number, (flags, variables, kept) in enumerate((
        ((), {}, True),
        (("--no-compilation-cache",), {}, False),
        ((), {"JAX_ENABLE_COMPILATION_CACHE": "false"}, False),
    )):  # fmt: skip
        cache = tmp_path / f"cache{number}"
        done = run(
            "train", "--data-dir", idx_dir, "--epochs", 1, "--run-dir", tmp_path / str(number),
            *flags, XDG_CACHE_HOME=str(cache), **variables,
        )  # fmt: skip
        assert done.returncode == 0, done.stderr
        assert any(path.name.startswith("jit_train_epoch") for path in cache.rglob("*")) == kept


def test_what_is_no_ordinary_file_is_not_overwritten(capsys, trained, tmp_path):
    (tmp_path / "folder").mkdir()
    said = refused(capsys, "export", trained, "--output", tmp_path / "folder")
    assert said == f"2 flax-mnist: {tmp_path / 'folder'}: is no ordinary file.\n"
    said = refused(capsys, "export", trained, "--output", tmp_path / "no" / "file")
    assert said == f"2 flax-mnist: {tmp_path / 'no/file'}: there is no folder {tmp_path / 'no'}.\n"
    assert list(tmp_path.rglob("*")) == [tmp_path / "folder"]


@POSIX
@pytest.mark.parametrize(("sent", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_signals_end_a_run_with_their_codes(idx_dir, tmp_path, sent, code):
    out = tmp_path / "run"
    process = subprocess.Popen(
        [*COMMAND, "train", "--data-dir", idx_dir, "--run-dir", out, "--epochs", "1000000"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[1])},
    )  # fmt: skip
    until = time.monotonic() + 60
    while not (out / "metrics.jsonl").exists() and time.monotonic() < until:
        time.sleep(0.05)
    process.send_signal(sent)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == code, errors
    assert errors.startswith("flax-mnist: ")
    assert len(errors.splitlines()) == 1
    assert run("evaluate", out).returncode == 0


# ---- The package ----------------------------------------------------------------------------


def test_every_public_name_is_there():
    for name in flax_mnist.__all__:
        assert getattr(flax_mnist, name).__module__.startswith("flax_mnist.")
    stub = Path(flax_mnist.__file__).read_text()
    typed = re.findall(r"^    from flax_mnist\.\w+ import (\w+) as \1$", stub, re.MULTILINE)
    assert sorted(typed) == flax_mnist.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        flax_mnist.nothing  # noqa: B018


# ---- Real MNIST -----------------------------------------------------------------------------


@pytest.mark.long
def test_real_mnist_gives_the_tutorials_results(mnist_dir, tmp_path):
    """Ten seeds against PyTorch's ten: means of the training losses, test loss and accuracy."""
    rows = []
    for seed in range(10):
        out = tmp_path / str(seed)
        done = run("train", "--dataset", "mnist", "--data-dir", mnist_dir, "--seed", seed,
                   "--run-dir", out)  # fmt: skip
        assert done.returncode == 0, done.stderr
        rows.append(metrics(out))
    losses = np.mean([[epoch["train_loss"] for epoch in row] for row in rows], axis=0)
    np.testing.assert_allclose(losses, [1.908, 0.860, 0.531, 0.433, 0.387], rtol=0.03)
    last = [row[-1] for row in rows]
    assert np.mean([epoch["test_loss"] for epoch in last]) == pytest.approx(0.3565, abs=0.006)
    assert np.mean([epoch["test_accuracy"] for epoch in last]) == pytest.approx(0.8983, abs=0.0025)

    done = run("predict", tmp_path / "0", "--index", 0, 1, 2, "--json")
    assert [json.loads(line)["prediction"] for line in done.stdout.splitlines()] == ["7", "2", "1"]
