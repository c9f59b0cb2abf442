"""What tensorflow-datasets knows of a dataset and has of it on disk; TensorFlow is not needed.

It is the registry of addresses and sums, and reads what it has prepared as array_record. Nothing
here imports it before it is needed.
"""

import base64
import contextlib
import hashlib
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
from jaxtyping import Integer, UInt8

from flax_mnist.data import download
from flax_mnist.errors import DataError


def find_dataset(name: str, data_dir: Path | None = None) -> str | None:
    """Where tensorflow-datasets keeps `name`, by itself or in a folder; None if it has to fetch it.

    Raises:
        DataError: what was prepared there earlier is damaged.
    """
    builder = make_builder(name, data_dir)
    if is_prepared(builder):
        return str(builder.data_path)
    paths = [path for _, path in _sources(builder) if path]
    return str(paths[0].parent) if len(paths) == len(builder.url_infos) else None


def is_data_dir(folder: Path, name: str) -> bool:
    """Whether a folder is one that it has written into, or a download of `name` of ours."""
    signs = (
        *("downloads/*.INFO", "downloads/*/*.INFO"),
        # Of what is prepared, without a configuration and with one.
        *("*/*/dataset_info.json", "*/*/*/dataset_info.json"),
    )
    is_ours = (folder / "downloads" / name).is_dir()  # empty even, where a download has failed
    return is_ours or any(True for sign in signs for _ in folder.glob(sign))


def make_builder(name: str, data_dir: Path | None) -> Any:
    """The builder of dataset `name` that looks into `data_dir`; None is its own folder.

    Raises:
        DataError: what was prepared there earlier is damaged.
    """
    import tensorflow_datasets

    # For each builder it makes a folder that it leaves behind.
    kept, left = tempfile.tempdir, tempfile.TemporaryDirectory(prefix="flax-mnist-")
    try:
        with left as tempfile.tempdir:
            return tensorflow_datasets.builder(name, data_dir=data_dir)
    except Exception as error:  # whatever it meets in what was prepared earlier
        place = data_dir or "tensorflow-datasets' folder"
        reason = str(error).splitlines()[0]
        raise DataError(f"{place}: what it has of {name} cannot be read ({reason}).") from error
    finally:
        tempfile.tempdir = kept


def is_prepared(builder: Any) -> bool:
    """Whether it is there in the one format that can be read without TensorFlow."""
    return any(Path(builder.data_path).glob("*.array_record*"))


def read_prepared(
    builder: Any, split: str
) -> tuple[UInt8[np.ndarray, "n height width"], Integer[np.ndarray, " n"]]:
    """Images and labels of a split, `train` or `test`, that tensorflow-datasets has prepared.

    Raises:
        DataError: it cannot be read.
    """
    import tensorflow_datasets

    try:
        # It writes other formats by default, and then looks for those.
        data_dir = Path(builder.data_path).parents[1]
        reader = tensorflow_datasets.builder(
            builder.name, data_dir=data_dir, file_format="array_record"
        )
        examples = list(reader.as_data_source(split=split))
        images = np.stack([example["image"] for example in examples])[..., 0]
        return images, np.array([example["label"] for example in examples])
    except Exception as error:  # whatever its readers raise
        raise DataError(f"{builder.data_path}: cannot be read ({error}).") from error


def source_files(builder: Any) -> dict[str, Path]:
    """The dataset's files, gzipped IDX, by their names without `.gz`; downloads those not on disk.

    Raises:
        DownloadError: one is not on disk and cannot be had.
    """
    folder, sources = _downloads(builder), _sources(builder)
    if folder.parts[0] == "~":
        raise download.DownloadError(
            f"{builder.name} is not on disk, and there is no home folder to download it into. "
            "Set TFDS_DATA_DIR, or give --data-dir."
        )
    if missing := [source for source, path in sources if not path]:
        download.fetch(builder.name, missing, folder)
    found = {source.file_name: path or folder / source.file_name for source, path in sources}
    return {name.removesuffix(".gz"): path for name, path in found.items()}


def _downloads(builder: Any) -> Path:
    """Where files are downloaded to: beside those that tensorflow-datasets downloads itself."""
    return Path(builder.data_path).parents[1] / "downloads" / str(builder.name)


def _sources(builder: Any) -> list[tuple[download.Source, Path | None]]:
    """Each file of the dataset, and where it is on disk already, whoever downloaded it."""
    infos = builder.url_infos.items()
    sources = [download.Source(url, int(info.size), info.checksum) for url, info in infos]
    return [(source, _on_disk(source, _downloads(builder))) for source in sources]


def _on_disk(source: download.Source, folder: Path) -> Path | None:
    # `tfds.download.DownloadManager` names a file by its address and its sum in base64url, in a
    # folder of the dataset, and did so in the folder above it.
    ending = base64.urlsafe_b64encode(bytes.fromhex(source.sha256)).decode().rstrip("=")
    theirs = [path for place in (folder, folder.parent) for path in place.glob(f"*{ending}.gz")]
    for path in (folder / source.file_name, *theirs):
        with contextlib.suppress(OSError), path.open("rb") as file:  # unreadable is as good as none
            if hashlib.file_digest(file, "sha256").hexdigest() == source.sha256:
                return path
    return None
