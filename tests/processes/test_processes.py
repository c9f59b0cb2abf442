"""Several processes that train together, as real ones on the loopback interface."""

from __future__ import annotations

import contextlib
import json
import signal
import socket
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import load_file

from flax_mnist.devices import agreement
from flax_mnist.devices.processes import is_first
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import read_metrics
from flax_mnist.store.record import read_config
from tests.helpers import runs
from tests.helpers.command_line import COMMAND, ask, environment, refused, run
from tests.helpers.processes import BOUND, end, free_port, listening, running, together, wait_for

PATIENT = 60
"""Seconds for --peer-timeout: several processes that start at once on a busy machine take long."""


def new_run(data: Path, path: Path, **more: object) -> list[str]:
    given = {"momentum": 0.5, "precision": "float64", "peer_timeout": PATIENT} | more
    return runs.train(data, path, **given)


def resume(path: Path, **more: object) -> list[str]:
    return runs.resume(path, peer_timeout=PATIENT, **more)


def straight(data: Path, path: Path, epochs: int) -> Path:
    """A run of one process that nobody disturbs."""
    assert ask(*new_run(data, path, epochs=epochs, quiet=True)) == 0
    return path


def assert_same_result(ours: Path, theirs: Path, atol: float = 1e-12) -> None:
    a, b = (load_file(path / run_folder.WEIGHTS) for path in (ours, theirs))
    assert a.keys() == b.keys()
    for name in a:
        np.testing.assert_allclose(a[name], b[name], rtol=0, atol=atol)
    for mine, other in zip(*map(read_metrics, (ours, theirs)), strict=True):
        assert mine[:2] == other[:2]
        assert mine[2:5] == pytest.approx(other[2:5], abs=atol)


def names(path: Path) -> set[str]:
    """All files of a run."""
    return {file.relative_to(path).as_posix() for file in path.rglob("*")}


@pytest.mark.long
def test_two_processes_are_as_one_and_three_go_on(data, tmp_path):
    ours, theirs = tmp_path / "two", tmp_path / "one"
    with together(*[new_run(data, ours, epochs=2)] * 2) as both:
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
    arguments = [resume(path, epochs=3, data_dir=data) for path in (ours, nowhere, nowhere)]
    with together(*arguments) as three:
        ends = [end(process, 180) for process in three]
    assert [code for code, *_ in ends] == [0, 0, 0], ends
    assert not nowhere.exists()
    assert ask(*resume(theirs, epochs=3)) == 0
    assert_same_result(ours, theirs)


@pytest.mark.long
def test_two_processes_begin_with_given_weights_and_stop_early_as_one_does(data, tmp_path):
    first, ours, theirs = (tmp_path / name for name in ("first", "two", "one"))
    straight(data, first, 1)
    asked = {
        "init_from": first,
        "momentum": 0.9,
        "learning_rate": 0.05,
        "epochs": 40,
        "validation": 300,
        "patience": 2,
    }
    nowhere = tmp_path / "another disk"
    others = asked | {"init_from": nowhere}  # the first process alone has the file
    with together(new_run(data, ours, **asked), new_run(data, ours, **others)) as both:
        (code, out, err), (code_1, _, err_1) = (end(process, 180) for process in both)
    assert (code, code_1) == (0, 0), err + err_1
    assert "stopped early" in out
    assert ask(*new_run(data, theirs, **asked, quiet=True)) == 0
    assert_same_result(ours, theirs, atol=1e-9)  # such large steps make roundings grow
    best = [read_metrics(path)[-1].best_epoch for path in (ours, theirs)]
    assert best[0] == best[1] == len(read_metrics(ours)) - 2

    # More patience, with a process that has never seen the folder.
    patient = {"patience": 4, "epochs": 40}
    arguments = [resume(path, data_dir=data, **patient) for path in (ours, nowhere)]
    with together(*arguments) as both:
        ends = [end(process, 180) for process in both]
    assert [code for code, *_ in ends] == [0, 0], ends
    assert ask(*resume(theirs, **patient)) == 0
    assert_same_result(ours, theirs, atol=1e-9)


@pytest.mark.long
def test_a_signal_to_one_stops_all_and_a_killed_one_ends_all(data, tmp_path):
    path = tmp_path / "run"
    with together(*[new_run(data, path, epochs=100_000)] * 2) as both:
        wait_for(both[0], "Epoch 2/")
        both[1].send_signal(signal.SIGTERM)
        (code, _, err), (code_1, _, err_1) = map(end, both)
    assert (code, code_1) == (143, 143), err + err_1
    assert "flax-mnist: terminated after step" in err
    assert "Traceback" not in err + err_1
    nowhere = tmp_path / "another disk"
    arguments = [resume(run, epochs=100_000, data_dir=data) for run in (path, nowhere)]
    with together(*arguments, arguments[1]) as three:
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
    assert ask(*resume(path, epochs=epochs)) == 0
    assert_same_result(path, straight(data, tmp_path / "straight", epochs))


@pytest.fixture(scope="module")
def stalled(data, tmp_path_factory) -> dict[int, tuple[Path, tuple[int, str, str]]]:
    """By which of two processes stalls: their run, and how the other ended.

    Both pairs at once: what takes long is that somebody waits.
    """
    with contextlib.ExitStack() as stack:
        pairs = {}
        for victim in (0, 1):
            path = tmp_path_factory.mktemp("stalled") / "run"
            arguments = new_run(data, path, epochs=100_000, peer_timeout=15)
            pairs[victim] = path, stack.enter_context(together(*[arguments] * 2))
        for victim, (_, both) in pairs.items():
            wait_for(both[0], "Epoch 2/")
            both[victim].send_signal(signal.SIGSTOP)
        return {victim: (path, end(both[1 - victim])) for victim, (path, both) in pairs.items()}


@pytest.mark.long
@pytest.mark.parametrize("victim", [0, 1])
def test_a_stalled_process_is_waited_for_so_long_and_no_longer(data, tmp_path, stalled, victim):
    path, (code, _, err) = stalled[victim]
    assert code == 1, err
    assert "another process did not answer for 15 s" in err
    epochs = len(read_metrics(path)) + 1
    assert ask(*resume(path, epochs=epochs)) == 0
    assert_same_result(path, straight(data, tmp_path / "straight", epochs))


LOADS_FOREVER = """
import sys, time
from flax_mnist.data import dataset
dataset.load_dataset = lambda *_: time.sleep(1000)
from flax_mnist.cli.main import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.mark.long
def test_a_process_whose_images_never_come_ends_all(data, tmp_path):
    arguments = new_run(data, tmp_path / "run", peer_timeout=15)
    with together(*[arguments] * 2, programs={1: [sys.executable, "-c", LOADS_FOREVER]}) as both:
        ends = [end(process, 2 * BOUND) for process in both]
    for code, _, err in ends:
        assert code == 1
        assert "another process did not answer for 30 s" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.skipif(not Path("/proc/net/tcp").exists(), reason="reads Linux's table of sockets")
def test_one_that_never_starts_and_an_address_that_is_the_only_one(data, tmp_path):
    arguments = new_run(data, tmp_path / "run", peer_timeout=3)
    with together(arguments, count=2) as (process,):
        port = int(process.args[process.args.index("--coordinator") + 1].rpartition(":")[2])
        while not (addresses := listening(port)):
            assert process.poll() is None
            time.sleep(0.05)
        assert all(address.endswith("0100007F") for address in addresses)  # 127.0.0.1
        code, _, err = end(process)
    assert code == 1
    assert f"not all processes came to 127.0.0.1:{port} within 6 s" in err
    assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_killed_process_0_ends_the_others_in_time(data, tmp_path):
    path = tmp_path / "run"
    with together(*[new_run(data, path, epochs=100_000)] * 2) as both:
        wait_for(both[0], "Epoch 2/")
        both[0].kill()
        code, _, err = end(both[1])
    assert code not in (None, 0)
    assert err  # whether we speak first, or JAX does, is a race
    epochs = len(read_metrics(path)) + 1
    assert ask(*resume(path, epochs=epochs)) == 0
    assert_same_result(path, straight(data, tmp_path / "straight", epochs))


@pytest.mark.parametrize("more", [[], ["--dry-run"]])
def test_processes_with_different_numbers_of_devices_are_refused(data, tmp_path, more):
    arguments = [[*new_run(data, tmp_path / "run", num_devices=n), *more] for n in (1, 2)]
    with together(*arguments) as both:
        ends = [end(process, 180) for process in both]
    for i, (code, _, err) in enumerate(ends):
        assert code == 2
        assert f"process {i}: has {i + 1} devices, of 3 in 2 processes" in err
        assert "Traceback" not in err
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_a_deterministic_run_is_repeated_by_many_that_are_not_told_so(data, tmp_path):
    one, two = tmp_path / "one", tmp_path / "two"
    assert run(*runs.train(data, one, epochs=1, deterministic=True)).returncode == 0
    config = str(one / run_folder.CONFIG)
    again = ["train", "--config", config, "--run-dir", str(two), "--peer-timeout", str(PATIENT)]
    with together(*[again] * 2) as both:
        ends = [end(process, 180) for process in both]
    assert [code for code, *_ in ends] == [0, 0], ends
    assert read_config(two).config == read_config(one).config
    assert read_config(two).config.deterministic
    a, b = (load_file(path / run_folder.WEIGHTS) for path in (one, two))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name])


@pytest.mark.long
def test_processes_of_different_runs_are_refused(data, tmp_path):
    arguments = [new_run(data, tmp_path / "run", seed=seed) for seed in (0, 1)]
    with together(*arguments) as both:
        ends = [end(process, 180) for process in both]
    for code, _, err in ends:
        assert code == 2
        assert "the settings or images of the processes differ: 1 from process 0's" in err
    assert not (tmp_path / "run" / run_folder.CONFIG).exists()


def without_cluster() -> dict[str, str]:
    """This environment, without what a cluster would tell."""
    prefixes = ("SLURM_", "OMPI_", "KUBERNETES_", "TPU_", "JAX_COORDINATOR")
    return {k: v for k, v in environment().items() if not k.startswith(prefixes)}


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


@pytest.mark.long
@pytest.mark.parametrize("told", [by_slurm, by_open_mpi])
def test_auto_asks_what_started_the_processes(data, tmp_path, told):
    port = str(free_port())
    fixed = {
        "JAX_COORDINATOR_PORT": port,
        "JAX_COORDINATOR_BIND_ADDRESS": f"127.0.0.1:{port}",
    }
    path = tmp_path / "run"
    command = [*COMMAND, *new_run(data, path, epochs=1, distributed="auto")]
    variables = tuple(without_cluster() | fixed | told(i) for i in range(2))
    with running(command, command, variables=variables) as both:
        ends = [end(process, 180) for process in both]
    assert [code for code, *_ in ends] == [0, 0], ends
    assert json.loads((path / run_folder.CONFIG).read_text())["topology"]["processes"] == 2
    assert_same_result(path, straight(data, tmp_path / "straight", 1))


def test_where_there_is_no_cluster_none_is_found(tmp_path):
    absent = dict.fromkeys(environment().keys() - without_cluster().keys())
    done = run("train", "--distributed", "auto", "--run-dir", tmp_path / "run", **absent)
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
    errors = refused(capsys, "train", "--run-dir", tmp_path / "run", *flags)
    assert errors.startswith("2 ")
    assert said in errors
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
