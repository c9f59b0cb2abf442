"""Several processes that train together, as real ones on the loopback interface."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flax_mnist.cli.main import main
from flax_mnist.devices import agreement
from flax_mnist.devices.processes import is_first
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import read_metrics
from tests.helpers.command_line import run
from tests.helpers.idx_files import write_idx_dir

COMMAND = [sys.executable, "-m", "flax_mnist", "train"]
PATIENT = ("--peer-timeout", "60")
"""Several processes that start at once on a busy machine take a while."""
BOUND = 60
"""Seconds within which all must have ended after something happened to one of them."""


@pytest.fixture(scope="module")
def data(tmp_path_factory, digits) -> Path:
    return write_idx_dir(tmp_path_factory.mktemp("data") / "idx", digits)


def new_run(data: Path, path: Path, *more: object) -> list[str]:
    flags = ("--data-dir", data, "--run-dir", path, "--momentum", 0.5, "--precision", "float64")
    return [*map(str, flags), *PATIENT, *map(str, more)]


def resume(path: Path, *more: object) -> list[str]:
    return ["--resume", "--run-dir", str(path), *PATIENT, *map(str, more)]


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


@contextlib.contextmanager
def running(*commands: tuple[list[str], dict | None]) -> Iterator[list[subprocess.Popen]]:
    """Processes, of a command line and an environment each; killed if they still run."""
    started = [
        subprocess.Popen(
            arguments, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=variables
        )
        for arguments, variables in commands
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def processes(
    *flags: list[str], count: int | None = None, scripts: dict[int, list[str]] | None = None
) -> Iterator[list[subprocess.Popen]]:
    """One for each list of flags, of `count` that are expected.

    Some may run a script of their own with the arguments of a command line.
    """
    met = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", str(count or len(flags))]
    commands = [
        [*(scripts or {}).get(i, COMMAND), *own, *met, "--process-id", str(i)]
        for i, own in enumerate(flags)
    ]
    with running(*((command, None) for command in commands)) as started:
        yield started


def end(process: subprocess.Popen, timeout: float = BOUND) -> tuple[int, str, str]:
    """Exit code, and what was said on stdout and stderr."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def wait_for(process: subprocess.Popen, line: str) -> None:
    while not process.stdout.readline().startswith(line):
        assert process.poll() is None, process.stderr.read()


def straight(data: Path, path: Path, epochs: int) -> Path:
    """A run of one process that nobody disturbs."""
    assert main(["train", "--quiet", *new_run(data, path, "--epochs", epochs)]) == 0
    return path


def assert_same_result(ours: Path, theirs: Path) -> None:
    a, b = (load_file(path / run_folder.WEIGHTS) for path in (ours, theirs))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=1e-12)
    for mine, other in zip(*map(read_metrics, (ours, theirs)), strict=True):
        assert mine[:2] == other[:2]
        assert mine[2:5] == pytest.approx(other[2:5], abs=1e-12)


def names(path: Path) -> set[str]:
    """All files of a run."""
    return {file.relative_to(path).as_posix() for file in path.rglob("*")}


def test_two_processes_are_as_one_and_three_go_on(data, tmp_path):
    ours, theirs = tmp_path / "two", tmp_path / "one"
    with processes(*[new_run(data, ours, "--epochs", 2)] * 2) as both:
        (code, out, err), (code_1, out_1, err_1) = (end(process, 180) for process in both)
    assert (code, code_1) == (0, 0), err + err_1
    assert out.count("Training loss") == 2
    assert "Training loss" not in out_1
    assert_same_result(ours, straight(data, theirs, 2))
    assert names(ours) == names(theirs)
    configs = [json.loads((path / run_folder.CONFIG).read_text()) for path in (ours, theirs)]
    assert configs[0].pop("topology") == {"processes": 2, "devices": 2, "devices_per_process": 1}
    assert configs[1].pop("topology") == {"processes": 1, "devices": 1, "devices_per_process": 1}
    for config in configs:
        del config["environment"]["command"]
    assert configs[0] == configs[1]

    # The others have no run folder of their own: they are told.
    nowhere = tmp_path / "another disk"
    flags = [resume(path, "--epochs", 3, "--data-dir", data) for path in (ours, nowhere, nowhere)]
    with processes(*flags) as three:
        ends = [end(process, 180) for process in three]
    assert [code for code, *_ in ends] == [0, 0, 0], ends
    assert not nowhere.exists()
    assert main(["train", *resume(theirs, "--epochs", 3)]) == 0
    assert_same_result(ours, theirs)


def test_a_signal_to_one_stops_all_and_a_killed_one_ends_all(data, tmp_path):
    path = tmp_path / "run"
    with processes(*[new_run(data, path, "--epochs", 100_000)] * 2) as both:
        wait_for(both[0], "Epoch 2/")
        both[1].send_signal(signal.SIGTERM)
        (code, _, err), (code_1, _, err_1) = map(end, both)
    assert (code, code_1) == (143, 143), err + err_1
    assert "flax-mnist: terminated after step" in err
    assert "Traceback" not in err + err_1
    nowhere = tmp_path / "another disk"
    flags = [resume(run, "--epochs", 100_000, "--data-dir", data) for run in (path, nowhere)]
    with processes(*flags, flags[1]) as three:
        wait_for(three[0], "Epoch ")
        wait_for(three[0], "Epoch ")
        three[2].kill()
        (code, _, err), (code_1, _, err_1) = map(end, three[:2])
    assert code == 1
    assert "flax-mnist: process 0: another process is gone" in err
    assert "Traceback" not in err + err_1
    assert code_1 not in (None, 0)
    assert err_1  # whether we speak first, or JAX does, is a race
    epochs = len(read_metrics(path)) + 1
    assert main(["train", *resume(path, "--epochs", epochs)]) == 0
    assert_same_result(path, straight(data, tmp_path / "straight", epochs))


@pytest.mark.parametrize("victim", [0, 1])
def test_a_stalled_process_is_waited_for_so_long_and_no_longer(data, tmp_path, victim):
    path = tmp_path / "run"
    flags = new_run(data, path, "--epochs", 100_000, "--peer-timeout", 15)
    with processes(*[flags] * 2) as both:
        wait_for(both[0], "Epoch 2/")
        both[victim].send_signal(signal.SIGSTOP)
        code, _, err = end(both[1 - victim])
    assert code == 1, err
    assert "another process did not answer for 15 s" in err
    epochs = len(read_metrics(path)) + 1
    assert main(["train", *resume(path, "--epochs", epochs)]) == 0
    assert_same_result(path, straight(data, tmp_path / "straight", epochs))


LOADS_FOREVER = """
import sys, time
from flax_mnist import cli, data
data.load_dataset = lambda *_: time.sleep(1000)
sys.exit(cli.main(["train", *sys.argv[1:]]))
"""


@pytest.mark.long
def test_a_process_whose_images_never_come_ends_all(data, tmp_path):
    flags = new_run(data, tmp_path / "run", "--peer-timeout", 15)
    with processes(*[flags] * 2, scripts={1: [sys.executable, "-c", LOADS_FOREVER]}) as both:
        ends = [end(process, 2 * BOUND) for process in both]
    for code, _, err in ends:
        assert code == 1
        assert "another process did not answer for 30 s" in err
    assert not (tmp_path / "run").exists()


def listening(port: int) -> set[str]:
    """The addresses, as Linux writes them, at which something listens to a port."""
    rows = [
        row.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for row in Path(table).read_text().splitlines()[1:]
    ]
    sockets = [(*row[1].split(":"), row[3]) for row in rows]
    return {address for address, p, state in sockets if int(p, 16) == port and state == "0A"}


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
def test_one_that_never_starts_and_an_address_that_is_the_only_one(data, tmp_path):
    flags = new_run(data, tmp_path / "run", "--peer-timeout", 5)
    with processes(flags, count=2) as (process,):
        port = int(process.args[process.args.index("--coordinator") + 1].rpartition(":")[2])
        while not (addresses := listening(port)):
            assert process.poll() is None
            time.sleep(0.05)
        assert all(address.endswith("0100007F") for address in addresses)  # 127.0.0.1
        code, _, err = end(process)
    assert code == 1
    assert f"not all processes came to 127.0.0.1:{port} within 10 s" in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_killed_process_0_ends_the_others_in_time(data, tmp_path):
    path = tmp_path / "run"
    with processes(*[new_run(data, path, "--epochs", 100_000)] * 2) as both:
        wait_for(both[0], "Epoch 2/")
        both[0].kill()
        code, _, err = end(both[1])
    assert code not in (None, 0)
    assert err  # whether we speak first, or JAX does, is a race
    epochs = len(read_metrics(path)) + 1
    assert main(["train", *resume(path, "--epochs", epochs)]) == 0
    assert_same_result(path, straight(data, tmp_path / "straight", epochs))


def test_processes_with_different_numbers_of_devices_are_refused(data, tmp_path):
    flags = [new_run(data, tmp_path / "run", "--num-devices", n) for n in (1, 2)]
    with processes(*flags) as both:
        ends = [end(process, 180) for process in both]
    for i, (code, _, err) in enumerate(ends):
        assert code == 2
        assert f"process {i}: has {i + 1} devices, of 3 in 2 processes" in err
        assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


def test_a_deterministic_run_is_repeated_by_many_only_if_they_are_told(data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    flags = ("--data-dir", data, "--epochs", 1, "--deterministic", "--run-dir", one)
    assert run("train", *flags).returncode == 0
    again = ["--config", str(one / run_folder.CONFIG), "--run-dir", str(two), *PATIENT]
    with processes(*[again] * 2) as both:
        ends = [end(process, 180) for process in both]
    for code, _, err in ends:
        assert code == 2
        assert "was --deterministic; several processes must be told so" in err
    assert not two.exists()


def test_processes_of_different_runs_are_refused(data, tmp_path):
    flags = [new_run(data, tmp_path / "run", "--seed", seed) for seed in (0, 1)]
    with processes(*flags) as both:
        ends = [end(process, 180) for process in both]
    for code, _, err in ends:
        assert code == 2
        assert "the settings or images of the processes differ: 1 from process 0's" in err
    assert not (tmp_path / "run" / run_folder.CONFIG).exists()


def without_cluster() -> dict[str, str]:
    """This environment, without what a cluster would tell."""
    prefixes = ("SLURM_", "OMPI_", "KUBERNETES_", "TPU_", "JAX_COORDINATOR")
    return {k: v for k, v in os.environ.items() if not k.startswith(prefixes)}


def by_slurm(i: int) -> dict[str, str]:
    """What `srun --ntasks 2` tells task `i`."""
    return {
        "SLURM_JOB_ID": "4711", "SLURM_STEP_NODELIST": "127.0.0.1", "SLURM_STEP_NUM_NODES": "1",
        "SLURM_NTASKS": "2", "SLURM_PROCID": str(i), "SLURM_LOCALID": str(i),
    }  # fmt: skip


def by_open_mpi(i: int) -> dict[str, str]:
    """What `mpirun -n 2` of Open MPI 4 tells process `i`."""
    return {
        "OMPI_MCA_orte_hnp_uri": "1531576320.0;tcp://127.0.0.1:34911",
        "OMPI_COMM_WORLD_SIZE": "2",
        "OMPI_COMM_WORLD_RANK": str(i),
        "OMPI_COMM_WORLD_LOCAL_RANK": str(i),
    }


@pytest.mark.parametrize("told", [by_slurm, by_open_mpi])
def test_auto_asks_what_started_the_processes(data, tmp_path, told):
    port = str(free_port())
    fixed = {
        "JAX_COORDINATOR_PORT": port,
        "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
    }
    path = tmp_path / "run"
    command = [*COMMAND, *new_run(data, path, "--epochs", 1, "--distributed", "auto")]
    with running(*((command, without_cluster() | fixed | told(i)) for i in range(2))) as both:
        ends = [end(process, 180) for process in both]
    assert [code for code, *_ in ends] == [0, 0], ends
    assert json.loads((path / run_folder.CONFIG).read_text())["topology"]["processes"] == 2
    assert_same_result(path, straight(data, tmp_path / "straight", 1))


def test_where_there_is_no_cluster_none_is_found(tmp_path):
    done = subprocess.run(
        [*COMMAND, "--distributed", "auto", "--run-dir", str(tmp_path / "run")],
        capture_output=True, text=True, env=without_cluster(), check=False,
    )  # fmt: skip
    assert done.returncode == 2
    assert "found neither Slurm, Open MPI, Kubernetes nor Cloud TPU" in done.stderr
    assert done.stderr.count("\n") <= 2


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        (["--coordinator", "localhost:1"], "give all three"),
        (["--num-processes", "2", "--process-id", "0"], "give all three"),
        (
            ["--coordinator", "localhost:1", "--num-processes", "2", "--process-id", "2"],
            "process-id is 2; it must be from 0",
        ),
        (
            ["--coordinator", "localhost", "--num-processes", "2", "--process-id", "0"],
            "it must be ADDRESS:PORT",
        ),
        (
            ["--coordinator", "localhost:99999", "--num-processes", "2", "--process-id", "0"],
            "it must be ADDRESS:PORT",
        ),
        (["--distributed", "auto", "--process-id", "0"], "give it alone"),
        (["--peer-timeout", "0"], "peer-timeout is 0"),
    ],
)
def test_a_wrong_combination_is_refused(tmp_path, capsys, flags, said):
    assert main(["train", "--run-dir", str(tmp_path / "run"), *flags]) == 2
    assert said in capsys.readouterr().err
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("address", ["192.0.2.1:9911", "no.such.host.invalid:1"])
def test_where_process_0_cannot_listen_it_says_so(tmp_path, address):
    flags = ["--coordinator", address, "--num-processes", "2", "--process-id", "0"]
    done = run("train", "--run-dir", tmp_path / "run", *flags)
    assert done.returncode == 2
    assert done.stderr.startswith(f"flax-mnist: --coordinator {address}: cannot listen there (")
    assert done.stderr.count("\n") == 1


def test_where_another_program_listens_process_0_says_so(tmp_path):
    with socket.socket() as other:
        other.bind(("127.0.0.1", 0))
        other.listen()
        address = f"127.0.0.1:{other.getsockname()[1]}"
        flags = ["--coordinator", address, "--num-processes", "2", "--process-id", "0"]
        done = run("train", "--run-dir", tmp_path / "run", *flags)
    assert done.returncode == 2
    assert "cannot listen there (Address already in use)" in done.stderr


def test_alone_there_is_nothing_to_agree_on():
    assert is_first()
    assert agreement.largest(7) == 7
    assert agreement.broadcast_text(lambda: "ä") == "ä"
    assert agreement.broadcast(lambda: {"a": 1}, like={"a": 0}) == {"a": 1}
    agreement.require_same({"seed": 0})
