"""Folders, names, disks, terminals and devices as a program may find them."""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import numpy as np
import pytest
from PIL import Image

from flax_mnist import Config, evaluation, files, init_state
from flax_mnist.errors import DataError, FlaxMnistError
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import Metrics, append_metrics, read_metrics
from flax_mnist.store.weights import save_weights
from tests.helpers.command_line import COMMAND, ask, environment, refused, run, said
from tests.helpers.idx_files import write_idx_dir
from tests.helpers.odd_files import link_to_itself

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has other limits and terminals")
ONE_EPOCH = ("--epochs", "1")


@pytest.fixture(scope="module")
def data(tmp_path_factory, digits) -> Path:
    return write_idx_dir(tmp_path_factory.mktemp("data") / "idx", digits)


@pytest.fixture
def weights(tmp_path) -> Path:
    save_weights(tmp_path / "weights.safetensors", init_state(Config()).params)
    return tmp_path / "weights.safetensors"


# ---- What is read ---------------------------------------------------------------------------


@POSIX
def test_what_is_no_ordinary_file_is_not_read(tmp_path):
    with pytest.raises(DataError, match="is no ordinary file"):
        files.read(Path("/dev/null"))
    with pytest.raises(DataError, match="cannot be read"):
        files.read(link_to_itself(tmp_path / "link"))


# ---- Where something is written -------------------------------------------------------------


@POSIX
@pytest.mark.parametrize(
    ("place", "says"),
    [
        ("weights.safetensors", "is a file, and cannot be the run folder"),
        ("weights.safetensors/run", "cannot be made (Not a directory)"),
        ("/proc/run", "cannot be made (No such file or directory)"),  # not by root either
        ("loop/run", "cannot be made (Too many levels of symbolic links)"),
        ("x" * 300, "File name too long"),
    ],
)
def test_where_no_run_folder_can_be_made(capsys, data, tmp_path, weights, place, says):
    link_to_itself(tmp_path / "loop")
    path = tmp_path / place
    for command in (["import", weights], ["train", "--data-dir", data]):
        errors = refused(capsys, *command, "--run-dir", path)
        assert errors[0] == ("2" if "is a file" in says else "1")
        assert f"flax-mnist: {path}" in errors
        assert says in errors


@POSIX
@pytest.mark.parametrize(
    ("place", "says"),
    [
        (".", "2 is no ordinary file"),
        ("no/file", "2 there is no folder"),
        ("weights.safetensors/file", "2 there is no folder"),
        ("/dev/full", "2 is no ordinary file"),
        ("/proc/file", "1 No such file or directory"),
        ("x" * 300, "1 File name too long"),
    ],
)
@pytest.mark.parametrize("command", ["export", "predict"])
def test_where_no_file_can_be_written(capsys, tmp_path, weights, digits, command, place, says):
    picture = tmp_path / "a.png"
    Image.fromarray(digits["test_images"][0]).save(picture)
    before = sorted(tmp_path.iterdir())
    pictures = [picture] if command == "predict" else []
    code, reason = says.split(" ", 1)
    assert ask(command, weights, *pictures, "--output", tmp_path / place) == int(code)
    errors = capsys.readouterr().err
    assert errors.startswith(f"flax-mnist: {tmp_path / place}")
    assert reason in errors
    assert len(errors.splitlines()) == 1
    assert sorted(tmp_path.iterdir()) == before


@contextlib.contextmanager
def files_no_larger_than(size: int) -> Iterator[None]:
    """As on a disk that is nearly full: a longer file fails in its middle."""
    import resource

    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, limits[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


@POSIX
def test_a_file_that_does_not_fit_leaves_the_old_one(capsys, tmp_path, weights):
    save_weights(tmp_path / "old", init_state(Config(seed=1)).params)
    old = (tmp_path / "old").read_bytes()
    with files_no_larger_than(100_000):
        for name in ("old", "new"):
            errors = refused(capsys, "export", weights, "--output", tmp_path / name)
            assert (
                errors == f"1 flax-mnist: {tmp_path / name}: cannot be written (File too large).\n"
            )
        errors = refused(capsys, "import", weights, "--run-dir", tmp_path / "run")
        assert errors.startswith("1 ")
        assert "weights.safetensors: cannot be written (File too large)" in errors
    assert (tmp_path / "old").read_bytes() == old
    assert sorted(path.name for path in tmp_path.iterdir()) == [
        "old", "run", "weights.safetensors",
    ]  # fmt: skip
    assert [path.name for path in (tmp_path / "run").iterdir()] == ["lock"]  # it holds no run


@POSIX
def test_a_training_that_does_not_fit_says_so(capsys, data, tmp_path):
    flags = ("--data-dir", data, "--run-dir", tmp_path / "run", "--no-compilation-cache")
    with files_no_larger_than(100_000):
        assert ask("train", *flags, *ONE_EPOCH) == 1
    errors = capsys.readouterr().err
    assert errors.startswith(f"flax-mnist: {tmp_path / 'run'}/")
    assert errors.endswith(": cannot be written (File too large).\n")
    assert len(errors.splitlines()) == 1


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full")
def test_metrics_that_do_not_fit_are_named(tmp_path):
    (tmp_path / run_folder.METRICS).symlink_to("/dev/full")
    with pytest.raises(FlaxMnistError, match=r"metrics\.jsonl: cannot be written \(No space left"):
        append_metrics(tmp_path, Metrics(1, 2, 0.5, 0.4, 0.9, 1.0, 2.0), "mnist")


@pytest.fixture
def small_disk() -> list[str]:
    """What starts a command where /mnt is a disk of its own, of 500 kB."""
    unshare = shutil.which("unshare")
    start = [
        str(unshare), "--user", "--map-root-user", "--mount", "sh", "-c",
        'mount -t tmpfs -o size=500k disk /mnt && exec "$@"', "sh",
    ]  # fmt: skip
    if not unshare or subprocess.run([*start, "true"], check=False, capture_output=True).returncode:
        pytest.skip("mounting a disk is not allowed here")
    return start


@POSIX
def test_a_full_disk_stops_a_training_with_a_line(small_disk, data):
    done = subprocess.run(
        [*small_disk, *COMMAND, "train", "--data-dir", data, "--run-dir", "/mnt/run", *ONE_EPOCH],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(
        r"flax-mnist: /mnt/run/\S+: cannot be written \(No space left on device\)\.\n", done.stderr
    )


# ---- Names ----------------------------------------------------------------------------------


@POSIX
@pytest.mark.parametrize(
    "name", ["with spaces", "new\nline", "é ß 数字", "-dash", "[bold]*?", "a/../../{}/b"]
)
def test_any_name_will_do(capsys, data, digits, tmp_path, monkeypatch, name):
    monkeypatch.chdir(tmp_path)
    here = Path(name.format(tmp_path.name))
    Path("a").mkdir()
    shutil.copytree(data, f"{here} data")
    train = ("train", f"--run-dir={here}", f"--data-dir={here} data", *ONE_EPOCH)
    assert said(capsys, *train)[-1] == f"Saved in {here}".splitlines()[-1]
    picture = Path(f"{here} digit.png")
    Image.fromarray(digits["test_images"][0]).save(picture)
    drawn = f"--output={here} drawn.png"
    (line,) = said(capsys, "predict", "--json", drawn, "--", here, picture)
    assert json.loads(line)["image"] == str(picture)
    said(capsys, "export", f"--output={here}.safetensors", "--", here)
    said(capsys, "import", f"--run-dir={here} again", "--", f"{here}.safetensors")
    # Where the data are stands in config.json, for anywhere else.
    monkeypatch.chdir(tmp_path.parent)
    said(capsys, "evaluate", "--", tmp_path / here)


def test_the_home_of_nobody_is_a_name_like_any_other(capsys, tmp_path, weights, monkeypatch):
    monkeypatch.chdir(tmp_path)
    said(capsys, "import", weights, "--run-dir", "~nobody-of-this-name/run")
    assert (tmp_path / "~nobody-of-this-name" / "run" / "config.json").exists()


# ---- Devices --------------------------------------------------------------------------------


def test_without_the_platform_that_is_named_there_is_a_line(data, tmp_path):
    variables = {"JAX_PLATFORMS": "nonsense"}
    done = run("train", "--data-dir", data, "--run-dir", tmp_path / "run", **variables)
    assert (done.returncode, done.stderr) == (
        2, "flax-mnist: JAX finds no device. JAX_PLATFORMS is 'nonsense'.\n",
    )  # fmt: skip
    done = run("doctor", **variables)
    assert (done.returncode, done.stderr) == (0, "")
    assert re.search(r"device +NONE: .*nonsense", done.stdout)


@pytest.mark.parametrize(
    "error",
    [
        jax.errors.JaxRuntimeError(
            "RESOURCE_EXHAUSTED: Out of memory while trying to allocate 68719476736 bytes."
        ),
        MemoryError(),
        np._core._exceptions._ArrayMemoryError((10**12,), np.dtype("float32")),
    ],
    ids=["on the device", "in Python", "in NumPy"],
)
def test_out_of_memory_is_a_line(capsys, monkeypatch, data, weights, error):
    def exhausted(*_: object, **__: object) -> None:
        raise error

    monkeypatch.setattr(evaluation, "evaluate", exhausted)
    assert refused(capsys, "evaluate", weights, "--data-dir", data) == (
        "1 flax-mnist: out of memory. Try smaller --hidden-sizes or a smaller --batch-size.\n"
    )


# ---- Homes, locales and terminals -----------------------------------------------------------


@pytest.fixture(scope="module")
def unfriendly(data, tmp_path_factory) -> tuple[subprocess.CompletedProcess, Path]:
    """A training with no home to write to, no UTF-8, no terminal, no colour and 20 columns."""
    path = tmp_path_factory.mktemp("unfriendly") / "a run"
    done = run(
        "train", "--data-dir", data, "--run-dir", path, *ONE_EPOCH,
        HOME="/proc/nobody", XDG_CACHE_HOME=None, XDG_CONFIG_HOME=None, MPLCONFIGDIR=None,
        LC_ALL="C", PYTHONUTF8="0", PYTHONCOERCECLOCALE="0", PYTHONIOENCODING=None,
        COLUMNS="20", NO_COLOR="1", TERM=None,
    )  # fmt: skip
    return done, path


@POSIX
def test_a_home_that_cannot_be_written_is_no_obstacle(unfriendly):
    done, path = unfriendly
    assert (done.returncode, done.stderr) == (0, "")
    assert (path / "weights.safetensors").exists()


@POSIX
def test_a_terminal_without_utf8_is_no_obstacle(unfriendly):
    done, path = unfriendly
    assert done.stdout.splitlines()[-1] == f"Saved in {path}"
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
    done = run("--help", **plain)
    assert (done.returncode, done.stderr) == (0, "")
    assert "Train the network" in done.stdout


@POSIX
def test_a_run_folder_whose_name_is_not_utf_8_there_is_refused(data, tmp_path):
    plain = {"LC_ALL": "C", "PYTHONUTF8": "0", "PYTHONCOERCECLOCALE": "0", "PYTHONIOENCODING": None}
    done = run("train", "--data-dir", data, "--run-dir", tmp_path / "é ß", **plain)
    assert done.returncode == 2
    assert "is no name in UTF-8" in done.stderr
    assert list(tmp_path.iterdir()) == []


@POSIX
def test_twenty_columns_cut_no_line(unfriendly):
    lines = unfriendly[0].stdout.splitlines()
    assert lines[0].startswith("mnist: 1,000 training and 200 test images from ")
    assert [line for line in lines if line.startswith("Epoch 1/1  Training loss: ")]


@POSIX
def test_a_narrow_terminal_without_colours_gets_a_progress_bar(data, tmp_path):
    text = seen_on_a_terminal(20, data, tmp_path / "run")
    assert "Epoch 3/3  Training loss: " in text
    bars = re.findall(r"Steps .*?(?=\r)", text)
    assert "━━━" in bars[-1]
    assert max(map(len, bars)) <= 20
    assert not re.search(r"\x1b\[[\d;]*m", text)  # a colour


@POSIX
def test_the_progress_bar_tells_loss_and_rate(data, tmp_path):
    text = seen_on_a_terminal(80, data, tmp_path / "run")
    told = re.findall(r"48/48 .*?loss (\S+)  (\S+) images/s", text)[-1]
    last = read_metrics(tmp_path / "run")[-1]
    assert told == (f"{last.train_loss:.4f}", f"{last.images_per_second:,.0f}")


@POSIX
@pytest.mark.parametrize("flag", ["--quiet", "--json"])
def test_what_is_to_say_nothing_else_draws_no_bar_on_a_terminal(data, tmp_path, flag):
    text = seen_on_a_terminal(120, data, tmp_path / "run", flag)
    metrics = (tmp_path / "run" / "metrics.jsonl").read_text()
    assert text.replace("\r\n", "\n").strip("\n") == ("" if flag == "--quiet" else metrics).strip()


def seen_on_a_terminal(columns: int, data: Path, run: Path, *more: str) -> str:
    """What `train` writes to a terminal of so many columns, control sequences and all."""
    import fcntl
    import pty
    import struct
    import termios

    ours, theirs = pty.openpty()
    fcntl.ioctl(theirs, termios.TIOCSWINSZ, struct.pack("4H", 24, columns, 0, 0))
    process = subprocess.Popen(
        [*COMMAND, "train", "--data-dir", data, "--epochs", "3", "--run-dir", run, *more],
        stdout=theirs, stderr=subprocess.PIPE,
        env=environment(TERM="xterm", NO_COLOR="1", COLUMNS=None),
    )  # fmt: skip
    os.close(theirs)
    seen = b""
    while chunk := _read(ours):
        seen += chunk
    assert process.wait(60) == 0, process.stderr.read()
    return seen.decode()


def _read(terminal: int) -> bytes:
    try:
        return os.read(terminal, 4096)
    except OSError:  # the other end is closed
        return b""
