"""What a person's environment says: a command works, and computes the same, or says one line."""

from __future__ import annotations

import contextlib
import errno
import json
import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from flax_mnist.store import run_folder
from tests.helpers import runs
from tests.helpers.command_line import COMMAND, ask, environment, run
from tests.helpers.platforms import POSIX
from tests.helpers.processes import end, free_port, running


@pytest.fixture(scope="module")
def expected(data, tmp_path_factory) -> bytes:
    """The weights of a training that nothing disturbs."""
    path = tmp_path_factory.mktemp("expected") / "run"
    assert ask(*runs.train(data, path, epochs=1, quiet=True)) == 0
    return (path / run_folder.WEIGHTS).read_bytes()


@pytest.mark.parametrize(
    "variable",
    [
        "MPLBACKEND=module://matplotlib_inline.backend_inline",
        "JAX_DISABLE_JIT=1",
        "JAX_DEBUG_NANS=1",
        "JAX_NUMPY_DTYPE_PROMOTION=strict",
        "JAX_TRANSFER_GUARD=disallow",
        "JAX_TRANSFER_GUARD_DEVICE_TO_HOST=disallow",
        "JAX_DEFAULT_PRNG_IMPL=rbg",
        "JAX_THREEFRY_PARTITIONABLE=0",
        "JAX_RANDOM_SEED_OFFSET=5",
        "JAX_ENABLE_X64=1",
        "JAX_DEFAULT_MATMUL_PRECISION=bfloat16",
        "FLAX_FIX_RNG_SEPARATOR=1",
        "HOME=",
        "HOME=home",
    ],
)
def test_a_variable_changes_no_bit_of_a_run(data, tmp_path, expected, variable):
    name, value = variable.split("=", 1)
    path = tmp_path / "run"
    done = run(*runs.train(data, path, epochs=1, quiet=True), cwd=tmp_path, **{name: value})
    assert (done.returncode, done.stderr) == (0, "")
    assert (path / run_folder.WEIGHTS).read_bytes() == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]
    kept = json.loads((path / run_folder.CONFIG).read_text())["environment"]["variables"]
    assert kept.get(name) == (value if name.startswith(("JAX_", "FLAX_")) else None)


def test_a_loss_that_is_not_finite_is_no_traceback_where_jax_looks_for_one_too(data, tmp_path):
    arguments = runs.train(data, tmp_path / "run", epochs=1, quiet=True, learning_rate=1e10)
    done = run(*arguments, JAX_DEBUG_NANS="1", JAX_DEBUG_INFS="1")
    assert done.returncode == 1
    assert done.stderr.startswith("flax-mnist: The loss is not finite in step ")
    assert len(done.stderr.splitlines()) == 1


@pytest.mark.parametrize(
    ("variable", "named"),
    [
        ("JAX_DEBUG_NANS=2", "JAX_DEBUG_NANS"),
        ("JAX_DEFAULT_MATMUL_PRECISION=much", "jax_default_matmul_precision"),
        ("FLAX_FIX_RNG_SEPARATOR=2", "FLAX_FIX_RNG_SEPARATOR"),
        ("JAX_PLATFORMS=cpu,gpu", "JAX_PLATFORMS is 'cpu,gpu', and not all of it is there"),
    ],
)
def test_a_value_that_is_none_is_refused_by_name(data, tmp_path, variable, named):
    name, value = variable.split("=")
    done = run(*runs.train(data, tmp_path / "run", epochs=1), **{name: value})
    assert (done.returncode, done.stdout) == (2, "")
    assert named in done.stderr
    assert len(done.stderr.splitlines()) == 1
    assert list(tmp_path.iterdir()) == []


@pytest.fixture(scope="module")
def nobody() -> list[str]:
    """What starts a command as a user whom the system does not know."""
    start = [str(shutil.which("setpriv")), "--reuid=12345", "--clear-groups"]
    with contextlib.suppress(OSError):
        if not subprocess.run([*start, *COMMAND, "--version"], check=False).returncode:
            return start
    pytest.skip("nobody else can be started here")


@pytest.mark.long
@POSIX
@pytest.mark.parametrize("home", [None, "", "home"])
def test_nobody_has_no_home(nobody, data, tmp_path, home, expected):
    """A container's user without an entry in the system's table."""
    for folder in (tmp_path, data, *data.parents):
        # pytest's own folders are its user's alone, those above a worker's, too.
        if any(part.startswith("pytest-") for part in folder.parts):
            folder.chmod(0o755)
    tmp_path.chmod(0o777)
    arguments = runs.train(data, tmp_path / "run", epochs=1, quiet=True)
    at_home = {} if home is None else {"HOME": home}
    for command in (arguments, ["doctor"], ["train", "--dataset", "mnist", "--dry-run"]):
        bare = {"PATH": os.environ["PATH"], "JAX_PLATFORMS": "cpu", "PYTHONPATH": python_path()}
        done = subprocess.run(
            [*nobody, *COMMAND, *command], cwd=tmp_path, env=bare | at_home,
            capture_output=True, text=True, check=False,
        )  # fmt: skip
        is_lacking = "--dry-run" in command
        assert done.returncode == is_lacking, done.stderr
        assert len(done.stderr.splitlines()) == is_lacking, done.stderr
        assert (
            "no home folder to download it into. Set TFDS_DATA_DIR" in done.stderr
        ) == is_lacking
        assert ("cache                none: no home" in done.stdout) == (command == ["doctor"])
    assert (tmp_path / "run" / run_folder.WEIGHTS).read_bytes() == expected
    assert [entry.name for entry in tmp_path.iterdir()] == ["run"]


def python_path() -> str:
    return environment()["PYTHONPATH"]


@pytest.mark.long
def test_a_bare_environment_is_enough(data, tmp_path, expected):
    path = tmp_path / "run"
    done = subprocess.run(
        [*COMMAND, *runs.train(data, path, epochs=1, quiet=True, no_compilation_cache=True)],
        env={"PYTHONPATH": python_path(), "JAX_PLATFORMS": "cpu"},
        capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    assert (path / run_folder.WEIGHTS).read_bytes() == expected


@pytest.mark.long
@POSIX
def test_a_tilde_is_the_home_in_every_command(data, tmp_path, weights, monkeypatch, capsys):
    monkeypatch.setenv("HOME", str(tmp_path))
    train = ["train", f"--data-dir={data}", "--run-dir=~/run", "--epochs=1", "--quiet"]
    assert ask(*train) == 0
    for command in (
        ["train", "--resume", "--run-dir=~/run", "--epochs", "2", "--quiet"],
        ["train", "--config=~/run/config.json", "--run-dir=~/again", "--quiet"],
        ["sweep", f"--data-dir={data}", "--run-dir=~/sweep", "--seeds", "1", "--epochs", "1"],
        ["evaluate", "~/run", f"--data-dir={data}", "--report=~/report"],
        ["predict", "~/run", "--index", "0", "--output=~/seen.png"],
        ["plot", "~/run", "--output=~/loss.png"],
        ["runs", "~"],
        ["report", "~/run", "--output=~/page.html"],
        ["export", "~/run", "--output=~/out.safetensors"],
        ["import", "~/weights.safetensors", "--run-dir=~/imported"],
    ):
        assert ask(*command) == 0, capsys.readouterr().err
    assert {path.name for path in tmp_path.iterdir()} >= {
        "again", "imported", "loss.png", "out.safetensors", "page.html", "report", "run",
        "seen.png", "sweep",
    }  # fmt: skip
    assert not Path("~").exists()


@pytest.mark.parametrize("command", [["doctor"], ["train", "--dry-run"]])
def test_nothing_is_left_in_the_folder_for_temporary_files(data, tmp_path, command):
    (tmp_path / "tmp").mkdir()
    given = ["--data-dir", data] if command != ["doctor"] else []
    done = run(*command, *given, TMPDIR=str(tmp_path / "tmp"), cwd=tmp_path)
    assert done.returncode == 0, done.stderr
    assert list((tmp_path / "tmp").iterdir()) == []
    assert [entry.name for entry in tmp_path.iterdir()] == ["tmp"]


@pytest.mark.long
def test_a_compiled_program_of_which_a_half_was_kept_is_mended(data, tmp_path):
    def start(name: str) -> subprocess.CompletedProcess:
        arguments = runs.train(data, tmp_path / name, epochs=1, quiet=True)
        return run(*arguments, XDG_CACHE_HOME=str(tmp_path / "cache"))

    assert start("first").stderr == ""
    programs = list((tmp_path / "cache").rglob("jit_*-cache"))
    assert programs
    sizes = {path: path.stat().st_size for path in programs}
    for path, size in sizes.items():  # as on a disk that was full
        os.truncate(path, size // 2)
    assert start("second").stderr == ""
    assert all(path.stat().st_size > sizes[path] // 2 for path in programs)


WITHOUT_LOCKS = """
import fcntl, os, sys
def flock(file, what):
    raise OSError(int(os.environ["NUMBER"]), "no such thing here")
fcntl.flock = flock
from flax_mnist.__main__ import main
sys.exit(main())
"""


@POSIX
@pytest.mark.parametrize("number", [errno.ENOLCK, errno.EOPNOTSUPP])
def test_a_file_system_without_locks_is_told_of(data, tmp_path, number, expected):
    path = tmp_path / "run"
    done = subprocess.run(
        [sys.executable, "-c", WITHOUT_LOCKS, *runs.train(data, path, epochs=1, quiet=True)],
        env=environment(NUMBER=str(number)), capture_output=True, text=True, check=False,
    )  # fmt: skip
    assert done.returncode == 0, done.stderr
    said = set(done.stderr.splitlines())  # at both ends
    assert said == {
        f"WARNING: {path}: its file system has no locks (no such thing here). "
        "Train there once at a time."
    }
    assert (path / run_folder.WEIGHTS).read_bytes() == expected


def processes_of(data: Path, path: Path, port: int) -> list[list[str]]:
    """Two that are told by hand who they are."""
    met = ["--coordinator", f"127.0.0.1:{port}", "--num-processes", "2", "--peer-timeout", "60"]
    arguments = [*COMMAND, *runs.train(data, path, epochs=1, quiet=True), *met]
    return [[*arguments, "--process-id", str(i)] for i in range(2)]


@pytest.mark.long
def test_processes_meet_whatever_the_environment_says_of_proxies_and_jax(data, tmp_path):
    nobody = "http://127.0.0.1:9"
    variables = environment(
        http_proxy=nobody, https_proxy=nobody, no_proxy=None, JAX_TRANSFER_GUARD="disallow",
        JAX_NUMPY_DTYPE_PROMOTION="strict", JAX_DISABLE_JIT="1",
    )  # fmt: skip
    commands = processes_of(data, tmp_path / "run", free_port())
    with running(*commands, variables=(variables, variables)) as both:
        ends = [end(process, 180) for process in both]
    assert [code for code, *_ in ends] == [0, 0], ends


def test_an_address_where_nobody_can_listen_is_refused_by_the_variable_it_is_from(data, tmp_path):
    variables = environment(JAX_COORDINATOR_BIND_ADDRESS="127.0.0.1:no port")
    first = processes_of(data, tmp_path / "run", free_port())[0]
    done = subprocess.run(first, env=variables, capture_output=True, text=True, check=False)
    assert done.returncode == 2
    assert "JAX_COORDINATOR_BIND_ADDRESS 127.0.0.1:no port: cannot listen there" in done.stderr
    assert len(done.stderr.splitlines()) == 1


JOINS = """
import sys
import jax
from flax_mnist.devices.peers import Peers
from flax_mnist.devices.processes import joined
from tests.helpers.processes import listening
port = int(sys.argv[1])
with joined(Peers(f"127.0.0.1:{port}", 2, int(sys.argv[2]))):
    print(jax.process_count(), jax.config.values["jax_cuda_visible_devices"])
    print({address.strip("0") for address in listening(port)})
"""


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's /proc")
def test_slurm_gives_no_devices_to_processes_that_are_told_by_hand():
    """Process 0 listens where the variable says, as behind NAT, where it has another address."""
    port = str(free_port())
    commands = [[sys.executable, "-c", JOINS, port, str(i)] for i in range(2)]
    variables = [
        environment(
            SLURM_JOB_ID="4711", SLURM_STEP_NODELIST="127.0.0.1", SLURM_STEP_NUM_NODES="1",
            SLURM_NTASKS="2", SLURM_PROCID=str(i), SLURM_LOCALID=str(i),
            JAX_COORDINATOR_BIND_ADDRESS=f"0.0.0.0:{port}",
        )
        for i in range(2)
    ]  # fmt: skip
    with running(*commands, variables=tuple(variables)) as both:
        ends = [end(process, 120) for process in both]
    assert [(code, out) for code, out, _ in ends] == [(0, "2 all\n{''}\n")] * 2, ends
