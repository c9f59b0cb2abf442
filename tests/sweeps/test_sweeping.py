"""Sweeps that are stopped, damaged and resumed: the same bytes as if nothing had happened."""

from __future__ import annotations

import dataclasses
import itertools
from pathlib import Path

import pytest

from flax_mnist import Config
from flax_mnist.axes import Axes
from flax_mnist.config import CheckpointPolicy
from flax_mnist.devices.place import Place
from flax_mnist.errors import (
    DataError,
    FlaxMnistError,
    FlaxMnistWarning,
    RequestError,
    StoppedError,
)
from flax_mnist.store import checkpoint, run_folder, sweep_folder
from flax_mnist.sweeps.sweeping import sweep
from tests.helpers.command_line import settings_kept
from tests.helpers.sweeps import SMALL, metrics_of, result, rows_of, signal_after

AXES = Axes((0.05, 1e30), (0.9,), (64,), ((16,), (8, 8)), seeds=4)
"""Of 16 members half diverge; no group of three has whole settings alone."""
CONFIG = dataclasses.replace(SMALL, validation=200)
EVERY = CheckpointPolicy("6steps")


def swept(dataset, folder: Path, stop: float = 10**9, **more: object):
    """A sweep, or what is left of one, that ends by a signal after so many chunks."""
    given = {"checkpoints": EVERY, "group_size": 3, "place": Place("cpu")} | more
    with settings_kept():
        return sweep(CONFIG, AXES, dataset, folder, listening=signal_after(stop), **given)


@pytest.fixture(scope="module")
def straight(dataset, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("sweeps") / "straight"
    assert swept(dataset, folder).folder == folder
    return folder


@pytest.mark.long
def test_every_member_and_epoch_is_there_once(straight):
    names = (*sweep_folder.DIFFERENT, "epoch")
    there = [tuple(map(str, (row[name] for name in names))) for row in rows_of(straight)]
    axes = [*AXES.settings().values(), range(4), (1, 2)]
    wanted = {
        tuple(map(str, (list(network), size, rate, momentum, seed, epoch)))
        for network, size, rate, momentum, seed, epoch in itertools.product(*axes)
    }
    assert len(there) == len(wanted)
    assert set(there) == wanted


@pytest.mark.parametrize("chunks", [5, 13])
def test_however_often_it_is_stopped_the_bytes_are_the_same(dataset, tmp_path, straight, chunks):
    folder, ends = tmp_path / "s", []
    while not (folder / run_folder.OUTCOMES).exists():
        try:
            swept(dataset, folder, chunks, resume=bool(ends))
        except StoppedError as stopped:
            ends.append((stopped.exit_code, str(stopped)))
            with (folder / run_folder.SWEEP).open("a") as lines:
                lines.write('{"a line that": "no checkpoint knows of"}\n{"and a part of')
    assert len(ends) > 1
    assert {code for code, _ in ends} == {143}
    assert all(f"sweep --resume --run-dir {folder}" in said for _, said in ends)
    assert result(folder) == result(straight)


def test_from_a_damaged_checkpoint_it_goes_back_to_the_one_before(dataset, tmp_path, straight):
    folder = tmp_path / "s"
    with pytest.raises(StoppedError):
        swept(dataset, folder, 20)
    before, last = checkpoint.steps(folder)
    file = folder / checkpoint.FOLDER / f"{last}.safetensors"
    content = bytearray(file.read_bytes())
    content[len(content) // 2] ^= 1
    file.write_bytes(content)
    with pytest.warns(FlaxMnistWarning, match=f"going on from {before}"):
        swept(dataset, folder, resume=True)
    assert result(folder) == result(straight)


def test_one_that_is_finished_is_so_again(dataset, tmp_path, straight):
    before = result(straight)
    again = swept(dataset, straight, resume=True)
    assert result(straight) == before
    assert again.settings == sweep_folder.read_outcomes(straight)
    assert again.best is not None


def test_it_goes_on_with_its_own_settings_alone(dataset, straight):
    asked = sweep_folder.parse_asked(sweep_folder.read_asked_text(straight), straight)
    assert asked.axes == AXES
    more = dataclasses.replace(AXES, seeds=5)
    with settings_kept(), pytest.raises(RequestError, match="seeds is 5, the sweep's is 4"):
        sweep(CONFIG, more, dataset, straight, resume=True, place=Place("cpu"))
    with settings_kept(), pytest.raises(RequestError, match="group-size is 2, the sweep's is 3"):
        swept(dataset, straight, resume=True, group_size=2)
    with settings_kept(), pytest.raises(RequestError, match="holds a run already"):
        swept(dataset, straight)


def test_a_folder_without_a_sweep_cannot_be_gone_on_with(dataset, tmp_path):
    with pytest.raises(RequestError, match="is no folder of a sweep"):
        swept(dataset, tmp_path, resume=True)
    (tmp_path / run_folder.SWEEP_CONFIG).write_text("{")
    with pytest.raises(DataError, match=r"sweep\.json: damaged"):
        swept(dataset, tmp_path, resume=True)


def test_lines_that_are_missing_are_missed(tmp_path):
    rows = [(Config(seed=seed), metrics_of(1.0)) for seed in range(3)]
    sweep_folder.append_rows(tmp_path, rows, "mnist")
    sweep_folder.cut_rows(tmp_path, 2)
    assert [what["seed"] for what, _ in sweep_folder.read_rows(tmp_path)] == [0, 1]
    with pytest.raises(DataError, match="must have 3 lines; it has 2"):
        sweep_folder.cut_rows(tmp_path, 3)


def test_where_lines_cannot_be_written_it_says_so(tmp_path):
    (tmp_path / run_folder.SWEEP).mkdir()
    with pytest.raises(FlaxMnistError, match=r"sweep\.jsonl: cannot be written"):
        sweep_folder.append_rows(tmp_path, [(Config(), metrics_of(1.0))], "mnist")
