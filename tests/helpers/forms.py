"""MNIST as people have it on disk: a writer for each form."""

from __future__ import annotations

import gzip
import io
import pickle
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pyarrow
import pyarrow.parquet
from PIL import Image

from tests.helpers.idx_files import idx

Arrays = dict[str, np.ndarray]
PREFIXES = {"train": "train", "test": "t10k"}


def idx_contents(arrays: Arrays) -> dict[str, bytes]:
    """The four files by their names, not packed."""
    return {
        f"{prefix}-{kind}-idx{n}-ubyte": idx(arrays[f"{split}_{kind}"])
        for split, prefix in PREFIXES.items()
        for kind, n in (("images", 3), ("labels", 1))
    }


def named(place: str, packed: bool = False) -> Callable[[Path, Arrays], None]:
    """A writer of the four files, each into `place`, which has `{}` for its name."""

    def write(folder: Path, arrays: Arrays) -> None:
        for name, content in idx_contents(arrays).items():
            path = folder / place.format(name, dotted=name.replace("-idx", ".idx"))
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(gzip.compress(content) if packed else content)

    return write


def qmnist(folder: Path, arrays: Arrays) -> None:
    """Of its labels the class is the first of eight figures, big-endian."""
    for split in PREFIXES:
        labels = 300 + np.arange(8 * len(arrays[f"{split}_labels"])).reshape(-1, 8)
        labels = labels.astype(">i4")
        labels[:, 0] = arrays[f"{split}_labels"]
        content = b"\0\0\x0c\x02" + np.array(labels.shape, ">u4").tobytes() + labels.tobytes()
        (folder / f"qmnist-{split}-labels-idx2-int.gz").write_bytes(gzip.compress(content))
        (folder / f"qmnist-{split}-images-idx3-ubyte").write_bytes(idx(arrays[f"{split}_images"]))


def emnist(folder: Path, arrays: Arrays) -> None:
    """Its images are lying on their side, mirrored."""
    for split in PREFIXES:
        lying = np.stack([image.T for image in arrays[f"{split}_images"]])
        for kind, array in (("images-idx3", lying), ("labels-idx1", arrays[f"{split}_labels"])):
            path = folder / f"emnist-digits-{split}-{kind}-ubyte.gz"
            path.write_bytes(gzip.compress(idx(array)))


def npz(folder: Path, arrays: Arrays, **changed: np.ndarray) -> None:
    names = {"x_train": "train_images", "y_train": "train_labels"}
    names |= {"x_test": "test_images", "y_test": "test_labels"}
    content = {name: arrays[array] for name, array in names.items()} | changed
    np.savez_compressed(folder / "mnist.npz", **content)


def csv(
    header: bool = False, name: str = "mnist_{}.csv", end: str = "\n"
) -> Callable[[Path, Arrays], None]:
    def write(folder: Path, arrays: Arrays) -> None:
        for split in PREFIXES:
            pixels = ["label", *(f"{i // 28 + 1}x{i % 28 + 1}" for i in range(784))]
            lines = [",".join(pixels)] if header else []
            for image, label in zip(
                arrays[f"{split}_images"], arrays[f"{split}_labels"], strict=True
            ):
                lines.append(",".join(map(str, [label, *image.reshape(-1)])))
            (folder / name.format(split)).write_bytes((end.join(lines) + end).encode())

    return write


def png(image: np.ndarray) -> bytes:
    file = io.BytesIO()
    Image.fromarray(image).save(file, "PNG")
    return file.getvalue()


def table(arrays: Arrays, split: str) -> pyarrow.Table:
    """As the Hugging Face Hub has it."""
    images = [{"bytes": png(image), "path": None} for image in arrays[f"{split}_images"]]
    kind = pyarrow.struct({"bytes": pyarrow.binary(), "path": pyarrow.string()})
    labels = arrays[f"{split}_labels"].tolist()
    return pyarrow.table({"image": pyarrow.array(images, kind), "label": labels})


def parquet(folder: Path, arrays: Arrays) -> None:
    """The training images in two parts, in the dataset's folder."""
    (folder / "mnist").mkdir()
    train = table(arrays, "train")
    parts = {
        "train-00000-of-00002": train[:300],
        "train-00001-of-00002": train[300:],
        "test-00000-of-00001": table(arrays, "test"),
    }
    for name, part in parts.items():
        pyarrow.parquet.write_table(part, folder / "mnist" / f"{name}.parquet")


def pickled(folder: Path, arrays: Arrays) -> None:
    """As deeplearning.net had it: float32 in 256ths, the last training images for validation."""
    x, s = (
        arrays[f"{split}_images"].reshape(-1, 784).astype(np.float32) / 256 for split in PREFIXES
    )
    y, t = (arrays[f"{split}_labels"].astype(np.int64) for split in PREFIXES)
    with gzip.open(folder / "mnist.pkl.gz", "wb") as file:
        pickle.dump(((x[:-200], y[:-200]), (x[-200:], y[-200:]), (s, t)), file)


#: By its name: how it is written, and what the program calls it.
FORMS: dict[str, tuple[Callable[[Path, Arrays], None], str]] = {
    "dashed": (named("{}"), "IDX"),
    "dashed, packed": (named("{}.gz", packed=True), "IDX"),
    "dotted": (named("{dotted}"), "IDX"),
    "dotted, packed": (named("{dotted}.gz", packed=True), "IDX"),
    "unpacked under its packed name": (named("{}.gz"), "IDX"),
    "packed under its unpacked name": (named("{dotted}", packed=True), "IDX"),
    "folders of their own": (named("{0}/{0}"), "IDX"),
    "dotted in folders of their own": (named("{dotted}/{dotted}"), "IDX"),
    "torchvision's data": (named("MNIST/raw/{}"), "IDX"),
    "torchvision's data/MNIST": (named("raw/{}"), "IDX"),
    "QMNIST": (qmnist, "QMNIST's IDX"),
    "EMNIST": (emnist, "IDX of EMNIST's digits"),
    "npz": (npz, "npz"),
    "csv": (csv(), "CSV"),
    "csv with a header": (csv(header=True), "CSV"),
    "csv of Windows": (csv(header=True, name="{}.csv", end="\r\n"), "CSV"),
    "parquet": (parquet, "Parquet"),
}
