"""The forms in which people have MNIST: all give the same arrays, and damage is named."""

from __future__ import annotations

import gzip
import os
import pickle
import re
import zipfile
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
import pytest

from flax_mnist.data import forms
from flax_mnist.data.dataset import load_dataset
from flax_mnist.errors import DataError, RequestError
from tests.helpers.forms import FORMS, csv, named, npz, parquet, pickled, png, qmnist, table
from tests.helpers.idx_files import idx


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """For a form; what else a test has is not beside it."""
    (tmp_path / "form").mkdir()
    return tmp_path / "form"


def require_equal(dataset, digits):
    for split in ("train", "test"):
        images, labels = getattr(dataset, split)
        assert (images.dtype, labels.dtype) == (np.uint8, np.int32)
        np.testing.assert_array_equal(images, digits[f"{split}_images"])
        np.testing.assert_array_equal(labels, digits[f"{split}_labels"])


@pytest.mark.parametrize("form", FORMS)
def test_every_form_gives_the_same_images(folder, digits, form):
    write, called = FORMS[form]
    write(folder, digits)
    dataset = load_dataset("auto", folder)
    require_equal(dataset, digits)
    assert (dataset.name, dataset.form) == ("mnist", called)
    assert Path(dataset.source).is_relative_to(folder)


@pytest.mark.parametrize("form", FORMS)
def test_any_file_of_a_form_stands_for_it(folder, digits, form, monkeypatch):
    FORMS[form][0](folder, digits)
    files = [path for path in folder.rglob("*") if path.is_file()]
    assert len(files) in (1, 2, 3, 4)
    monkeypatch.chdir(folder)
    for file in files:
        require_equal(load_dataset("mnist", file.relative_to(folder)), digits)
    monkeypatch.chdir(files[0].parent)
    require_equal(load_dataset("mnist", files[0].name), digits)


def test_the_level_that_torchvision_calls_raw(folder, digits):
    named("MNIST/raw/{}")(folder, digits)
    require_equal(load_dataset("mnist", folder / "MNIST" / "raw"), digits)


def test_a_set_is_known_by_the_names_of_its_files(folder, digits):
    other = {name: array[::-1].copy() for name, array in digits.items()}
    csv(name="fashion-mnist_{}.csv")(folder, other)
    require_equal(load_dataset("fashion_mnist", folder), other)
    with pytest.raises(RequestError, match=r"fashion-mnist_train\.csv: is of fashion_mnist, not m"):
        load_dataset("auto", folder)
    # Beside it MNIST's own; each is found by what is asked for.
    named("{}")(folder, digits)
    require_equal(load_dataset("auto", folder), digits)
    require_equal(load_dataset("fashion_mnist", folder), other)
    with pytest.raises(RequestError, match=r"is of fashion_mnist, not mnist\. Give --dataset fash"):
        load_dataset("mnist", folder / "fashion-mnist_test.csv")


def test_of_two_sets_in_one_form_one_has_to_be_named(folder, digits):
    csv(name="a_mnist_{}.csv")(folder, digits)
    csv(name="b_mnist_{}.csv")(folder, digits)
    says = r"has a_mnist_train\.csv and b_mnist_train\.csv\. Name the file that is meant"
    with pytest.raises(RequestError, match=says):
        load_dataset("mnist", folder)
    require_equal(load_dataset("mnist", folder / "b_mnist_test.csv"), digits)


def test_what_macos_leaves_beside_a_file_is_no_file(folder, digits):
    csv()(folder, digits)
    (folder / "._mnist_train.csv").write_bytes(b"\0\5\x16\7")
    (folder / ".DS_Store").write_bytes(b"")
    require_equal(load_dataset("mnist", folder), digits)


def test_emnists_table_is_set_upright(folder, digits):
    lying = {
        name: array.transpose(0, 2, 1) if array.ndim == 3 else array
        for name, array in digits.items()
    }
    csv(name="emnist-digits-{}.csv")(folder, lying)
    require_equal(load_dataset("mnist", folder), digits)


def test_the_originals_are_known_in_any_form(folder, mnist_dir):
    original = load_dataset("mnist", mnist_dir)
    arrays = {"train_labels": original.train.labels.astype(np.uint8)}
    arrays["train_images"] = np.zeros((60_000, 28, 28), np.uint8)
    arrays |= {name.replace("train", "test"): array[:1] for name, array in arrays.items()}
    named("{}")(folder, arrays)
    with pytest.raises(RequestError, match=r"is of mnist, not kmnist\. Give --dataset mnist"):
        load_dataset("kmnist", folder)


def test_a_folder_with_none_of_them_says_what_it_holds(folder):
    for name in ("a.txt", "b", "c", "d", "e", "model.npy"):
        (folder / name).write_text("")
    with pytest.raises(RequestError) as error:
        load_dataset("mnist", folder)
    said = str(error.value)
    assert said.startswith(f"{folder}: holds a.txt, b, c, d and 2 more, but no form of mnist ")
    assert forms.READ in said
    assert "\n" not in said
    with pytest.raises(RequestError, match=r"a\.txt: is none of the files that are read: the four"):
        load_dataset("mnist", folder / "a.txt")


class Bomb:
    """Whoever unpickles it makes a file."""

    def __init__(self, mark: Path) -> None:
        self.mark = mark

    def __reduce__(self):
        return os.open, (str(self.mark), os.O_CREAT)


def test_no_pickle_is_opened(folder, digits):
    mark = folder.parent / "exploded"
    os.close(pickle.loads(pickle.dumps(Bomb(mark))))  # it is live
    mark.unlink()
    (folder / "mnist.pkl").write_bytes(pickle.dumps(Bomb(mark)))
    for place in (folder, folder / "mnist.pkl"):
        with pytest.raises(RequestError, match="is a pickle, whose code would run"):
            load_dataset("mnist", place)
    (folder / "mnist.pkl").rename(folder / "mnist.npz")
    with pytest.raises(DataError, match=r"mnist\.npz: cannot be read as NumPy's archive"):
        load_dataset("mnist", folder)
    bombs = np.empty(1, object)
    bombs[0] = Bomb(mark)
    npz(folder, digits, x_train=bombs)
    with pytest.raises(DataError, match=r"Object arrays cannot be loaded"):
        load_dataset("mnist", folder)
    assert not mark.exists()


@pytest.mark.parametrize("unpacked", [False, True])
def test_the_three_lines_for_a_pickle_make_what_is_read(folder, digits, monkeypatch, unpacked):
    pickled(folder, digits)
    path = folder / "mnist.pkl.gz"
    if unpacked:
        (folder / "mnist.pkl").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    with pytest.raises(RequestError) as error:
        load_dataset("mnist", folder)
    _, *lines = str(error.value).splitlines()
    assert len(lines) == 3
    monkeypatch.chdir(folder)
    exec("\n".join(lines), {})
    require_equal(load_dataset("mnist", folder), digits)  # the pickle is still there


SMALL_IMAGES = np.zeros((2, 28, 28), np.uint8)
SMALL_LABELS = np.zeros(2, np.uint8)


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({"x_train": np.zeros((2, 29, 28), np.uint8)}, "x_train: its images are 29x28, not 28x28"),
        ({"x_train": np.zeros((2, 784), np.uint8)}, r"x_train is uint8\[2, 784\], not uint8\[n,"),
        ({"x_train": np.zeros((2, 28, 28))}, r"x_train is float64\[2, 28, 28\]"),
        ({"x_train": np.full((2, 28, 28), np.nan)}, r"x_train is float64"),
        ({"x_train": SMALL_IMAGES.astype(np.int64)}, r"x_train is int64"),
        ({"x_train": SMALL_IMAGES, "y_train": np.zeros(3, int)}, "y_train: 3 labels for the 2 im"),
        ({"x_train": SMALL_IMAGES[:0], "y_train": SMALL_LABELS[:0]}, "0 labels for the 0 images"),
        ({"y_test": np.zeros(200)}, r"y_test is float64\[200\], not uint8\[n\]"),
        ({"y_test": np.zeros((200, 10), np.uint8)}, r"y_test is uint8\[200, 10\]"),
        ({"y_test": np.full(200, 10)}, "y_test: label 10 at 0; they must be 0 to 9"),
        ({"y_test": np.full(200, -1)}, "label -1 at 0"),
        ({"extra": SMALL_LABELS}, r"holds extra\.npy, x_test\.npy"),
        ({"y_train": np.array(["7"], object)}, "Object arrays cannot be loaded"),
    ],
)  # fmt: skip
def test_what_an_archive_may_not_hold(folder, digits, changed, says):
    npz(folder, digits, **changed)
    with pytest.raises(DataError, match=rf"mnist\.npz: .*{says}"):
        load_dataset("mnist", folder)


def test_a_damaged_archive(folder, digits):
    npz(folder, digits)
    whole = (folder / "mnist.npz").read_bytes()
    middle = len(whole) // 2
    flipped = whole[:middle] + bytes([whole[middle] ^ 1]) + whole[middle + 1 :]
    for content in (b"", b"text", whole[:-100], whole[:middle], flipped):
        (folder / "mnist.npz").write_bytes(content)
        with pytest.raises(DataError, match=r"mnist\.npz: cannot be read as NumPy's archive"):
            load_dataset("mnist", folder)
    np.savez(folder / "mnist.npz", x_train=SMALL_IMAGES)
    with pytest.raises(DataError, match=r"holds x_train\.npy, not x_test\.npy, x_train\.npy, y_te"):
        load_dataset("mnist", folder)


def test_an_array_that_something_follows(folder, digits):
    npz(folder, digits)
    with zipfile.ZipFile(folder / "mnist.npz") as old:
        contents = {name: old.read(name) for name in old.namelist()}
    with zipfile.ZipFile(folder / "mnist.npz", "w") as new:
        for name, content in contents.items():
            new.writestr(name, content + b"\0" * (name == "y_test.npy"))
    with pytest.raises(DataError, match="y_test holds more than its header promises"):
        load_dataset("mnist", folder)


FIRST_ROW = b"0," * 784 + b"0\n"


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (b"", "its first column is ''"),
        (b"not a table\n", "its first column is 'not a table', not label"),
        (b"\xff\xfe1,2\n", "cannot be read as CSV .*decode"),
        (b"0," * 783 + b"0\n", "has 784 columns, not a label and 784 pixels"),
        (b"0," * 785 + b"0\n", "has 786 columns"),
        (b"pixel0," * 783 + b"pixel783\n", "its first column is 'pixel0', not label"),
        (b"label," * 784 + b"x\n", r"cannot be read as CSV .*[Ee]mpty|0 labels for the 0 images"),
        (FIRST_ROW + b"0,0\n", "Row #2: Expected 785 columns, got 2"),
        (FIRST_ROW + FIRST_ROW[2:], "Row #2: Expected 785 columns, got 784"),
        (FIRST_ROW + b"0," * 784 + b"256\n", "column #784: Row #2: .* '256'"),
        (FIRST_ROW + b"0," * 784 + b"-1\n", "Row #2: .* '-1'"),
        (FIRST_ROW + b"0," * 784 + b"1.0\n", "Row #2: .* '1.0'"),
        (FIRST_ROW + b"0," * 784 + b"nan\n", "Row #2: .* 'nan'"),
        (FIRST_ROW + b"0," * 784 + b"\n", "Row #2: .* ''"),
        (FIRST_ROW + b"x," + b"0," * 783 + b"0\n", "column #0: Row #2: .* 'x'"),
        (FIRST_ROW + b"10," + b"0," * 783 + b"0\n", "label 10 at 1; they must be 0 to 9"),
    ],
)
def test_what_a_table_may_not_hold(folder, digits, content, says):
    csv()(folder, digits)
    (folder / "mnist_test.csv").write_bytes(content)
    with pytest.raises(DataError, match=rf"mnist_test\.csv: .*({says})") as error:
        load_dataset("mnist", folder)
    assert len(str(error.value)) < 500


def test_a_split_without_a_file(folder, digits):
    csv()(folder, digits)
    (folder / "mnist_test.csv").unlink()
    says = r"has mnist_train\.csv, but no CSV file of the test images"
    with pytest.raises(RequestError, match=says):
        load_dataset("mnist", folder)


def images_of(contents: list[bytes | None]) -> pyarrow.Array:
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    return pyarrow.array([{"bytes": content, "path": "0.png"} for content in contents], kind)


GOOD = png(SMALL_IMAGES[0])
HIGH = png(np.zeros((29, 28), np.uint8))
COLOURED = png(np.zeros((28, 28, 3), np.uint8))


@pytest.mark.parametrize(
    ("columns", "says"),
    [
        ({"image": images_of([GOOD])}, r"its columns are image \(struct.*\), not image"),
        ({"label": [1]}, r"its columns are label \(int64\), not image"),
        ({"image": images_of([GOOD]), "label": [1], "x": [1]}, r"its columns are .* x \(int64\)"),
        ({"image": images_of([GOOD]), "label": [1.0]}, r"label \(double\), not image"),
        ({"image": ["a.png"], "label": [1]}, r"image \(string\), label"),
        ({"image": [GOOD], "label": [1]}, r"image \(binary\), label"),
        ({"image": images_of([GOOD, HIGH]), "label": [1, 2]}, "image 1 is 28x29 of mode L, not 2"),
        ({"image": images_of([COLOURED]), "label": [1]}, "image 0 is 28x28 of mode RGB"),
        ({"image": images_of([GOOD[:-20]]), "label": [1]}, "cannot be read at image 0"),
        ({"image": images_of([b"GIF89a"]), "label": [1]}, "cannot be read at image 0"),
        ({"image": images_of([None]), "label": [1]}, "image 0 is missing"),
        ({"image": images_of([GOOD]), "label": pyarrow.array([None], "int64")}, "have no label"),
        ({"image": images_of([GOOD]), "label": [10]}, "label 10 at 0; they must be 0 to 9"),
        ({"image": images_of([GOOD]), "label": [-1]}, "label -1 at 0"),
        (
            {"image": images_of([]), "label": pyarrow.array([], "int64")},
            "as Parquet .need at least",
        ),
    ],
)
def test_what_a_parquet_file_may_not_hold(folder, digits, columns, says):
    parquet(folder, digits)
    path = folder / "mnist" / "test-00000-of-00001.parquet"
    pyarrow.parquet.write_table(pyarrow.table(columns), path)
    with pytest.raises(DataError, match=rf"{path}: .*{says}"):
        load_dataset("mnist", folder)


def test_a_damaged_parquet_file(folder, digits):
    parquet(folder, digits)
    path = folder / "mnist" / "test-00000-of-00001.parquet"
    whole = path.read_bytes()
    for content in (b"", b"text", whole[:-100], whole[: len(whole) // 2]):
        path.write_bytes(content)
        with pytest.raises(DataError, match=f"{path}: cannot be read as Parquet"):
            load_dataset("mnist", folder)


def test_a_part_of_a_parquet_set_is_missing(folder, digits):
    parquet(folder, digits)
    (folder / "mnist" / "train-00001-of-00002.parquet").unlink()
    with pytest.raises(RequestError, match="of 2 Parquet files of train it has 1"):
        load_dataset("mnist", folder)


def test_parquet_in_one_folder_with_its_readme(folder, digits):
    (folder / "README.md").write_text("")
    for split in ("train", "test"):
        pyarrow.parquet.write_table(table(digits, split), folder / f"{split}.parquet")
    require_equal(load_dataset("mnist", folder), digits)


def test_qmnists_labels_are_eight_figures(folder, digits):
    qmnist(folder, digits)
    path = folder / "qmnist-test-labels-idx2-int.gz"
    path.write_bytes(b"\0\0\x0c\x02" + np.array([200, 7], ">u4").tobytes() + bytes(200 * 7 * 4))
    with pytest.raises(DataError, match=rf"{path}: has 7 figures an image, not 8"):
        load_dataset("mnist", folder)
    path.write_bytes(idx(digits["test_labels"]))
    with pytest.raises(DataError, match=re.escape("type 0x08, not int32 (0x0c)")):
        load_dataset("mnist", folder)
