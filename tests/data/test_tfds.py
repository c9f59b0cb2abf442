"""What tensorflow-datasets registers, has downloaded, and has prepared."""

from __future__ import annotations

import dataclasses
import hashlib
import io
import shutil
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from flax_mnist.data.dataset import KNOWN, load_dataset
from flax_mnist.data.download import DownloadError
from flax_mnist.data.tfds import find_dataset
from flax_mnist.errors import DataError, RequestError
from tests.helpers.file_server import FileServer, sends


@pytest.fixture
def tfds() -> ModuleType:
    """Not imported above: it asks for its folder when it is imported, and tests have their own."""
    import tensorflow_datasets

    return tensorflow_datasets


@pytest.mark.parametrize("name", KNOWN)
def test_what_is_known_without_it_is_what_it_registers(tfds, name):
    builder = tfds.builder(name)
    assert tuple(builder.info.features["label"].names) == KNOWN[name].class_names
    registered = [
        info.checksum
        for url, info in builder.url_infos.items()
        if url.endswith("train-labels-idx1-ubyte.gz")
    ]
    assert registered == [KNOWN[name].train_labels_sha256]


@pytest.fixture
def small_kmnist(
    idx_dir: Path, server: FileServer, monkeypatch: pytest.MonkeyPatch, tfds: ModuleType
) -> FileServer:
    """A proxy that sends the small set for KMNIST's, whose sums are registered for the while."""
    monkeypatch.setenv("http_proxy", server.address)
    registered = tfds.builder("kmnist").url_infos
    for url, info in list(registered.items()):
        content = (idx_dir / url.rsplit("/", 1)[-1]).read_bytes()
        server.answers[url.rsplit("/", 1)[-1]] = sends(content)
        small = dataclasses.replace(
            info, size=type(info.size)(len(content)), checksum=hashlib.sha256(content).hexdigest()
        )
        monkeypatch.setitem(registered, url, small)
    return server


def test_downloads_verifies_and_keeps(small_kmnist, tmp_path, digits):
    folder = tmp_path / "empty"
    folder.mkdir()
    place = folder / "downloads" / "kmnist"
    dataset = load_dataset("kmnist", folder)
    assert (dataset.name, dataset.source) == ("kmnist", str(place))
    assert dataset.class_names == ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    np.testing.assert_array_equal(dataset.train.images, digits["train_images"])
    assert len(small_kmnist.asked) == 4

    np.testing.assert_array_equal(load_dataset("kmnist", folder).test.images, dataset.test.images)
    # The folder with the four files can be named as well.
    np.testing.assert_array_equal(load_dataset("kmnist", place).test.labels, dataset.test.labels)
    assert len(small_kmnist.asked) == 4  # without a look at the network
    # What is lost of it is fetched again into the same folder.
    (place / "t10k-labels-idx1-ubyte.gz").unlink()
    np.testing.assert_array_equal(load_dataset("kmnist", folder).test.labels, dataset.test.labels)
    assert len(small_kmnist.asked) == 5


@pytest.mark.parametrize(
    "sign", ["cifar10/3.0.2/dataset_info.json", "glue/cola/2.0.0/dataset_info.json",
             "downloads/http_abc.gz.INFO", "downloads/mnist/abc.gz.INFO", ".DS_Store"],
)  # fmt: skip
def test_a_folder_of_tensorflow_datasets_is_filled(small_kmnist, tmp_path, digits, sign):
    file = tmp_path / "named" / sign
    file.parent.mkdir(parents=True)
    file.write_text("{}")
    dataset = load_dataset("kmnist", tmp_path / "named")
    np.testing.assert_array_equal(dataset.test.images, digits["test_images"])
    assert dataset.source == str(tmp_path / "named" / "downloads" / "kmnist")


@pytest.mark.parametrize("name", ["notes.txt", "downloads", "mnist"])
def test_a_named_folder_with_something_else_is_not_filled(small_kmnist, tmp_path, name):
    folder = tmp_path / "named"
    (folder / name).mkdir(parents=True)
    says = rf"{folder}: holds {name}, but no form of kmnist that is read: the four IDX files, "
    with pytest.raises(RequestError, match=says):
        load_dataset("kmnist", folder)
    assert [path.name for path in folder.rglob("*")] == [name]
    assert small_kmnist.asked == []


def test_a_download_with_a_wrong_sum_is_refused(small_kmnist, tmp_path, monkeypatch):
    folder = tmp_path / "empty"
    folder.mkdir()
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    small_kmnist.answers["t10k-images-idx3-ubyte.gz"] = sends(b"something else")
    with pytest.raises(DownloadError, match=r"SHA256 hash .*t10k-images.* does not match"):
        load_dataset("kmnist", folder)


@pytest.fixture
def its_downloads(small_kmnist: FileServer, tfds: ModuleType) -> Iterator[list[Path]]:
    """The small set as tensorflow-datasets downloads it to its default folder."""
    builder = tfds.builder("kmnist")
    folder = Path(builder.data_path).parents[1] / "downloads"
    manager = tfds.download.DownloadManager(
        download_dir=folder, url_infos=builder.url_infos, dataset_name="kmnist"
    )
    yield [Path(path) for path in manager.download(list(builder.url_infos))]
    shutil.rmtree(folder)


@pytest.mark.parametrize("above", [False, True], ids=["today's folder", "that of old versions"])
def test_what_it_has_downloaded_itself_is_found(its_downloads, small_kmnist, digits, above):
    if above:
        its_downloads = [path.rename(path.parents[1] / path.name) for path in its_downloads]
    small_kmnist.asked.clear()
    assert find_dataset("kmnist") == str(its_downloads[0].parent)
    dataset = load_dataset("kmnist")
    np.testing.assert_array_equal(dataset.test.images, digits["test_images"])
    assert dataset.source == str(its_downloads[0].parent)
    assert small_kmnist.asked == []


def test_only_what_is_damaged_is_downloaded_again(its_downloads, small_kmnist, digits):
    its_downloads[1].write_bytes(its_downloads[1].read_bytes()[:-1])
    small_kmnist.asked.clear()
    assert find_dataset("kmnist") is None
    np.testing.assert_array_equal(load_dataset("kmnist").test.labels, digits["test_labels"])
    assert len(small_kmnist.asked) == 1
    assert find_dataset("kmnist") == str(its_downloads[1].parent)


def prepare(folder: Path, examples: dict[str, list[tuple[np.ndarray, int]]]) -> None:
    """Has tensorflow-datasets write them as what it takes for MNIST, in array_record."""
    pytest.importorskip("array_record", reason="array_record has no build for this platform")

    def png(image: np.ndarray) -> io.BytesIO:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "png")
        file.seek(0)
        return file

    import tensorflow_datasets as tfds

    height, width = examples["train"][0][0].shape

    class Mnist(tfds.core.GeneratorBasedBuilder, skip_registration=True):
        VERSION = tfds.core.Version("3.0.1")
        name = "mnist"

        def _info(self):
            return tfds.core.DatasetInfo(
                builder=self,
                features=tfds.features.FeaturesDict(
                    {
                        "image": tfds.features.Image(shape=(height, width, 1)),
                        "label": tfds.features.Scalar(dtype=np.int64),
                    }
                ),
            )

        def _split_generators(self, dl_manager):
            return {split: self._generate_examples(split) for split in ("train", "test")}

        def _generate_examples(self, split):
            for i, (image, label) in enumerate(examples[split]):
                yield i, {"image": png(image), "label": label}

    Mnist(data_dir=folder, file_format="array_record").download_and_prepare()


def pairs(digits: dict[str, np.ndarray], split: str) -> list[tuple[np.ndarray, int]]:
    labels = digits[f"{split}_labels"][:50].tolist()
    return list(zip(digits[f"{split}_images"], labels, strict=False))


def test_reads_what_tensorflow_datasets_has_prepared(tmp_path, digits, server, monkeypatch):
    monkeypatch.setenv("https_proxy", server.address)
    prepare(tmp_path, {split: pairs(digits, split) for split in ("train", "test")})
    dataset = load_dataset("mnist", tmp_path)
    assert dataset.train.images.shape == (50, 28, 28)
    assert dataset.source == str(tmp_path / "mnist" / "3.0.1")
    assert server.asked == []
    # tensorflow-datasets shuffles what it prepares: compare the sets.
    for split, (images, labels) in (("train", dataset.train), ("test", dataset.test)):
        assert sorted((i.tobytes(), int(n)) for i, n in zip(images, labels, strict=True)) == sorted(
            (i.tobytes(), n) for i, n in pairs(digits, split)
        )


@pytest.mark.parametrize(
    ("image", "label", "says"),
    [
        (np.zeros((28, 28), np.uint8), 10, "label 10 at 0; they must be 0 to 9"),
        (np.zeros((28, 28), np.uint8), -1, "label -1 at 0"),
        (np.zeros((14, 56), np.uint8), 1, "its images are 14x56, not 28x28"),
    ],
)
def test_what_is_prepared_is_not_believed(tmp_path, image, label, says):
    prepare(tmp_path, {split: [(image, label)] for split in ("train", "test")})
    with pytest.raises(DataError, match=says):
        load_dataset("mnist", tmp_path)


def test_damaged_records_are_named(tmp_path, digits):
    prepare(tmp_path, {split: pairs(digits, split) for split in ("train", "test")})
    for file in tmp_path.rglob("*.array_record*"):
        file.write_bytes(file.read_bytes()[: file.stat().st_size // 2])
    with pytest.raises(DataError, match=r"mnist/3\.0\.1: cannot be read"):
        load_dataset("mnist", tmp_path)


@pytest.mark.parametrize("content", ["{", "[]", "[" * 100_000])
def test_a_damaged_preparation_is_named(tmp_path, content):
    place = tmp_path / "mnist" / "3.0.1"
    place.mkdir(parents=True)
    for name in ("dataset_info.json", "features.json"):
        (place / name).write_text(content)
    with pytest.raises(DataError, match=f"{tmp_path}: what it has of mnist cannot be read"):
        load_dataset("mnist", tmp_path)


def test_a_dataset_that_needs_tensorflow_is_no_obstacle(small_kmnist, tmp_path, tfds):
    # What TensorFlow's users have: KMNIST prepared as TFRecord.
    made = tfds.builder("kmnist", data_dir=tmp_path)
    made.info.set_file_format("tfrecord")
    made.data_path.mkdir(parents=True)
    made.info.write_to_directory(made.data_path)
    (made.data_path / "kmnist-train.tfrecord-00000-of-00001").write_bytes(b"")
    assert load_dataset("kmnist", tmp_path).train.images.shape == (1000, 28, 28)
    assert len(small_kmnist.asked) == 4
