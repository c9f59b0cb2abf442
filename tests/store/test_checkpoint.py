"""A checkpoint is what was saved, or it is not one."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import shutil
import threading
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy
from safetensors.numpy import load_file, save_file

from flax_mnist import Config
from flax_mnist.errors import DataError, FlaxMnistError, FlaxMnistWarning, RequestError
from flax_mnist.runs.loop import begin
from flax_mnist.store import checkpoint
from flax_mnist.store.checkpoint import Progress
from flax_mnist.train import Losses

CONFIG = Config(hidden_sizes=(4, 3), momentum=0.9)
RUN = {"learning_rate": 0.003, "hidden_sizes": (4, 3), "dataset": "mnist"}


def progress(step: int, config: Config = CONFIG) -> Progress:
    """One that differs from any other step's, in its learning rate and its losses too."""
    state = jax.tree.map(lambda leaf: (leaf + step).astype(leaf.dtype), begin(config).state)
    return Progress(state, Losses(jnp.float32(step / 3), jnp.int32(step)), step // 10, step, 0.1)


def assert_same(ours: Progress, theirs: Progress) -> None:
    assert ours[2:] == theirs[2:]
    assert jax.tree.structure(ours) == jax.tree.structure(theirs)
    for a, b in zip(jax.tree.leaves(ours[:2]), jax.tree.leaves(theirs[:2]), strict=True):
        assert (a.dtype, a.shape, a.weak_type) == (b.dtype, b.shape, b.weak_type)
        np.testing.assert_array_equal(a, b)


@pytest.fixture(scope="module")
def saved(tmp_path_factory) -> Path:
    """Checkpoints of the steps 10, 20 and 30; 5 was saved before."""
    folder = tmp_path_factory.mktemp("saved")
    for step in (5, 10, 20, 30):
        checkpoint.save(folder, step, progress(step), RUN, keep=3)
    return folder


@pytest.fixture
def run(saved, tmp_path) -> Path:
    return Path(shutil.copytree(saved, tmp_path / "run"))


def names(run: Path) -> set[str]:
    return {path.name for path in (run / checkpoint.FOLDER).iterdir()}


def files(run: Path, step: int) -> list[Path]:
    return sorted(p for p in (run / checkpoint.FOLDER / str(step)).rglob("*") if p.is_file())


def restore(run: Path, config: Config = CONFIG, of: dict = RUN) -> Progress | None:
    return checkpoint.restore(run, begin(config), of)


def test_the_newest_ones_remain_and_the_newest_is_restored(run):
    assert names(run) == {"10", "20", "30"}
    assert_same(restore(run), progress(30))


def test_without_any_there_is_none(tmp_path):
    assert restore(tmp_path) is None


def test_the_manifest_is_the_sha256_of_every_file_read_by_hand(run):
    folder = run / checkpoint.FOLDER / "20"
    content, seal = (folder / "manifest.json").read_text().splitlines()
    assert hashlib.sha256(content.encode()).hexdigest() == seal
    there = {p.relative_to(folder).as_posix(): p for p in folder.rglob("*") if p.is_file()}
    del there["manifest.json"]
    assert len(there) >= 2
    assert json.loads(content)["files"] == {
        name: hashlib.sha256(path.read_bytes()).hexdigest() for name, path in there.items()
    }


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def truncate(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:-1])


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


@pytest.mark.parametrize("damage", [flip, truncate, Path.unlink, replace_by_a_folder])
def test_damage_to_any_file_is_reported_and_the_one_before_is_used(saved, tmp_path, damage):
    for i, file in enumerate(files(saved, 30)):
        if not file.stat().st_size and damage in (flip, truncate):
            continue
        run = Path(shutil.copytree(saved, tmp_path / str(i)))
        damage(run / file.relative_to(saved))
        with pytest.warns(FlaxMnistWarning, match=rf"30/.*{file.name}.*set aside as 30\.damaged"):
            assert_same(restore(run), progress(20))
        assert names(run) == {"10", "20", "30.damaged"}
        assert_same(restore(run), progress(20))  # and silently from now on
        checkpoint.save(run, 30, progress(30), RUN, keep=3)
        assert names(run) == {"10", "20", "30", "30.damaged"}


def test_one_that_the_disk_no_longer_reads_is_damaged(run, monkeypatch):
    read_bytes = Path.read_bytes

    def fails_in_the_newest(path: Path) -> bytes:
        if path.name == checkpoint.ARRAYS and "30" in path.parts:
            raise OSError(errno.EIO, "Input/output error")
        return read_bytes(path)

    monkeypatch.setattr(Path, "read_bytes", fails_in_the_newest)
    with pytest.warns(FlaxMnistWarning, match=r"cannot be read \(Input/output error\)"):
        assert_same(restore(run), progress(20))


def test_a_file_too_many_an_empty_folder_and_a_file_instead_are_no_checkpoint(run):
    folder = run / checkpoint.FOLDER
    (folder / "30" / "more").write_text("x")
    (folder / "40").mkdir()
    (folder / "50").write_text("x")
    with pytest.warns(FlaxMnistWarning) as warnings:
        assert_same(restore(run), progress(20))
    said = "\n".join(str(w.message) for w in warnings)
    assert all(f"{step}/" in said and f"{step}.damaged" in said for step in (30, 40, 50))
    assert names(run) == {"10", "20", "30.damaged", "40.damaged", "50.damaged"}


def seal(folder: Path, **change: object) -> None:
    """Makes a manifest of what is in a checkpoint now: whoever writes both files can."""
    content = json.loads((folder / "manifest.json").read_text().splitlines()[0]) | change
    content |= {"files": checkpoint._digests(folder)} if "files" not in change else {}
    text = json.dumps(content)
    (folder / "manifest.json").write_text(f"{text}\n{hashlib.sha256(text.encode()).hexdigest()}\n")


def without_numbers(array: np.ndarray) -> np.ndarray:
    return np.full_like(array, np.nan) if array.dtype.kind == "f" else array


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (lambda a: {n: without_numbers(x) for n, x in a.items()}, "numbers are finite"),
        (lambda a: {n: x.astype(np.float16) for n, x in a.items()}, "arrays are not those"),
        (lambda a: {n: x[..., None] for n, x in a.items()}, "arrays are not those"),
        (lambda a: dict(list(a.items())[1:]), "arrays are not those"),
        (lambda a: b"\xff" * 7 + b"\x00{}", "cannot be loaded"),
    ],
    ids=["NaN", "dtype", "shape", "one is missing", "lying header"],
)
def test_sealed_files_with_other_arrays_than_promised_are_damaged(run, change, says):
    folder = run / checkpoint.FOLDER / "30"
    (file,) = folder.rglob(checkpoint.ARRAYS)
    changed = change(safetensors.numpy.load(file.read_bytes()))
    file.write_bytes(changed if isinstance(changed, bytes) else safetensors.numpy.save(changed))
    seal(folder)
    with pytest.warns(FlaxMnistWarning, match=rf"30: .*{says}.*set aside"):
        assert_same(restore(run), progress(20))


def test_a_sealed_manifest_in_another_order_permutes_nothing(run):
    folder = run / checkpoint.FOLDER / "30"
    arrays = json.loads((folder / "manifest.json").read_text().splitlines()[0])["arrays"]
    seal(folder, arrays=dict(reversed(arrays.items())))
    assert_same(restore(run), progress(30))


@pytest.mark.parametrize("part", ["run", "arrays", "files"])
def test_a_sealed_manifest_of_other_types_is_none(run, part):
    seal(run / checkpoint.FOLDER / "30", **{part: None})
    with pytest.warns(FlaxMnistWarning, match=r"30/manifest.json: is no manifest.*set aside"):
        assert_same(restore(run), progress(20))


def test_where_none_is_whole_each_is_named_and_nothing_is_renamed(run):
    for step in (10, 20, 30):
        flip(files(run, step)[-1])
    for _ in range(2):
        with pytest.raises(FlaxMnistError, match=r"30/.*20/.*10/.*No checkpoint is whole") as error:
            restore(run)
        assert error.value.exit_code == 1
    assert names(run) == {"10", "20", "30"}


def test_what_was_all_set_aside_is_no_fresh_start(run):
    for step in (10, 20):
        shutil.rmtree(run / checkpoint.FOLDER / str(step))
    (run / checkpoint.FOLDER / "30").rename(run / checkpoint.FOLDER / "30.damaged")
    with pytest.raises(FlaxMnistError, match=r"30\.damaged: was set aside"):
        restore(run)


def test_a_forged_digest_does_not_hide_another_shape(run):
    """Whoever writes manifests can write weights; but a slip of ours in the shapes is noticed."""
    folder = run / checkpoint.FOLDER / "30"
    arrays = load_file(folder / checkpoint.PROGRESS / checkpoint.ARRAYS)
    name = "[0].params['Dense_0']['kernel']"
    save_file(
        arrays | {name: arrays[name].T.copy()}, folder / checkpoint.PROGRESS / checkpoint.ARRAYS
    )
    manifest = checkpoint.read_manifest(folder / "manifest.json")
    digests = checkpoint._digests(folder)
    specs = manifest.arrays | {name: ["float32", [4, 784]]}
    forged = manifest._replace(files=digests, arrays=specs)
    (folder / "manifest.json").write_bytes(checkpoint._sealed(forged))
    with pytest.raises(RequestError, match=r"Dense_0.*kernel.*\[4, 784\]\] there and .*\[784, 4\]"):
        restore(run)


@pytest.mark.parametrize(
    ("changes", "of", "said"),
    [
        ({"hidden_sizes": (4, 5)}, {}, r"Dense_1.*\[4, 3\].*\[4, 5\]"),
        ({"hidden_sizes": (4,)}, {}, r"Dense_2.* None here"),
        ({"momentum": 0.0}, {}, r"trace.* None here"),
        ({}, {"learning_rate": 0.1}, "learning_rate is 0.003 there and 0.1 here"),
        ({}, {"dataset": "kmnist"}, "dataset is mnist there and kmnist here"),
    ],
)
def test_another_runs_is_refused_with_the_differences(run, changes, of, said):
    with pytest.raises(RequestError, match=said):
        restore(run, dataclasses.replace(CONFIG, **changes), RUN | of)
    assert names(run) == {"10", "20", "30"}


def test_another_dtype_is_refused(run):
    like = begin(CONFIG)
    wide = like._replace(state=jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), like.state))
    with pytest.raises(RequestError, match=r"float32.* there and .*float64.* here"):
        checkpoint.restore(run, wide, RUN)


def test_what_a_killed_process_left_is_removed(run):
    folder = run / checkpoint.FOLDER
    (folder / "unfinished" / "progress").mkdir(parents=True)
    (folder / "unfinished.orbax-checkpoint-tmp").mkdir()
    assert_same(restore(run), progress(30))
    checkpoint.save(run, 40, progress(40), RUN, keep=2)
    assert names(run) == {"30", "40"}
    assert_same(restore(run), progress(40))


def test_weights_that_are_not_finite_are_not_saved(run):
    bad = progress(40)
    bad.state.params["Dense_1"]["bias"] = bad.state.params["Dense_1"]["bias"].at[1].set(jnp.nan)
    with pytest.raises(FlaxMnistError, match="not finite after step 40"):
        checkpoint.save(run, 40, bad, RUN, keep=1)
    assert_same(restore(run), progress(30))


def test_a_failed_save_leaves_those_before_it(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_sealed", full)
    with pytest.raises(FlaxMnistError, match=r"40: cannot be written \(No space left"):
        checkpoint.save(run, 40, progress(40), RUN, keep=1)
    assert_same(restore(run), progress(30))


def test_saving_goes_on_beside_the_training_with_what_there_was(tmp_path, monkeypatch):
    may_go_on, save = threading.Event(), checkpoint.save

    def waits(*arguments: object) -> None:
        assert may_go_on.wait(60)
        save(*arguments)

    monkeypatch.setattr(checkpoint, "save", waits)
    trained = progress(10)
    with checkpoint.saving(tmp_path, RUN, keep=3) as save_soon:
        save_soon(10, trained)
        # As a step does with the memory that it is given.
        jax.tree.map(lambda leaf: leaf.delete(), trained.state)
        assert restore(tmp_path) is None
        may_go_on.set()
        save_soon(20, progress(20))
        assert "10" in names(tmp_path)
    assert names(tmp_path) == {"10", "20"}
    assert_same(restore(tmp_path), progress(20))
    shutil.rmtree(tmp_path / checkpoint.FOLDER / "20")
    assert_same(restore(tmp_path), progress(10))


def test_what_saving_fails_with_is_raised_by_the_next_one_and_at_the_end(run, monkeypatch):
    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "_sealed", full)
    with checkpoint.saving(run, RUN, keep=1) as save_soon:
        save_soon(40, progress(40))
        with pytest.raises(FlaxMnistError, match=r"40: cannot be written \(No space left"):
            save_soon(50, progress(50))
    with (
        pytest.raises(FlaxMnistError, match=r"50: cannot be written"),
        checkpoint.saving(run, RUN, keep=1) as save_soon,
    ):
        save_soon(50, progress(50))
    assert_same(restore(run), progress(30))


def test_a_process_that_trains_with_others_saves_before_it_goes_on(tmp_path, monkeypatch):
    monkeypatch.setattr(jax, "process_count", lambda: 2)
    with checkpoint.saving(tmp_path, RUN, keep=3) as save_soon:
        save_soon(10, progress(10))
        assert names(tmp_path) == {"10"}


def test_a_manifest_that_is_none_is_a_data_error(tmp_path):
    file = tmp_path / "manifest.json"
    for content in (b"", b"{}", b"[]", b"\xff", b'{"epoch": 1}'):
        sealed = content + b"\n" + hashlib.sha256(content).hexdigest().encode() + b"\n"
        for written in (content, sealed):
            file.write_bytes(written)
            with pytest.raises(DataError, match=r"manifest\.json"):
                checkpoint.read_manifest(file)
