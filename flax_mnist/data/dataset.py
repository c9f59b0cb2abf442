"""From a name and a folder to images and labels."""

import hashlib
import os
import warnings
from collections.abc import Mapping
from pathlib import Path
from typing import NamedTuple

import numpy as np
from jaxtyping import Int32, Integer, UInt8

from flax_mnist.config import DatasetName
from flax_mnist.data import synthetic, tfds
from flax_mnist.data.download import DownloadError
from flax_mnist.data.idx import FILES, find_idx_files, read_idx
from flax_mnist.errors import DataError, FlaxMnistWarning, RequestError

DIGITS = tuple("0123456789")


class Known(NamedTuple):
    """What is known of a dataset without asking tensorflow-datasets, whose import takes long."""

    class_names: tuple[str, ...]
    torchvision_folder: str
    #: Of the `.gz` file: it tells apart the files of the datasets, which all have the same names.
    train_labels_sha256: str


#: The datasets that tensorflow-datasets knows, by its names.
KNOWN = {
    "mnist": Known(
        DIGITS, "MNIST", "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"
    ),
    "fashion_mnist": Known(
        (
            *("T-shirt/top", "Trouser", "Pullover", "Dress", "Coat"),
            *("Sandal", "Shirt", "Sneaker", "Bag", "Ankle boot"),
        ),
        "FashionMNIST",
        "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    ),
    "kmnist": Known(
        ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
        "KMNIST",
        "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
    ),
}


class Split(NamedTuple):
    """Images and what they show."""

    images: UInt8[np.ndarray, "n 28 28"]  #: 0 is background.
    labels: Int32[np.ndarray, " n"]  #: In [0, 10).


class Dataset(NamedTuple):
    """A training and a test split."""

    name: DatasetName  #: mnist, fashion_mnist, kmnist or synthetic; never auto.
    source: str  #: Where it came from, for people.
    class_names: tuple[str, ...]
    train: Split
    test: Split

    @property
    def counts(self) -> tuple[int, int]:
        """How many images there are for training, and how many for testing."""
        return len(self.train.labels), len(self.test.labels)

    def digest(self) -> str:
        """Which images and labels these are: SHA-256 of all of them."""
        digest = hashlib.sha256()
        for array in (*self.train, *self.test):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


def load_dataset(name: DatasetName = "auto", data_dir: Path | str | None = None) -> Dataset:
    """Finds a dataset on disk, or downloads it.

    `auto` is MNIST where it can be had, otherwise `synthetic` with a warning. A folder that is
    named is meant: with `data_dir`, `auto` is MNIST. That folder has the four IDX files, gzipped or
    not, as they are or as torchvision lays them out; or it is one of tensorflow-datasets (default:
    its own, usually `~/tensorflow_datasets`), which takes what has to be downloaded.

    Raises:
        RequestError: `data_dir` is no folder, or holds some of the four files only, or the original
            files of another dataset.
        DataError: a file that was found is damaged.
        DownloadError: the dataset is not on disk and its server cannot be reached.
    """
    if name == "synthetic":
        return _synthetic()
    if name == "auto" and data_dir is None:
        try:
            return load_dataset("mnist")
        except DownloadError as error:
            message = f"this is NOT MNIST but the built-in synthetic digits: {error}"
            warnings.warn(message, FlaxMnistWarning, stacklevel=2)
            return _synthetic()
    name = "mnist" if name == "auto" else name
    if data_dir is not None:
        data_dir = Path(os.path.expanduser(data_dir))
        require_folder(data_dir)
        for folder in (data_dir, data_dir / KNOWN[name].torchvision_folder / "raw"):
            if files := find_idx_files(folder):
                return _read_idx_files(name, files)
    return _from_tfds(name, data_dir)


def require_folder(data_dir: Path) -> None:
    """Raises RequestError if `data_dir` is no folder, or one that may not be read."""
    try:
        os.scandir(os.path.expanduser(data_dir)).close()
    except OSError as error:
        raise RequestError(
            f"{data_dir}: is no folder to read ({error.strerror}). Look at --data-dir."
        ) from error


def class_names(name: DatasetName) -> tuple[str, ...]:
    """What the ten classes of a dataset are called."""
    return KNOWN[name].class_names if name in KNOWN else DIGITS


def _synthetic() -> Dataset:
    arrays = synthetic.load()
    train, test = (
        Split(arrays[f"{split}_images"], arrays[f"{split}_labels"].astype(np.int32))
        for split in FILES
    )
    return Dataset("synthetic", "the built-in generator", DIGITS, train, test)


def _from_tfds(name: DatasetName, data_dir: Path | None) -> Dataset:
    builder = tfds.make_builder(name, data_dir)
    if not tfds.is_prepared(builder):
        return _read_idx_files(name, tfds.source_files(builder))
    place = Path(builder.data_path)
    splits = {split: _checked(*tfds.read_prepared(builder, split), place, place) for split in FILES}
    return Dataset(name, str(place), class_names(name), **splits)


def _read_idx_files(name: DatasetName, files: Mapping[str, Path]) -> Dataset:
    splits = {}
    for split, (image_name, label_name) in FILES.items():
        image_file, label_file = files[image_name], files[label_name]
        images, labels = read_idx(image_file, ndim=3), read_idx(label_file, ndim=1)
        splits[split] = _checked(images, labels, image_file, label_file)
    label_file = files[FILES["train"][1]]
    found = hashlib.sha256(label_file.read_bytes()).hexdigest()
    for other, known in KNOWN.items():
        if found == known.train_labels_sha256 and other != name:
            raise RequestError(f"{label_file}: is of {other}, not {name}. Give --dataset {other}.")
    return Dataset(name, str(label_file.parent), class_names(name), **splits)


def _checked(
    images: UInt8[np.ndarray, "n height width"],
    labels: Integer[np.ndarray, " m"],
    image_file: Path,
    label_file: Path,
) -> Split:
    """Raises DataError if a network cannot be trained on them."""
    if images.shape[1:] != (28, 28):
        size = "x".join(map(str, images.shape[1:]))
        raise DataError(f"{image_file}: its images are {size}, not 28x28.")
    if len(images) != len(labels):
        counts = f"{len(labels):,} labels for the {len(images):,} images"
        raise DataError(f"{label_file}: {counts} of {image_file.name}.")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(DIGITS)))
    if wrong.size:
        where = wrong[0]
        raise DataError(f"{label_file}: label {labels[where]} at {where}; they must be 0 to 9.")
    return Split(images, labels.astype(np.int32))
