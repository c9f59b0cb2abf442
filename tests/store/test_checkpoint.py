"""A checkpoint is what was saved, or it is not one."""

from __future__ import annotations

import dataclasses
import errno
import hashlib
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors

from flax_mnist import Config
from flax_mnist.errors import DataError, FlaxMnistError, FlaxMnistWarning, RequestError
from flax_mnist.runs.loop import begin
from flax_mnist.store import checkpoint
from flax_mnist.store.checkpoint import Progress, read_checkpoint
from flax_mnist.train import Losses
from tests.helpers.checkpoints import arrays_in, put_together, seal, take_apart, with_arrays

CONFIG = Config(hidden_sizes=(4, 3), momentum=0.9)
RUN = {"learning_rate": 0.003, "hidden_sizes": (4, 3), "dataset": 'the "mnist"'}


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
    """Of what is in the folder of the checkpoints, without `.safetensors`."""
    return {path.name.replace(".safetensors", "") for path in (run / checkpoint.FOLDER).iterdir()}


def file(run: Path, step: int) -> Path:
    return run / checkpoint.FOLDER / f"{step}.safetensors"


def restore(run: Path, config: Config = CONFIG, of: dict = RUN) -> Progress | None:
    return checkpoint.restore(run, begin(config), of)


def assert_the_one_before_is_used(run: Path, says: str) -> None:
    with pytest.warns(
        FlaxMnistWarning,
        match=rf"30\.safetensors: .*{says}.*set aside as 30\.safetensors\.damaged; going on",
    ):
        assert_same(restore(run), progress(20))
    assert names(run) == {"10", "20", "30.damaged"}
    assert_same(restore(run), progress(20))  # and silently from now on


def test_the_newest_ones_remain_and_the_newest_is_restored(run):
    assert names(run) == {"10", "20", "30"}
    assert checkpoint.steps(run) == [10, 20, 30]
    assert_same(restore(run), progress(30))


def test_without_any_there_is_none(tmp_path):
    assert restore(tmp_path) is None


def test_the_digest_is_the_sha256_of_all_other_bytes_read_by_hand(run):
    content = file(run, 20).read_bytes()
    digest = take_apart(content)[0]["__metadata__"]["sha256"]
    before, after = content.split(digest.encode())
    assert hashlib.sha256(before + after).hexdigest() == digest


def test_any_reader_of_safetensors_opens_it(run):
    with safetensors.safe_open(file(run, 20), "np") as opened:
        said, there = (
            opened.metadata(),
            {name: opened.get_tensor(name) for name in sorted(opened.keys())},
        )
    assert (said["epoch"], said["step"], said["seconds"]) == ("2", "20", "0.1")
    assert json.loads(said["run"]) == {**RUN, "hidden_sizes": [4, 3]}
    state = progress(20).state
    np.testing.assert_array_equal(
        there["[0].params['Dense_1']['kernel']"], state.params["Dense_1"]["kernel"]
    )
    np.testing.assert_array_equal(there["[1].total"], np.float32(20 / 3))
    assert len(there) == len(jax.tree.leaves(progress(20)[:2]))


def test_what_numpy_counted_is_saved_too(tmp_path):
    counted = progress(10)._replace(epoch=np.int64(1), step=np.int32(10), seconds=np.float64(0.1))
    checkpoint.save(tmp_path, 10, counted, RUN, keep=1)
    assert_same(restore(tmp_path), progress(10))


@pytest.mark.parametrize("bit", range(8))
def test_no_bit_can_be_flipped_unnoticed(saved, tmp_path, bit):
    """Of any byte of the header, and of every 97th byte of the data."""
    content = file(saved, 30).read_bytes()
    flipped = tmp_path / "30.safetensors"
    data = 8 + int.from_bytes(content[:8], "little")
    positions = [*range(data), *range(data, len(content), 97), len(content) - 1]
    for at in positions:
        flipped.write_bytes(content[:at] + bytes([content[at] ^ 1 << bit]) + content[at + 1 :])
        with pytest.raises(DataError, match="is damaged: it is not what was saved"):
            read_checkpoint(flipped)
    flipped.write_bytes(content)
    assert read_checkpoint(flipped).step == 30


def flip(path: Path) -> None:
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 4
    path.write_bytes(content)


def swap_digest(path: Path) -> None:
    """Takes the digest of another checkpoint."""
    digests = [
        take_apart(of.read_bytes())[0]["__metadata__"]["sha256"].encode()
        for of in (path, path.with_name("10.safetensors"))
    ]
    path.write_bytes(path.read_bytes().replace(*digests))


def replace_by_a_folder(path: Path) -> None:
    path.unlink()
    path.mkdir()


def replace_by_a_link_to_nothing(path: Path) -> None:
    path.unlink()
    path.symlink_to("nothing")


@pytest.mark.parametrize(
    ("damage", "says"),
    [
        (flip, "is damaged"),
        (swap_digest, "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:-1]), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[1:]), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes()[:200]), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes() + b"\0"), "is damaged"),
        (lambda path: path.write_bytes(path.read_bytes() * 2), "is damaged"),
        (lambda path: path.write_bytes(b""), "is damaged"),
        (lambda path: path.write_bytes(b'"sha256":"'), "is damaged"),
        (replace_by_a_folder, "is no ordinary file"),
        (replace_by_a_link_to_nothing, "is missing"),
    ],
    ids=[
        "flipped bit", "another's digest", "end", "beginning", "most", "byte more", "twice",
        "empty", "no digest", "folder", "link",
    ],
)  # fmt: skip
def test_damage_is_reported_and_the_one_before_is_used(run, damage, says):
    damage(file(run, 30))
    assert_the_one_before_is_used(run, says)
    checkpoint.save(run, 30, progress(30), RUN, keep=3)
    assert names(run) == {"10", "20", "30", "30.damaged"}


def test_one_that_is_gone_is_none(run):
    file(run, 30).unlink()
    assert_same(restore(run), progress(20))
    assert names(run) == {"10", "20"}


def test_one_that_the_disk_no_longer_reads_is_damaged(run, monkeypatch):
    open_ = Path.open

    def fails_in_the_newest(path: Path, *args: object) -> object:
        if path == file(run, 30):
            raise OSError(errno.EIO, "Input/output error")
        return open_(path, *args)

    monkeypatch.setattr(Path, "open", fails_in_the_newest)
    assert_the_one_before_is_used(run, r"cannot be read \(Input/output error\)")


def test_every_damaged_one_is_set_aside_under_a_name_of_its_own(run):
    for step in (30, 40, 50):
        file(run, step).write_bytes(b"x")
    with pytest.warns(FlaxMnistWarning) as warnings:
        assert_same(restore(run), progress(20))
    said = "\n".join(str(w.message) for w in warnings)
    assert all(f"/{step}.safetensors: is damaged" in said for step in (30, 40, 50))
    assert names(run) == {"10", "20", "30.damaged", "40.damaged", "50.damaged"}
    for again in ("-2", "-3"):
        file(run, 30).write_bytes(again.encode())
        with pytest.warns(FlaxMnistWarning, match=rf"set aside as 30\.safetensors\.damaged{again}"):
            restore(run)
    # A name that has become free takes nobody else's place.
    (run / checkpoint.FOLDER / "30.safetensors.damaged").unlink()
    file(run, 30).write_bytes(b"-4")
    with pytest.warns(FlaxMnistWarning, match=r"set aside as 30\.safetensors\.damaged;"):
        restore(run)
    kept = (run / checkpoint.FOLDER).glob("30.*")
    assert {path.read_bytes() for path in kept} == {b"-2", b"-3", b"-4"}


def test_what_is_named_otherwise_is_no_checkpoint(run):
    for name in ("007.safetensors", "x.safetensors", "40.txt", "50", "٣.safetensors"):
        (run / checkpoint.FOLDER / name).write_text("x")
    assert checkpoint.steps(run) == [10, 20, 30]
    assert_same(restore(run), progress(30))


def forge(run: Path, change: Callable[[dict, bytes], tuple[dict, bytes]]) -> None:
    """Changes header and data of the newest one, and seals them: whoever writes the file can."""
    path = file(run, 30)
    path.write_bytes(put_together(*change(*take_apart(path.read_bytes()))))


def forge_arrays(
    run: Path, change: Callable[[dict[str, np.ndarray]], dict[str, np.ndarray]]
) -> None:
    content = file(run, 30).read_bytes()
    file(run, 30).write_bytes(with_arrays(content, change(arrays_in(content))))


def test_a_file_put_together_by_hand_is_restored_in_any_order(run):
    forge_arrays(run, lambda arrays: arrays)
    assert_same(restore(run), progress(30))
    forge_arrays(run, lambda arrays: dict(reversed(arrays.items())))
    assert_same(restore(run), progress(30))


@pytest.mark.parametrize("wrong", [np.nan, np.inf, -np.inf])
def test_sealed_numbers_that_are_not_finite_are_damaged(run, wrong):
    def change(arrays: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
        bias = arrays["[0].params['Dense_1']['bias']"].copy()
        bias[1] = wrong
        return arrays | {"[0].params['Dense_1']['bias']": bias}

    forge_arrays(run, change)
    assert_the_one_before_is_used(run, "not all of its numbers are finite")


KERNEL = "[0].params['Dense_0']['kernel']"


@pytest.mark.parametrize(
    ("change", "says"),
    [
        (
            lambda a: a | {KERNEL: a[KERNEL].astype(np.float16)},
            r"'float16', .* there and .*'float32', ",
        ),
        (
            lambda a: a | {KERNEL: a[KERNEL].astype(np.float64)},
            r"'float64', .* there and .*'float32', ",
        ),
        (lambda a: a | {KERNEL: a[KERNEL].T.copy()}, r"\[4, 784\]\] there and .*\[784, 4\]\] here"),
        (lambda a: a | {KERNEL: a[KERNEL][..., None]}, r"\[784, 4, 1\]\] there"),
        (lambda a: {n: x for n, x in a.items() if n != KERNEL}, "is None there"),
        (lambda a: a | {"more": a[KERNEL]}, r"more is \['float32', .* there and None here"),
    ],
    ids=["half", "double", "transposed", "rank", "one is missing", "one too many"],
)
def test_sealed_arrays_of_another_form_are_another_runs(run, change, says):
    forge_arrays(run, change)
    with pytest.raises(RequestError, match=says):
        restore(run)
    assert names(run) == {"10", "20", "30"}


def lie(key: str, value: object) -> Callable[[dict, bytes], tuple[dict, bytes]]:
    return lambda header, data: (header | {KERNEL: header[KERNEL] | {key: value}}, data)


def tell(key: str, value: object) -> Callable[[dict, bytes], tuple[dict, bytes]]:
    return lambda header, data: (
        header | {"__metadata__": header["__metadata__"] | {key: value}},
        data,
    )


def leave_out(key: str) -> Callable[[dict, bytes], tuple[dict, bytes]]:
    def change(header: dict, data: bytes) -> tuple[dict, bytes]:
        del header["__metadata__"][key]
        return header, data

    return change


@pytest.mark.parametrize(
    "change",
    [
        lie("shape", [785, 4]),
        lie("shape", [2**40, 2**40]),
        lie("dtype", "F99"),
        lie("data_offsets", [0, 2**63]),
        lie("data_offsets", [0, 0]),
        lambda header, data: (header, data[:-4]),
        lambda header, data: (header, data + bytes(4)),
        tell("epoch", "x"),
        tell("epoch", "1.5"),
        tell("epoch", None),
        tell("epoch", 3),
        tell("epoch", "-1"),
        tell("step", "-1"),
        tell("step", "None"),
        tell("seconds", "nan"),
        tell("seconds", "inf"),
        tell("seconds", "-0.1"),
        tell("run", "null"),
        tell("run", "[]"),
        tell("run", "{"),
        tell("run", '{"a":' * 5000),
        leave_out("epoch"),
        leave_out("step"),
        leave_out("seconds"),
        leave_out("run"),
    ],
)
def test_sealed_headers_that_lie_or_make_no_sense_are_damaged(run, change):
    forge(run, change)
    assert_the_one_before_is_used(run, r"(cannot be loaded|is no checkpoint)")


@pytest.mark.parametrize(
    "content",
    [
        b'{"sha256":"' + b"0" * 64 + b'"}',
        b"\xff" * 8 + b'{"sha256":"' + b"0" * 64 + b'"}',
        b'\x50\0\0\0\0\0\0\0{"sha256":"' + b"0" * 64 + b'"}',
        b'\x02\0\0\0\0\0\0\0{}"sha256":"' + b"0" * 64,
    ],
)
def test_a_sealed_file_that_is_no_safetensors_is_damaged(run, content):
    file(run, 30).write_bytes(seal(content))
    assert_the_one_before_is_used(run, "cannot be loaded")


def test_where_none_is_whole_each_is_named_and_nothing_is_renamed(run):
    for step in (10, 20, 30):
        flip(file(run, step))
    for _ in range(2):
        with pytest.raises(
            FlaxMnistError, match=r"30\.safe.*20\.safe.*10\.safe.*No checkpoint is whole"
        ) as error:
            restore(run)
        assert error.value.exit_code == 1
    assert names(run) == {"10", "20", "30"}


def test_what_was_all_set_aside_is_no_fresh_start(run):
    for step in (10, 20):
        file(run, step).unlink()
    file(run, 30).rename(run / checkpoint.FOLDER / "30.safetensors.damaged")
    with pytest.raises(FlaxMnistError, match=r"30\.safetensors\.damaged: was set aside"):
        restore(run)


@pytest.mark.parametrize(
    ("changes", "of", "said"),
    [
        ({"hidden_sizes": (4, 5)}, {}, r"Dense_1.*\[4, 3\].*\[4, 5\]"),
        ({"hidden_sizes": (4,)}, {}, r"Dense_2.* None here"),
        ({"momentum": 0.0}, {}, r"trace.* None here"),
        ({}, {"learning_rate": 0.1}, "learning_rate is 0.003 there and 0.1 here"),
        ({}, {"dataset": "kmnist"}, 'dataset is the "mnist" there and kmnist here'),
        ({}, {"more": 1}, "more is None there and 1 here"),
    ],
)
def test_another_runs_is_refused_with_the_differences(run, changes, of, said):
    with pytest.raises(RequestError, match=said):
        restore(run, dataclasses.replace(CONFIG, **changes), RUN | of)
    assert names(run) == {"10", "20", "30"}


def test_damaged_ones_stay_where_the_first_whole_one_is_another_runs(run):
    flip(file(run, 30))
    with pytest.raises(RequestError, match=r"20\.safetensors: is a checkpoint of another run"):
        restore(run, of=RUN | {"learning_rate": 0.1})
    assert names(run) == {"10", "20", "30"}


def test_another_dtype_is_refused(run):
    like = begin(CONFIG)
    wide = like._replace(state=jax.tree.map(lambda leaf: np.asarray(leaf, np.float64), like.state))
    with pytest.raises(RequestError, match=r"float32.* there and .*float64.* here"):
        checkpoint.restore(run, wide, RUN)


@pytest.mark.parametrize("manifest", [True, False])
def test_those_of_the_first_builds_are_refused(run, manifest):
    """They were folders, and a newer file beside them makes no difference."""
    for folder in ("20", "3752", "938.damaged", "unfinished"):
        (run / checkpoint.FOLDER / folder / "progress").mkdir(parents=True)
        if manifest:
            (run / checkpoint.FOLDER / folder / "manifest.json").write_text("{}")
    before = names(run)
    with pytest.raises(RequestError, match=r"^\S+/20: was saved by one of the first .* resumed"):
        restore(run)
    assert names(run) == before
    for path in (run / checkpoint.FOLDER).glob("*.safetensors"):
        path.unlink()
    with pytest.raises(RequestError, match=r"Train again, with another --run-dir\.$"):
        restore(run)


def test_what_a_killed_process_left_is_removed(run):
    folder = run / checkpoint.FOLDER

    def leave() -> None:
        content = file(run, 30).read_bytes()
        (folder / "40.safetensors.4711.partial").write_bytes(content)
        (folder / "40.safetensors.12.partial").write_bytes(content[:-99])

    leave()
    assert_same(restore(run), progress(30))
    assert names(run) == {"10", "20", "30"}
    leave()
    checkpoint.save(run, 50, progress(50), RUN, keep=2)
    assert names(run) == {"30", "50"}
    assert_same(restore(run), progress(50))


def test_what_is_only_partial_is_a_fresh_start(tmp_path):
    (tmp_path / checkpoint.FOLDER).mkdir()
    (tmp_path / checkpoint.FOLDER / "40.safetensors.4711.partial").write_bytes(b"x")
    assert restore(tmp_path) is None


def test_a_folder_in_an_old_ones_place_does_not_outlive_it(run):
    replace_by_a_folder(file(run, 10))
    (file(run, 10) / "more").write_text("x")
    checkpoint.save(run, 40, progress(40), RUN, keep=2)
    assert names(run) == {"30", "40"}


@pytest.mark.parametrize("wrong", [jnp.nan, jnp.inf, -jnp.inf])
def test_weights_that_are_not_finite_are_not_saved(run, wrong):
    bad = progress(40)
    bad.state.params["Dense_1"]["bias"] = bad.state.params["Dense_1"]["bias"].at[1].set(wrong)
    with pytest.raises(FlaxMnistError, match="not finite after step 40"):
        checkpoint.save(run, 40, bad, RUN, keep=1)
    assert names(run) == {"10", "20", "30"}
    assert_same(restore(run), progress(30))


def test_nothing_is_saved_whose_digest_has_no_place(run, monkeypatch):
    """Say because safetensors writes its header in another way: no reader would believe it."""
    write = safetensors.numpy.save

    def other(*arguments: object) -> bytes:
        return write(*arguments).replace(b'"sha256":"', b'"sha256"="')

    monkeypatch.setattr(safetensors.numpy, "save", other)
    before = checkpoint.steps(run)
    with pytest.raises(ValueError, match="not found"):
        checkpoint.save(run, 99, progress(99), RUN, keep=3)
    assert checkpoint.steps(run) == before


def test_a_failed_save_leaves_those_before_it(run, monkeypatch):
    write_bytes = Path.write_bytes

    def full(path: Path, content: bytes) -> None:
        write_bytes(path, content[: len(content) // 2])
        raise OSError(errno.ENOSPC, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(Path, "write_bytes", full)
        with pytest.raises(FlaxMnistError, match=r"40\.safe\S+: cannot be written \(No space left"):
            checkpoint.save(run, 40, progress(40), RUN, keep=1)
    assert names(run) == {"10", "20", "30"}
    assert_same(restore(run), progress(30))


def test_a_file_in_the_folders_place_is_named(tmp_path):
    (tmp_path / checkpoint.FOLDER).write_text("x")
    with pytest.raises(FlaxMnistError, match=r"40\.safetensors: cannot be written \(File exists"):
        checkpoint.save(tmp_path, 40, progress(40), RUN, keep=1)


def test_the_memory_of_what_was_saved_and_of_what_was_restored_may_be_donated(tmp_path):
    trained = progress(10)
    checkpoint.save(tmp_path, 10, trained, RUN, keep=3)
    jax.tree.map(lambda leaf: leaf.delete(), trained.state)
    add_one = jax.jit(lambda tree: jax.tree.map(lambda leaf: leaf + 1, tree), donate_argnums=0)
    restored = restore(tmp_path)
    after = add_one(restored.state)
    for a, b in zip(jax.tree.leaves(after), jax.tree.leaves(progress(10).state), strict=True):
        np.testing.assert_array_equal(a, b + 1)
    assert_same(restore(tmp_path), progress(10))


def test_any_pytree_of_arrays_will_do(tmp_path):
    def tree(scale: float) -> dict:
        return {
            "a/b": [np.arange(6, dtype=np.int32).reshape(2, 3), {1: np.float32(scale)}],
            "1": (
                np.zeros((0, 4), np.float16),
                np.asfortranarray(np.array([[1.0, 2.0], [3.0, 4.0]]) * scale),
            ),
            '"sha256":"': np.array([True, False]),
            "é\n": jnp.ones((2, 1)) * scale,
        }

    like, whole = begin(CONFIG)._replace(state=tree(1)), begin(CONFIG)._replace(state=tree(0.5))
    with jax.enable_x64(True):
        checkpoint.save(tmp_path, 1, whole, RUN, keep=1)
        restored = checkpoint.restore(tmp_path, like, RUN)
    assert jax.tree.structure(restored.state) == jax.tree.structure(whole.state)
    for a, b in zip(jax.tree.leaves(restored.state), jax.tree.leaves(whole.state), strict=True):
        assert (a.dtype, a.shape) == (b.dtype, b.shape)
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("content", [b"", b"{}", b"[]", b"\xff", b'"sha256":"' + b"0" * 64])
def test_a_file_that_is_no_checkpoint_is_a_data_error_that_names_it(tmp_path, content):
    path = tmp_path / "1.safetensors"
    for written in (content, seal(content), put_together({"__metadata__": {}}, content)):
        path.write_bytes(written)
        with pytest.raises(DataError, match=r"1\.safetensors: "):
            read_checkpoint(path)
    path.unlink()
    with pytest.raises(DataError, match=r"1\.safetensors: is missing"):
        read_checkpoint(path)
