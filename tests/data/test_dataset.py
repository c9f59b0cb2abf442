"""From a name and a folder to images and labels."""

from __future__ import annotations

import contextlib
import gzip
import hashlib
import socket
import threading

import numpy as np
import pytest

from flax_mnist.config import DatasetName
from flax_mnist.data import download
from flax_mnist.data.dataset import DIGITS, KNOWN, class_names, load_dataset
from flax_mnist.data.download import DownloadError
from flax_mnist.errors import FlaxMnistWarning, RequestError
from tests.helpers.odd_files import forbidden, link_to_itself


def test_reads_the_four_files(idx_dir, digits):
    dataset = load_dataset("mnist", idx_dir)
    assert (dataset.name, dataset.class_names) == ("mnist", DIGITS)
    assert dataset.source == str(idx_dir)
    np.testing.assert_array_equal(dataset.train.images, digits["train_images"])
    np.testing.assert_array_equal(dataset.test.labels, digits["test_labels"])
    assert dataset.train.images.dtype == np.uint8
    assert dataset.train.labels.dtype == np.int32


def test_reads_files_that_are_not_gzipped(idx_dir, digits):
    for path in idx_dir.iterdir():
        path.with_suffix("").write_bytes(gzip.decompress(path.read_bytes()))
        path.unlink()
    np.testing.assert_array_equal(load_dataset("auto", idx_dir).test.images, digits["test_images"])


def test_reads_the_folder_that_torchvision_makes(idx_dir, tmp_path, digits):
    raw = tmp_path / "data" / "FashionMNIST" / "raw"
    raw.parent.mkdir(parents=True)
    idx_dir.rename(raw)
    dataset = load_dataset("fashion_mnist", tmp_path / "data")
    np.testing.assert_array_equal(dataset.train.labels, digits["train_labels"])
    assert dataset.class_names[9] == "Ankle boot"


def test_mnist_is_the_original(mnist_dir):
    dataset = load_dataset("mnist", mnist_dir)
    assert dataset.train.images.shape == (60_000, 28, 28)
    # Of the uncompressed files, as torch's and tensorflow's users know them: first labels, counts.
    assert dataset.train.labels[:10].tolist() == [5, 0, 4, 1, 9, 2, 1, 3, 1, 4]
    assert np.bincount(dataset.test.labels).tolist() == [
        980, 1135, 1032, 1010, 982, 892, 958, 1028, 974, 1009,
    ]  # fmt: skip
    mean = dataset.train.images.mean() / 255
    assert mean == pytest.approx(0.1307, abs=5e-5)  # the constant of pytorch/examples


def test_synthetic_is_the_size_of_mnist():
    dataset = load_dataset("synthetic")
    assert (dataset.name, dataset.class_names) == ("synthetic", DIGITS)
    assert dataset.train.images.shape == (60_000, 28, 28)
    assert dataset.test.labels.shape == (10_000,)
    assert dataset.test.labels.dtype == np.int32


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "No such file"),
        ("file/in it", "Not a directory"),
        ("loop", "symbolic links"),
        ("x" * 300, "name too long"),
        ("~nobody-of-this-name/data", "No such file"),
        ("not mine", "Permission denied"),
    ],
)
def test_a_data_dir_must_be_there(tmp_path, name, reason):
    (tmp_path / "file").write_text("")
    link_to_itself(tmp_path / "loop")
    (tmp_path / "not mine").mkdir(mode=0)
    folder = name if name.startswith("~") else tmp_path / name
    someone_else = forbidden("file", b"") if name == "not mine" else contextlib.nullcontext()
    says = f"is no folder or file to read .*{reason}.*--data-dir"
    with someone_else, pytest.raises(RequestError, match=says):
        load_dataset("auto", folder)


def test_every_dataset_that_has_files_is_known():
    assert set(KNOWN) == set(DatasetName.__args__) - {"auto", "synthetic"}
    for name in DatasetName.__args__:
        assert len(class_names(name)) == len(set(class_names(name))) == 10


@pytest.mark.parametrize("name", ["auto", "mnist", "kmnist"])
def test_the_files_of_another_dataset_are_refused(idx_dir, monkeypatch, name):
    content = (idx_dir / "train-labels-idx1-ubyte.gz").read_bytes()
    fashion = KNOWN["fashion_mnist"]._replace(
        train_labels_sha256=hashlib.sha256(content).hexdigest()
    )
    monkeypatch.setitem(KNOWN, "fashion_mnist", fashion)
    with pytest.raises(
        RequestError, match=r"is of fashion_mnist, not k?mnist\. Give --dataset fash"
    ):
        load_dataset(name, idx_dir)
    assert load_dataset("fashion_mnist", idx_dir).name == "fashion_mnist"


def test_mnists_files_are_not_believed_to_be_fashion(mnist_dir):
    with pytest.raises(RequestError, match="is of mnist, not fashion_mnist"):
        load_dataset("fashion_mnist", mnist_dir)


@pytest.mark.usefixtures("_no_network")
def test_auto_falls_back_with_a_warning():
    with pytest.warns(FlaxMnistWarning, match=r"NOT MNIST .*\(ProxyError\)"):
        dataset = load_dataset("auto")
    assert dataset.name == "synthetic"


@pytest.mark.usefixtures("_no_proxy")
def test_auto_falls_back_where_no_name_server_answers(monkeypatch):
    never = threading.Event()
    monkeypatch.setattr(socket, "getaddrinfo", lambda *_, **__: never.wait() and [])
    monkeypatch.setattr(download, "ANSWER_TIMEOUT", 0.2)
    try:
        with pytest.warns(FlaxMnistWarning, match=r"NOT MNIST .*no answer within 0\.2 s"):
            assert load_dataset("auto").name == "synthetic"
    finally:
        never.set()


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_a_named_dataset_never_falls_back(name):
    with pytest.raises(DownloadError, match=rf"{name} is not on disk .*--data-dir"):
        load_dataset(name)


@pytest.mark.usefixtures("_no_network")
def test_auto_with_a_named_folder_never_falls_back(tmp_path):
    for _ in range(2):  # what the first attempt leaves there is no obstacle to the second
        with pytest.raises(DownloadError, match="mnist is not on disk"):
            load_dataset("auto", tmp_path)
    assert list(tmp_path.iterdir()) == [tmp_path / "downloads"]
