"""Folders and disks where nothing can be written, or not enough."""

from __future__ import annotations

import contextlib
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest
from PIL import Image

from flax_mnist import Config, init_state
from flax_mnist.errors import FlaxMnistError
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import Metrics, append_metrics
from flax_mnist.store.weights import save_weights
from tests.helpers.command_line import COMMAND, ask, environment, refused
from tests.helpers.odd_files import link_to_itself
from tests.helpers.platforms import POSIX
from tests.helpers.runs import train


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
        assert ask("train", *flags, "--epochs", "1") == 1
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
        [*small_disk, *COMMAND, *train(data, Path("/mnt/run"), epochs=1)],
        env=environment(), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 1
    assert re.fullmatch(
        r"flax-mnist: /mnt/run/\S+: cannot be written \(No space left on device\)\.\n", done.stderr
    )


@pytest.mark.long
@POSIX
def test_programs_are_not_kept_on_a_full_disk_and_it_is_named(small_disk, data, tmp_path):
    done = subprocess.run(
        [*small_disk, *COMMAND, *train(data, tmp_path / "run", epochs=1, quiet=True)],
        env=environment(XDG_CACHE_HOME="/mnt"), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    folder = "/mnt/flax-mnist/compiled"
    assert set(done.stderr.splitlines()) == {  # at both ends
        f"WARNING: {folder}: its disk is full: compiled programs are not kept."
    }
