"""What the command line does, and what it refuses."""

from __future__ import annotations

import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from safetensors.numpy import load_file, save_file

import flax_mnist
from benchmarks.equivalence.torch_reference import build_model, evaluate, normalize
from flax_mnist.store import run_folder
from flax_mnist.store.record import read_config
from tests.helpers.command_line import COMMAND, ask, environment, refused, run, said
from tests.helpers.idx_files import write_idx_dir

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such signals or pipes")
FLAGS = ("--dataset", "mnist", "--epochs", 3, "--learning-rate", 0.05, "--momentum", 0.9)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, digits) -> Path:
    """A run of three epochs on the small set, and its folder's neighbour `idx` with the data."""
    folder = tmp_path_factory.mktemp("trained")
    write_idx_dir(folder / "idx", digits)
    done = run(
        "train", "--data-dir", "idx", "--run-dir", "run", *FLAGS,
        cwd=folder, XDG_CACHE_HOME=str(folder / "cache"), FORCE_COLOR="1",
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    (folder / "stdout").write_text(done.stdout)
    return folder / "run"


def metrics(run_dir: Path) -> list[dict]:
    return [json.loads(line) for line in (run_dir / "metrics.jsonl").read_text().splitlines()]


# ---- train ----------------------------------------------------------------------------------


def test_train_prints_the_tutorials_line_and_what_it_trained_on(trained):
    text = (trained.parent / "stdout").read_text()
    lines = text.splitlines()
    assert lines[0] == "mnist: 1,000 training and 200 test images from idx"
    assert "784-128-64-10 MLP, 109,386 parameters" in lines[1]
    epochs = [line for line in lines if line.startswith("Epoch")]
    assert len(epochs) == 3
    for line, row in zip(epochs, metrics(trained), strict=True):
        told = re.search(r"Training loss: (\d\.\d{4})  test loss (\S+)  test accuracy (\S+)%", line)
        assert float(told[1]) == pytest.approx(row["train_loss"], abs=5e-5)
        assert float(told[2]) == pytest.approx(row["test_loss"], abs=5e-5)
        assert float(told[3]) == pytest.approx(100 * row["test_accuracy"], abs=5e-3)
    assert lines[-1] == "Saved in run"
    # No terminal, no bar and no colours, whatever FORCE_COLOR says.
    assert "Steps" not in text
    assert "\x1b" not in text


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


def test_the_same_command_gives_the_same_bytes(trained, monkeypatch, tmp_path):
    monkeypatch.chdir(trained.parent)
    assert ask("train", "--data-dir", "idx", "--run-dir", tmp_path / "again", *FLAGS) == 0
    again, first = (path / "weights.safetensors" for path in (tmp_path / "again", trained))
    assert again.read_bytes() == first.read_bytes()


def test_a_run_is_not_overwritten(capsys, trained):
    before = (trained / "weights.safetensors").read_bytes()
    said = refused(capsys, "train", "--data-dir", trained.parent / "idx", "--run-dir", trained)
    assert said.startswith(f"2 flax-mnist: {trained}: holds a run already")
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
def test_what_can_be_asked_for_trains(capsys, trained, tmp_path, flags):
    data, out = trained.parent / "idx", tmp_path / "run"
    said(capsys, "train", "--data-dir", data, "--run-dir", out, "--epochs", 1, *flags)
    assert 0 < metrics(out)[0]["train_loss"] < 2.5
    score = said(capsys, "evaluate", out)[-1]
    assert f"test loss {metrics(out)[0]['test_loss']:.4f}" in score


def test_the_default_run_folder_is_named_after_the_dataset(capsys, trained, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for _ in range(2):
        said(capsys, "train", "--data-dir", trained.parent / "idx", "--epochs", 1)
    runs = sorted(path.name for path in (tmp_path / "runs").iterdir())
    assert len(runs) == 2
    assert all(re.fullmatch(r"mnist-\d{8}-\d{6}(-2)?", name) for name in runs)


def test_without_mnist_it_trains_on_synthetic_and_says_so_twice(capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for variable in ("http_proxy", "https_proxy"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")  # nobody is there
    monkeypatch.setenv("no_proxy", "")
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


def test_a_loss_that_is_not_finite_exits_1(capsys, trained, tmp_path):
    def train(*flags: object) -> str:
        assert ask("train", "--data-dir", trained.parent / "idx", *flags) == 1
        return capsys.readouterr().err

    errors = train("--run-dir", tmp_path / "r", "--learning-rate", 1e20)
    assert errors.startswith("flax-mnist: The loss is not finite in step")
    # A single step: the loss before it is finite, the network after it is not.
    errors = train(
        "--run-dir", tmp_path / "s", "--learning-rate", 1e37, "--batch-size", 1000, "--epochs", 1
    )
    assert errors.startswith("flax-mnist: The loss is not finite in the test after epoch 1")
    assert not (tmp_path / "s" / "metrics.jsonl").exists()


# ---- evaluate and predict -------------------------------------------------------------------


def test_evaluate_repeats_what_training_said(capsys, trained, tmp_path):
    last = metrics(trained)[-1]
    expected = f"test loss {last['test_loss']:.4f}  test accuracy {last['test_accuracy']:.2%}"
    # From elsewhere: the run knows where its data is.
    done = run("evaluate", trained, cwd=tmp_path)
    assert done.stdout.splitlines()[-1] == expected
    data = trained.parent / "idx"
    assert said(capsys, "evaluate", trained / "weights.safetensors", "--data-dir", data)[-1] == (
        expected
    )


def test_predict_agrees_with_pytorch(trained, digits, tmp_path):
    path = tmp_path / "é.png"
    Image.fromarray(digits["test_images"][7]).save(path)
    # JSON is JSON, whatever the encoding of stdout.
    done = run(
        "predict",
        trained,
        path,
        "--index",
        0,
        5,
        "--json",
        PYTHONIOENCODING="ascii",
        PYTHONUTF8="0",
    )
    assert (done.returncode, done.stderr) == (0, "")
    rows = [json.loads(line) for line in done.stdout.splitlines()]
    assert [row["image"] for row in rows] == [str(path), "mnist test image 0", "mnist test image 5"]
    model = build_model()
    tensors = {k: torch.tensor(v) for k, v in load_file(trained / "weights.safetensors").items()}
    model.load_state_dict(tensors)
    with torch.no_grad():
        expected = model(normalize(digits["test_images"][[7, 0, 5]])).exp().numpy()
    labels = [None, *(str(digits["test_labels"][i]) for i in (0, 5))]
    for row, label, probabilities in zip(rows, labels, expected, strict=True):
        assert row["label"] == label
        assert row["prediction"] == str(probabilities.argmax())
        np.testing.assert_allclose(list(row["probabilities"].values()), probabilities, atol=1e-5)


def test_predict_shows_pictures_in_files_as_it_shows_test_images(capsys, trained, digits, tmp_path):
    path = tmp_path / "a digit.png"
    Image.fromarray(255 - digits["test_images"][7]).save(path)
    by_file = said(capsys, "predict", trained, path)
    by_index = said(capsys, "predict", trained, "--index", 7)
    assert by_file[0].startswith(f"{path}: ")
    assert by_index[0].endswith(f"(label: {digits['test_labels'][7]})")
    assert by_file[1:] == by_index[1:]
    assert len(by_file) == 11
    percentages = [float(line.split()[1].rstrip("%")) for line in by_file[1:]]
    assert sum(percentages) == pytest.approx(100, abs=0.1)
    assert said(capsys, "predict", trained, path, "--invert", "yes") == by_file
    assert said(capsys, "predict", trained, path, "--invert", "no") != by_file


# ---- export and import ----------------------------------------------------------------------


def test_export_and_import_round_trip(capsys, trained, tmp_path):
    file = tmp_path / "weights.safetensors"
    assert run("export", trained, "--output", file).returncode == 0
    assert file.read_bytes() == (trained / "weights.safetensors").read_bytes()
    torch.save({k: torch.tensor(v) for k, v in load_file(file).items()}, tmp_path / "weights.pt")
    data, expected = trained.parent / "idx", said(capsys, "evaluate", trained)[-1]
    for source, start in ((file, run), (tmp_path / "weights.pt", ask)):
        out = tmp_path / f"from{source.suffix}"
        done = start("import", source, "--run-dir", out, "--data-dir", data)
        assert done == 0 or done.returncode == 0
        assert (out / "weights.safetensors").read_bytes() == file.read_bytes()
        assert said(capsys, "evaluate", out)[-1] == expected
        known = json.loads((out / "config.json").read_text())["config"]
        assert known == {"hidden_sizes": [128, 64], "precision": "float32"}


def test_nothing_is_imported_into_a_folder_that_has_a_writer(capsys, trained, tmp_path):
    with run_folder.only_writer(tmp_path):
        assert ask("import", trained / "weights.safetensors", "--run-dir", tmp_path) == 2
    assert "another process is training there" in capsys.readouterr().err
    assert [path.name for path in tmp_path.iterdir()] == ["lock"]


# ---- Bad requests ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ("", "Expected one of {train, sweep, evaluate, predict"),
        ("trian", "Unrecognized options: trian. Available subcommands: train"),
        ("train --epoch 3", "--epoch, 3. Perhaps you meant: --epochs"),
        ("train --learning-rat 1", "--learning-rat, 1. Perhaps you meant: --learning-rate"),
        ("train --dataset mnits", "'mnits' for argument '--dataset'. Expected one of ('auto',"),
        ("predict x --invert maybe", "'maybe' for argument '--invert'. Expected one of ('auto',"),
        ("train --epochs 0", "epochs is 0; it must be at least 1."),
        ("train --epochs 1.5", "Error parsing --epochs"),
        ("train --epochs nan", "Error parsing --epochs"),
        ("train --epochs", "--epochs"),
        ("train --batch-size -1", "batch-size is -1; it must be from 1 to"),
        (f"train --batch-size {10**30}", "it must be from 1 to 2,147,483,647."),
        ("train --learning-rate nan", "learning-rate is nan; it must be above 0 and finite."),
        ("train --learning-rate=-inf", "learning-rate is -inf; it must be above 0 and finite."),
        ("train --learning-rate fast", "Error parsing --learning-rate"),
        ("train --momentum 1", "momentum is 1.0; it must be in [0, 1)."),
        ("train --hidden-sizes 1000000000", "hidden-sizes is 1000000000; it must be"),
        ("train --hidden-sizes 8 0", "hidden-sizes is 8 0; it must be"),
        ("train --hidden-sizes 8.5", "Error parsing --hidden-sizes"),
        ("train --hidden-sizes", "hidden-sizes is empty; it must be"),
        ("train --seed 4294967296", "seed is 4294967296; it must be from 0 to 2**32 - 1."),
        ("train --keep 0", "keep is 0; it must be at least 1."),
        ("train --checkpoint-every often", "checkpoint-every is 'often'; it must be a number"),
        ("sweep --seeds 1000000000", "seeds is 1,000,000,000; it must be at most"),
        ("train --data-dir no/such/folder", "no/such/folder: is no folder to read (No such file"),
        ("train --device gpu", "--device gpu: there is none; JAX finds cpu."),
        ("evaluate", "Missing from flax-mnist evaluate: RUN_DIR|FILE.safetensors"),
        ("evaluate no.safetensors", "no.safetensors: there is no such file."),
        ("predict no.safetensors", "predict needs picture files, or --index"),
        ("predict no.safetensors --index 0.5", "Error parsing --index"),
        ("export no.safetensors --output x --format onxx", "'onxx' for argument '--format'"),
        ("import no.pt --run-dir x", "no.pt: there is no such file."),
    ],
)
def test_bad_requests_exit_2_with_a_line(capsys, arguments, says):
    words = " ".join(refused(capsys, *arguments.split()).split())
    assert words.startswith("2 ")
    assert says in words


@pytest.mark.parametrize("arguments", ["trian", "train --learning-rat 1", "train --dataset mnits"])
def test_twenty_columns_make_no_more_lines(capsys, monkeypatch, arguments):
    wide = refused(capsys, *arguments.split())
    monkeypatch.setenv("COLUMNS", "20")
    assert refused(capsys, *arguments.split()).replace(" ", "") == wide.replace(" ", "")


def test_what_is_absurdly_large_is_refused_before_it_is_allocated(capsys, monkeypatch):
    import jax

    monkeypatch.setattr(jax, "jit", lambda *_, **__: pytest.fail("something is computed"))
    monkeypatch.setattr(jax, "local_devices", lambda *_, **__: pytest.fail("a device is sought"))
    refused(capsys, "train", "--dataset", "synthetic", "--hidden-sizes", 1_000_000_000)


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


def test_weights_that_are_finite_but_compute_nothing_finite(capsys, trained, tmp_path):
    weights = load_file(trained / "weights.safetensors")
    file = tmp_path / "weights.safetensors"
    save_file({name: np.full_like(array, 1e30) for name, array in weights.items()}, file)
    data = ("--data-dir", trained.parent / "idx")
    assert "1 flax-mnist: " in refused(capsys, "predict", file, "--index", 0, *data)
    assert "1 flax-mnist: " in refused(capsys, "evaluate", file, *data)


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


# ---- Start, help, signals -------------------------------------------------------------------


def python(code: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", f"import sys\nfrom flax_mnist.cli.main import main\n{code}"],
        cwd=cwd, env=environment(**variables), capture_output=True, text=True, check=False,
    )  # fmt: skip


def test_help_needs_no_jax(tmp_path):
    done = python(
        "main(['train', '--help'])\n"
        "assert not {'jax', 'flax', 'optax', 'tensorflow_datasets'} & set(sys.modules)",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for flag in ("--data-dir", "--learning-rate FLOAT", "(default: 0.003)"):
        assert flag in done.stdout


@pytest.fixture(scope="module")
def uncached(tmp_path_factory, trained) -> tuple[subprocess.CompletedProcess, Path]:
    """A training with --no-compilation-cache, and its cache folder."""
    folder = tmp_path_factory.mktemp("uncached")
    done = python(
        f"code = main(['train', '--data-dir', {str(trained.parent / 'idx')!r}, '--epochs', '1', "
        "'--no-compilation-cache'])\n"
        "print('modules', *sys.modules)\nsys.exit(code)",
        folder,
        XDG_CACHE_HOME=str(folder / "cache"),
    )
    assert done.returncode == 0, done.stderr
    return done, folder / "cache"


def test_training_on_idx_files_needs_no_tensorflow_datasets(uncached):
    modules = set(uncached[0].stdout.splitlines()[-1].split()[1:])
    assert {"jax", "flax_mnist.train"} < modules
    assert not {"tensorflow", "tensorflow_datasets", "torch", "benchmarks"} & modules


def test_the_compilation_cache_can_be_turned_off(trained, uncached):
    def programs(cache: Path) -> list[str]:
        return [path.name for path in cache.rglob("*") if path.name.startswith("jit_train")]

    assert programs(trained.parent / "cache") != []
    assert programs(uncached[1]) == []


def test_version(capsys):
    assert said(capsys, "--version") == [f"flax-mnist {flax_mnist.__version__}"]


@pytest.mark.skipif(not shutil.which("bash"), reason="there is no bash to complete in")
def test_bash_completes_subcommands_flags_and_choices(tmp_path):
    script = "completion of flax-mnist"
    written = run("--tyro-write-completion", "bash", script, cwd=tmp_path)
    assert (written.returncode, written.stdout, written.stderr) == (0, "", "")
    # What readline does when Tab is pressed after the last word.
    press_tab = """
        source "$0"
        read -ra complete_dash_f_function <<< "$(complete -p flax-mnist)"
        COMP_WORDS=("$@") COMP_CWORD=$(($# - 1))
        "${complete_dash_f_function[2]}"
        printf '%s\\n' "${COMPREPLY[@]}"
    """
    for words, completed in [
        (("flax-mnist", "tr"), ["train"]),
        (("flax-mnist", "train", "--learning"), ["--learning-rate"]),
        (("flax-mnist", "train", "--dataset", "k"), ["kmnist"]),
        (("flax-mnist", "predict", "runs/a", "--in"), ["--invert", "--index"]),
    ]:
        done = subprocess.run(
            ["bash", "-c", press_tab, script, *words],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        assert sorted(done.stdout.split()) == sorted(completed), words


def test_doctor_names_versions_devices_and_data(capsys):
    text = "\n".join(said(capsys, "doctor"))
    for word in ("jax", "optax", "cpu:0", "kmnist", "not on disk", "synthetic"):
        assert word in text


@pytest.mark.skipif(not Path("/proc/self/status").exists(), reason="reads Linux's /proc")
@pytest.mark.parametrize("delay", [0, 0.1, 0.5, 1.0])
def test_a_signal_is_obeyed_while_the_program_still_starts(trained, tmp_path, delay):
    data = trained.parent / "idx"
    process = subprocess.Popen(
        [*COMMAND, "train", "--data-dir", data, "--run-dir", "r", "--epochs", "1000000"],
        cwd=tmp_path, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=environment(),
    )  # fmt: skip
    while not catches(process.pid, signal.SIGTERM):  # Python itself starts for as long
        assert process.poll() is None
    time.sleep(delay)
    process.send_signal(signal.SIGTERM)
    _, errors = process.communicate(timeout=60)
    # Where the machine is fast, it may train already.
    assert re.fullmatch(r"flax-mnist: terminated( after step .*)?\n", errors)
    assert process.returncode == 143


def catches(pid: int, signum: int) -> bool:
    status = Path(f"/proc/{pid}/status").read_text()
    return bool(int(status.split("SigCgt:")[1].split()[0], 16) >> signum - 1 & 1)


# ---- The package ----------------------------------------------------------------------------


def test_every_public_name_is_there():
    for name in flax_mnist.__all__:
        assert getattr(flax_mnist, name).__module__.startswith("flax_mnist.")
    stub = Path(flax_mnist.__file__).read_text()
    typed = re.findall(r"^    from flax_mnist[.\w]+ import (\w+) as \1$", stub, re.MULTILINE)
    assert sorted(typed) == flax_mnist.__all__
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        flax_mnist.nothing  # noqa: B018


# ---- Real MNIST -----------------------------------------------------------------------------


@pytest.mark.long
def test_real_mnist_gives_the_tutorials_results(capsys, mnist_dir, tmp_path):
    """Ten seeds against PyTorch's ten: means of the training losses, test loss and accuracy."""
    rows = []
    for seed in range(10):
        out = tmp_path / str(seed)
        flags = ("--dataset", "mnist", "--data-dir", mnist_dir, "--seed", seed)
        said(capsys, "train", *flags, "--run-dir", out)
        rows.append(metrics(out))
    losses = np.mean([[epoch["train_loss"] for epoch in row] for row in rows], axis=0)
    np.testing.assert_allclose(losses, [1.908, 0.860, 0.531, 0.433, 0.387], rtol=0.03)
    last = [row[-1] for row in rows]
    assert np.mean([epoch["test_loss"] for epoch in last]) == pytest.approx(0.3565, abs=0.006)
    assert np.mean([epoch["test_accuracy"] for epoch in last]) == pytest.approx(0.8983, abs=0.0025)

    lines = said(capsys, "predict", tmp_path / "0", "--index", 0, 1, 2, "--json")
    assert [json.loads(line)["prediction"] for line in lines] == ["7", "2", "1"]
