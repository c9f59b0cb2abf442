"""From a name and a folder to images and labels."""

import difflib
import hashlib
import os
import warnings
from functools import partial
from pathlib import Path
from typing import NamedTuple, get_args

import numpy as np
from jaxtyping import Int32, UInt8

from flax_mnist.config import DatasetName
from flax_mnist.data import default_dir, forms, idx, synthetic, tfds
from flax_mnist.data.download import DownloadError
from flax_mnist.errors import DataError, FlaxMnistWarning, RequestError

DIGITS = tuple("0123456789")


class Known(NamedTuple):
    """What is known of a dataset without asking tensorflow-datasets, whose import takes long."""

    class_names: tuple[str, ...]
    torchvision_folder: str
    #: Of the `.gz` file: it tells apart the files of the datasets, which all have the same names.
    train_labels_sha256: str
    #: Of the labels themselves, a byte each, whatever form they are in; None where it is not known.
    labels_sha256: str | None = None


#: The datasets that tensorflow-datasets knows, by its names.
KNOWN = {
    "mnist": Known(
        DIGITS,
        "MNIST",
        "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
        "1feba77c54802fa5339a11837ea4b2866434b83314ec45192930f1df69120c13",
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
    form: str = "arrays"  #: What it was read from: IDX, npz, CSV, Parquet, ...
    validation: Split | None = None  #: What `hold_out` has taken from the training split.

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

    def digests(self) -> dict[str, str]:
        """SHA-256 of the images and of the labels of each split, a byte a pixel and a label.

        They are the same for all forms in which a dataset is kept.
        """
        return {
            f"{split}_{kind}": hashlib.sha256(
                np.ascontiguousarray(array, np.uint8).data
            ).hexdigest()
            for split in forms.SPLITS
            for kind, array in getattr(self, split)._asdict().items()
        }


def load_dataset(name: DatasetName = "auto", data_dir: Path | str | None = None) -> Dataset:
    """Finds a dataset on disk, or downloads it.

    `auto` is MNIST where it can be had, otherwise `synthetic` with a warning. A folder that is
    named is meant: with `data_dir`, `auto` is MNIST. It is a folder with one of the forms that
    `flax_mnist.data.forms` reads, as they are or as torchvision lays them out, or a file of them;
    or it is a folder of tensorflow-datasets (default: its own, usually `~/tensorflow_datasets`), or
    an empty one: into these two is downloaded what they lack, into no other.

    Raises:
        RequestError: there is no dataset of that name; or `data_dir` is no folder or file, or holds
            none of the forms, a part of one, or another dataset.
        DataError: a file that was found is damaged.
        DownloadError: the dataset is not on disk and its server cannot be reached.
    """
    if name not in get_args(DatasetName):
        near = difflib.get_close_matches(name, get_args(DatasetName), n=1)
        meant = f"did you mean {near[0]}? There" if near else "there"
        raise RequestError(f"{name}: {meant} are {', '.join(get_args(DatasetName))}.")
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
        require_readable(data_dir)
        if found := forms.find(data_dir, name, _inner_folders(name)):
            return _read(name, found)
        if not forms.is_empty(data_dir) and not tfds.is_data_dir(data_dir, name):
            has = forms.what_is_in(data_dir)
            raise RequestError(
                f"{data_dir}: holds {has}, but no form of {name} that is read: {forms.READ}. "
                "An empty folder is filled by a download."
            )
    return _from_tfds(name, data_dir)


def identify(data_dir: Path) -> Dataset:
    """What a folder or a file holds, whichever dataset it is; nothing is downloaded.

    Raises:
        RequestError: it is not there, or holds none of the forms, or a part of one.
        DataError: a file is damaged.
    """
    require_readable(data_dir)
    refusals = []
    for name in get_args(DatasetName):
        if name not in KNOWN:
            continue
        try:
            if found := forms.find(data_dir, name, _inner_folders(name)):
                return _read(name, found)
            if data_dir.is_dir() and tfds.find_dataset(name, data_dir):
                return _from_tfds(name, data_dir)
        except RequestError as error:  # it may be of another dataset
            refusals.append(error)
    if refusals:
        raise refusals[0]
    has = forms.what_is_in(data_dir) or "nothing"
    raise RequestError(f"{data_dir}: holds {has}, but none of the forms: {forms.READ}.")


def require_readable(data_dir: Path) -> None:
    """Raises RequestError if `data_dir` is neither a folder nor a file, or may not be read."""
    path = Path(os.path.expanduser(data_dir))
    try:
        if path.is_file():
            path.open("rb").close()
        else:
            os.scandir(path).close()
    except OSError as error:
        raise RequestError(
            f"{data_dir}: is no folder or file to read ({error.strerror}). Look at --data-dir "
            f"or {default_dir.VARIABLE}."
        ) from error


def class_names(name: DatasetName) -> tuple[str, ...]:
    """What the ten classes of a dataset are called."""
    return KNOWN[name].class_names if name in KNOWN else DIGITS


def _synthetic() -> Dataset:
    arrays = synthetic.load()
    train, test = (
        Split(arrays[f"{split}_images"], arrays[f"{split}_labels"].astype(np.int32))
        for split in forms.SPLITS
    )
    return Dataset("synthetic", "the built-in generator", DIGITS, train, test, "generator")


def _inner_folders(name: DatasetName) -> tuple[str, ...]:
    """Where in a folder a dataset may lie: as torchvision and the Hugging Face Hub have it."""
    theirs = (KNOWN[name].torchvision_folder, *(("QMNIST", "EMNIST") if name == "mnist" else ()))
    return ("raw", *(f"{folder}/raw" for folder in theirs), name)


def _from_tfds(name: DatasetName, data_dir: Path | None) -> Dataset:
    builder = tfds.make_builder(name, data_dir)
    if not tfds.is_prepared(builder):
        paths = tfds.source_files(builder)
        place = next(iter(paths.values())).parent
        read = partial(idx.read_idx_files, paths)
        return _read(name, forms.Found("IDX", place, tuple(paths.values()), read))
    place = Path(builder.data_path)

    def read_prepared() -> dict[str, idx.Pair]:
        return {
            split: idx.Pair(*tfds.read_prepared(builder, split), str(place), str(place))
            for split in forms.SPLITS
        }

    return _read(name, forms.Found("tensorflow-datasets", place, (), read_prepared))


def _read(name: DatasetName, found: forms.Found) -> Dataset:
    splits = {split: _checked(pair) for split, pair in found.read().items()}
    dataset = Dataset(
        name, str(found.place), class_names(name), splits["train"], splits["test"], found.form
    )
    _require_own(dataset, found)
    return dataset


def _require_own(dataset: Dataset, found: forms.Found) -> None:
    """Raises RequestError if the labels are known to be those of another dataset."""
    labels = dataset.train.labels.astype(np.uint8)
    sums = {hashlib.sha256(labels.data).hexdigest()}
    for path in found.files:
        if path.suffix == ".gz" and "train-labels" in path.name:
            sums.add(hashlib.sha256(path.read_bytes()).hexdigest())
    for other, known in KNOWN.items():
        if sums & {known.train_labels_sha256, known.labels_sha256} and other != dataset.name:
            place = next((str(path) for path in found.files if "label" in path.name), found.place)
            raise RequestError(
                f"{place}: is of {other}, not {dataset.name}. Give --dataset {other}."
            )


def _checked(pair: idx.Pair) -> Split:
    """Raises DataError if a network cannot be trained on them."""
    images, labels = pair.images, pair.labels
    if images.shape[1:] != (28, 28):
        size = "x".join(map(str, images.shape[1:]))
        raise DataError(f"{pair.image_place}: its images are {size}, not 28x28.")
    if not len(images) or len(images) != len(labels):
        counts = f"{len(labels):,} labels for the {len(images):,} images"
        raise DataError(f"{pair.label_place}: {counts} of {Path(pair.image_place).name}.")
    wrong = np.flatnonzero((labels < 0) | (labels >= len(DIGITS)))
    if wrong.size:
        where = wrong[0]
        label = f"label {labels[where]} at {where}"
        raise DataError(f"{pair.label_place}: {label}; they must be 0 to 9.")
    return Split(images, labels.astype(np.int32))
