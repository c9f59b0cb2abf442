"""Sweeps as real processes, one or several, that are stopped, killed and stalled."""

from __future__ import annotations

import json
import re
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from flax_mnist.store import run_folder
from tests.helpers.command_line import COMMAND, ask, environment, flags
from tests.helpers.platforms import POSIX
from tests.helpers.processes import BOUND, end, running, together, wait_for
from tests.helpers.sweeps import result

PATIENT = 60
"""As of several processes that train one network."""
VARIED = ["--learning-rates", "0.05", "1e30", "0.01", "--momenta", "0", "0.9"]


def new_sweep(data: Path, path: Path, **more: object) -> list[str]:
    """Twelve members in groups of four, which three devices do not divide; a third diverges."""
    asked = {"seeds": 2, "epochs": 25, "hidden_sizes": 8, "group_size": 4, "validation": 100}
    asked |= {"checkpoint_every": "20steps", "peer_timeout": PATIENT} | more
    return ["sweep", *VARIED, *flags(data_dir=data, run_dir=path, **asked)]


def resume(path: Path, **more: object) -> list[str]:
    return ["sweep", "--resume", *flags(run_dir=path, **{"peer_timeout": PATIENT} | more)]


@pytest.fixture(scope="module")
def straight(data, tmp_path_factory) -> Path:
    """A sweep of one process with two devices that nobody disturbs."""
    path = tmp_path_factory.mktemp("sweep") / "straight"
    with running([*COMMAND, *new_sweep(data, path, num_devices=2)]) as (process,):
        code, _, err = end(process, 180)
    assert code == 0, err
    topology = json.loads((path / run_folder.SWEEP_CONFIG).read_text())["topology"]
    assert topology == {"processes": 1, "devices": 2, "devices_per_process": 2}
    return path


@pytest.mark.long
def test_two_processes_give_what_one_with_two_devices_gives(data, tmp_path, straight):
    ours = tmp_path / "two"
    with together(*[new_sweep(data, ours, num_devices=1)] * 2) as both:
        (code, out, err), (code_1, out_1, err_1) = (end(process, 180) for process in both)
    assert (code, code_1) == (0, 0), err + err_1
    assert "12 members in 3 groups on 2 x cpu" in out
    assert "members" not in out_1
    assert result(ours) == result(straight)
    there, theirs = ({file.name for file in path.rglob("*.*")} for path in (ours, straight))
    assert there == theirs


@pytest.mark.long
def test_a_signal_to_one_stops_all_and_a_killed_one_ends_all(data, tmp_path, straight):
    path, nowhere = tmp_path / "run", tmp_path / "another disk"
    with together(*[new_sweep(data, path, num_devices=1)] * 2) as both:
        wait_for(both[0], "Group 1/3  Epoch 2/")
        both[1].send_signal(signal.SIGTERM)
        (code, _, err), (code_1, _, err_1) = map(end, both)
    assert (code, code_1) == (143, 143), err + err_1
    assert "flax-mnist: terminated after" in err
    assert "sweep --resume --run-dir" in err
    assert "Traceback" not in err + err_1
    # Three go on, one with two devices; the others have no folder of their own: they are told.
    devices = zip((path, nowhere, nowhere), (1, 2, 1), strict=True)
    arguments = [resume(folder, data_dir=data, num_devices=n) for folder, n in devices]
    with together(*arguments) as three:
        wait_for(three[0], "Group 2/3  Epoch 2/")
        three[2].kill()
        (code, _, err), (code_1, _, err_1) = map(end, three[:2])
    assert code == 1
    assert "flax-mnist: process 0: another process is gone" in err
    assert "Traceback" not in err + err_1
    assert code_1 not in (None, 0)
    assert not nowhere.exists()
    assert ask(*resume(path, json=True)) == 0
    assert result(path) == result(straight)


@pytest.mark.long
def test_three_processes_with_unequal_numbers_of_devices(data, tmp_path, straight):
    path = tmp_path / "three"
    arguments = [new_sweep(data, path, num_devices=n) for n in (1, 2, 1)]
    with together(*arguments) as three:
        ends = [end(process, 180) for process in three]
    assert [code for code, *_ in ends] == [0, 0, 0], ends
    assert "on 4 x cpu" in ends[0][1]
    assert result(path) == result(straight)


@pytest.mark.long
def test_a_stalled_process_is_waited_for_so_long_and_no_longer(data, tmp_path, straight):
    path = tmp_path / "run"
    with together(*[new_sweep(data, path, num_devices=1, peer_timeout=25)] * 2) as both:
        wait_for(both[0], "Group 1/3  Epoch 2/")
        both[1].send_signal(signal.SIGSTOP)
        code, _, err = end(both[0])
    assert code == 1, err
    assert "another process did not answer for 25 s" in err
    assert ask(*resume(path, json=True)) == 0
    assert result(path) == result(straight)


def test_one_that_never_comes_is_named(data, tmp_path):
    with together(new_sweep(data, tmp_path / "run", peer_timeout=2), count=2) as (process,):
        code, _, err = end(process)
    assert code == 1
    assert "not all processes came to 127.0.0.1" in err
    assert not (tmp_path / "run").exists()


@pytest.mark.long
def test_one_of_another_sweep_is_refused(data, tmp_path):
    arguments = [new_sweep(data, tmp_path / "run", num_devices=1, seed=seed) for seed in (0, 1)]
    with together(*arguments) as both:
        ends = [end(process, 2 * BOUND) for process in both]
    for code, _, err in ends:
        assert code == 2, err
        assert "the settings or images of the processes differ: 1 from process 0's" in err
    assert not (tmp_path / "run" / run_folder.SWEEP_CONFIG).exists()


STARTS = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], check=True)
print(resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss, file=sys.stderr)
"""


@pytest.mark.long
@POSIX
@pytest.mark.parametrize("seeds", [16, 400])
def test_the_memory_that_is_told_is_what_is_taken(data, tmp_path, seeds):
    given = flags(data_dir=data, run_dir=tmp_path / "s", seeds=seeds, epochs=1)
    # Started by a small process: one that has had more than the sweep would pass for its peak.
    done = subprocess.run(
        [sys.executable, "-c", STARTS, *COMMAND, "sweep", "--learning-rates", "0.01", *given],
        env=environment(), capture_output=True, text=True, check=True,
    )  # fmt: skip
    told = re.search(r"in about ([\d,]+) MB of memory", done.stdout)
    peak = int(done.stderr) * (1 if sys.platform == "darwin" else 1024) / 1e6
    assert float(told[1].replace(",", "")) == pytest.approx(peak, rel=0.25)


@pytest.mark.long
@pytest.mark.parametrize(("signum", "code"), [("SIGINT", 130), ("SIGTERM", 143)])
def test_a_sweep_that_is_stopped_goes_on(data, tmp_path, straight, signum, code):
    path = tmp_path / "a sweep"
    with running([*COMMAND, *new_sweep(data, path)]) as (process,):
        wait_for(process, "Group 2/3  Epoch 2/")
        process.send_signal(signal.Signals[signum])
        _, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "of 12 members. Go on with: flax-mnist sweep --resume --run-dir '" in err
    assert ask(*resume(path, json=True)) == 0
    assert result(path) == result(straight)
