"""From a name and a folder to images and labels."""

from __future__ import annotations

import hashlib
import os
import sys
import threading
import warnings
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from flax_mnist.config import DatasetName
from flax_mnist.data import synthetic
from flax_mnist.data.idx import read_idx
from flax_mnist.errors import DataError, FlaxMnistError, FlaxMnistWarning, RequestError

DIGITS = tuple("0123456789")
NETWORK_TIMEOUT = 3.0
"""Seconds after which a server that has not answered counts as out of reach."""

ATTEMPTS = 3
"""How often a file is asked for that a server fails to send."""

_SPLITS = {"train": "train", "test": "t10k"}
_TORCHVISION_FOLDERS = {"mnist": "MNIST", "fashion_mnist": "FashionMNIST", "kmnist": "KMNIST"}


LABEL_SUMS = {
    "mnist": "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c",
    "fashion_mnist": "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845",
    "kmnist": "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17",
}
"""SHA-256 of the training labels' `.gz` file, as tensorflow-datasets registers it: the files of all
three datasets have the same names."""


class Split(NamedTuple):
    """Images and what they show."""

    images: NDArray[np.uint8]
    """`[n, 28, 28]`, 0 is background."""
    labels: NDArray[np.int32]
    """`[n]` in [0, 10)."""


class Dataset(NamedTuple):
    """A training and a test split."""

    name: DatasetName
    """mnist, fashion_mnist, kmnist or synthetic; never auto."""
    source: str
    """Where it came from, for people."""
    class_names: tuple[str, ...]
    train: Split
    test: Split

    def digest(self) -> str:
        """Which images and labels these are: SHA-256 of all of them."""
        digest = hashlib.sha256()
        for array in (*self.train, *self.test):
            digest.update(np.ascontiguousarray(array).data)
        return digest.hexdigest()


class DownloadError(FlaxMnistError):
    """The dataset is not on disk and could not be fetched. Exit code 1."""


def load_dataset(name: DatasetName = "auto", data_dir: Path | str | None = None) -> Dataset:
    """Finds a dataset on disk, or downloads it.

    Args:
        name: `auto` is MNIST where it can be had, otherwise `synthetic` with a warning. A folder
            that is named is meant: with `data_dir`, `auto` is MNIST.
        data_dir: a folder with the four IDX files, gzipped or not, as they are or as torchvision
            lays them out; or a tensorflow-datasets folder (default: its own, usually
            `~/tensorflow_datasets`), which takes what has to be downloaded.

    Raises:
        RequestError: `data_dir` is no folder, or holds some of the four files only, or the original
            files of another dataset.
        DataError: a file that was found is damaged.
        DownloadError: the dataset is not on disk and its server cannot be reached.
    """
    if name == "synthetic":
        arrays = synthetic.load()
        return Dataset(
            "synthetic",
            "the built-in generator",
            DIGITS,
            _split(arrays["train_images"], arrays["train_labels"]),
            _split(arrays["test_images"], arrays["test_labels"]),
        )
    if name == "auto" and data_dir is None:
        try:
            return load_dataset("mnist")
        except DownloadError as error:
            warnings.warn(
                f"this is NOT MNIST but the built-in synthetic digits: {error}",
                FlaxMnistWarning,
                stacklevel=2,
            )
            return load_dataset("synthetic")
    name = "mnist" if name == "auto" else name
    if data_dir is not None:
        data_dir = Path(os.path.expanduser(data_dir))
        require_folder(data_dir)
        for folder in (data_dir, data_dir / _TORCHVISION_FOLDERS[name] / "raw"):
            files = _idx_files(folder)
            if files:
                return _read_idx_files(name, files, str(folder))
    return _from_tfds(name, data_dir)


def require_folder(data_dir: Path) -> None:
    """Raises RequestError if `data_dir` is no folder, or one that may not be read."""
    try:
        os.scandir(os.path.expanduser(data_dir)).close()
    except OSError as error:
        raise RequestError(
            f"{data_dir}: is no folder to read ({error.strerror}). Look at --data-dir."
        ) from error


def find_dataset(name: str) -> str | None:
    """Where tensorflow-datasets keeps `name` on this machine; None if it would be downloaded."""
    builder = _builder(name, None)
    if _is_prepared(builder):
        return str(builder.data_path)
    files = _downloaded_files(builder)
    return str(next(iter(files.values())).parent) if files else None


def _idx_files(folder: Path) -> dict[str, Path]:
    """The four IDX files of a folder by their stem; empty if it has none of them.

    A gzipped file is preferred, since its checksum shows damage.
    """
    found, missing = {}, []
    for prefix in _SPLITS.values():
        for stem in (f"{prefix}-images-idx3-ubyte", f"{prefix}-labels-idx1-ubyte"):
            # Whatever is there by that name, a link to nowhere even: its reader says what is wrong.
            paths = (folder / f"{stem}.gz", folder / stem)
            path = next((path for path in paths if os.path.lexists(path)), None)
            if path:
                found[stem] = path
            else:
                missing.append(stem)
    if found and missing:
        raise RequestError(
            f"{folder}: holds only some of the IDX files; missing: {', '.join(missing)}."
        )
    return found


def _read_idx_files(name: DatasetName, files: dict[str, Path], source: str) -> Dataset:
    splits = {}
    for split, prefix in _SPLITS.items():
        image_file = files[f"{prefix}-images-idx3-ubyte"]
        label_file = files[f"{prefix}-labels-idx1-ubyte"]
        images, labels = read_idx(image_file, ndim=3), read_idx(label_file, ndim=1)
        splits[split] = _checked(images, labels, image_file, label_file)
    _refuse_another(name, files["train-labels-idx1-ubyte"])
    return Dataset(name, source, class_names(name), splits["train"], splits["test"])


def _refuse_another(name: DatasetName, label_file: Path) -> None:
    """Raises RequestError if the file is the original of a dataset that is not `name`."""
    found = hashlib.sha256(label_file.read_bytes()).hexdigest()
    for other, known in LABEL_SUMS.items():
        if found == known and other != name:
            raise RequestError(f"{label_file}: is of {other}, not {name}. Give --dataset {other}.")


def _checked(
    images: NDArray[np.uint8],
    labels: NDArray[np.integer[Any]],
    image_file: Path,
    label_file: Path,
) -> Split:
    """Raises DataError if a network cannot be trained on them."""
    if images.shape[1:] != (28, 28):
        size = "x".join(map(str, images.shape[1:]))
        raise DataError(f"{image_file}: its images are {size}, not 28x28.")
    if len(images) != len(labels):
        raise DataError(
            f"{label_file}: {len(labels):,} labels for the {len(images):,} images of "
            f"{image_file.name}."
        )
    wrong = np.flatnonzero((labels < 0) | (labels >= len(DIGITS)))
    if wrong.size:
        where = wrong[0]
        raise DataError(f"{label_file}: label {labels[where]} at {where}; they must be 0 to 9.")
    return _split(images, labels)


def _split(images: NDArray[np.uint8], labels: NDArray[np.integer[Any]]) -> Split:
    return Split(images, labels.astype(np.int32))


def class_names(name: str) -> tuple[str, ...]:
    """What the ten classes of a dataset are called."""
    # Digits are their own names: MNIST on disk is read without importing tensorflow_datasets.
    if name in ("auto", "mnist", "synthetic"):
        return DIGITS
    return tuple(_builder(name, None).info.features["label"].names)


def _builder(name: str, data_dir: Path | None) -> Any:
    import tensorflow_datasets as tfds

    try:
        return tfds.builder(name, data_dir=data_dir)
    except Exception as error:  # whatever it meets in what was prepared earlier
        place = data_dir or "tensorflow-datasets' folder"
        reason = str(error).splitlines()[0]
        raise DataError(f"{place}: what it has of {name} cannot be read ({reason}).") from error


def _is_prepared(builder: Any) -> bool:
    """Whether it is there in the one format that can be read without TensorFlow."""
    return any(Path(builder.data_path).glob("*.array_record*"))


def _downloads(builder: Any) -> Path:
    return Path(builder.data_path).parents[1] / "downloads"


def _downloaded_files(builder: Any) -> dict[str, Path]:
    """The four source files in the download manager's cache; empty unless all are there."""
    from tensorflow_datasets.core.download import resource

    files = {}
    for url, info in builder.url_infos.items():
        name = resource.get_dl_fname(url, info.checksum)
        files[Path(url).stem] = _downloads(builder) / builder.name / name
    return files if all(path.exists() for path in files.values()) else {}


def _from_tfds(name: DatasetName, data_dir: Path | None) -> Dataset:
    builder = _builder(name, data_dir)
    if _is_prepared(builder):
        return _read_prepared(builder)
    files = _downloaded_files(builder) or _download(builder)
    return _read_idx_files(name, files, str(next(iter(files.values())).parent))


def _read_prepared(builder: Any) -> Dataset:
    import tensorflow_datasets as tfds

    data_dir = Path(builder.data_path).parents[1]
    try:
        # It writes other formats by default, and then looks for those.
        reader = tfds.builder(builder.name, data_dir=data_dir, file_format="array_record")
        splits = {}
        for split in _SPLITS:
            examples = list(reader.as_data_source(split=split))
            images = np.stack([example["image"] for example in examples])[..., 0]
            labels = np.array([example["label"] for example in examples])
            splits[split] = _checked(images, labels, builder.data_path, builder.data_path)
    except DataError:
        raise
    except Exception as error:  # whatever its readers raise
        raise DataError(f"{builder.data_path}: cannot be read ({error}).") from error
    return Dataset(builder.name, str(builder.data_path), class_names(builder.name), **splits)


def _download(builder: Any) -> dict[str, Path]:
    import tensorflow_datasets as tfds
    from tensorflow_datasets.core.download import downloader

    urls = {Path(url).stem: url for url in builder.url_infos}
    # The download manager retries for minutes before it gives up: look first.
    problem = _unreachable(next(iter(urls.values())))
    remedy = "Give --data-dir a folder with its four IDX files, or --dataset synthetic."
    if problem:
        raise DownloadError(f"{builder.name} is not on disk and not to be had: {problem}. {remedy}")
    if not sys.stderr.isatty():
        tfds.disable_progress_bar()
    # It has no argument for this; its own ten, each twice as long after the last, take minutes.
    downloader.MAX_RETRIES = ATTEMPTS - 1
    try:
        manager = tfds.download.DownloadManager(
            download_dir=_downloads(builder), url_infos=builder.url_infos, dataset_name=builder.name
        )
        return {stem: Path(path) for stem, path in manager.download(urls).items()}
    except Exception as error:  # whatever requests, its threads and the disk raise
        reason = (str(error) or type(error).__name__).splitlines()[0]
        raise DownloadError(f"The download of {builder.name} failed: {reason} {remedy}") from error


def _unreachable(url: str) -> str | None:
    """Why `url` does not answer in `NETWORK_TIMEOUT` seconds, proxies honoured; None if it does."""
    import requests

    too_late = f"no answer within {NETWORK_TIMEOUT:g} s"
    problem: list[str | None] = [too_late]

    def ask() -> None:
        try:
            answer = requests.head(url, timeout=NETWORK_TIMEOUT, allow_redirects=True)
            problem[0] = None if answer.ok else f"{url} answers {answer.status_code}"
        except requests.Timeout:
            problem[0] = too_late
        except Exception as error:  # of requests, or of what it calls where a proxy's name is odd
            problem[0] = f"no network ({type(error).__name__})"

    # In a thread, since looking up a host's name heeds no time-out.
    asking = threading.Thread(target=ask, daemon=True)
    asking.start()
    asking.join(NETWORK_TIMEOUT)
    return problem[0]
