"""The kinds of files that are read, with valid ones of each."""

from __future__ import annotations

import gzip
import io
import json
import re
import zipfile
import zlib
from collections.abc import Callable
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import pyarrow.parquet
import safetensors.numpy
from PIL import Image

from flax_mnist.data.forms import read_csv, read_npz, read_parquet
from flax_mnist.data.idx import read_idx
from flax_mnist.pictures.reading import read_image
from flax_mnist.store.checkpoint import read_checkpoint
from flax_mnist.store.metrics import read_metrics
from flax_mnist.store.record import read_config
from flax_mnist.store.weights import load_weights
from tests.helpers import forms
from tests.helpers.checkpoints import put_together, seal


class Reader(NamedTuple):
    """One kind of file."""

    file: str
    """Its name, whose ending may decide how it is read."""
    read: Callable[[Path], object]
    seeds: Callable[[], list[bytes]]
    """What is damaged: valid contents, or what `mend` makes valid ones of."""
    mend: Callable[[bytes], bytes] = lambda content: content
    """Makes the rest right again, such as checksums, so that what stands behind it is reached."""


def _idx() -> list[bytes]:
    images = np.arange(3 * 28 * 28).astype(np.uint8)
    return [b"\0\0\x08\x03" + np.array([3, 28, 28], ">u4").tobytes() + images.tobytes()]


def _few() -> dict[str, np.ndarray]:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (3, 28, 28), np.uint8)
    labels = np.array([7, 0, 9], np.uint8)
    return {f"{split}_images": images for split in ("train", "test")} | {
        f"{split}_labels": labels for split in ("train", "test")
    }


def _npz() -> list[bytes]:
    file, few = io.BytesIO(), _few()
    np.savez_compressed(
        file,
        x_train=few["train_images"],
        y_train=few["train_labels"],
        x_test=few["test_images"],
        y_test=few["test_labels"],
    )
    return [file.getvalue()]


def _npy() -> list[bytes]:
    with zipfile.ZipFile(io.BytesIO(_npz()[0])) as archive:
        return [archive.read("x_train.npy")]


def _with_npy(content: bytes) -> bytes:
    """The `mnist.npz` with other training images in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_npz()[0])) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():
            is_images = info.filename == "x_train.npy"
            new.writestr(info, content if is_images else old.read(info))
    return file.getvalue()


def _csv() -> list[bytes]:
    few = _few()
    rows = zip(few["train_labels"], few["train_images"].reshape(3, -1), strict=True)
    table = "".join(",".join(map(str, [label, *pixels])) + "\n" for label, pixels in rows)
    header = ",".join(["label", *map(str, range(784))]) + "\n"
    return [table.encode(), (header + table).encode()]


def _parquet() -> list[bytes]:
    file = io.BytesIO()
    pyarrow.parquet.write_table(forms.table(_few(), "train"), file)
    return [file.getvalue()]


def _pictures() -> list[bytes]:
    digit = np.zeros((40, 30), np.uint8)
    digit[8:30, 12:17] = 200
    grey = Image.fromarray(digit)
    exif = Image.Exif()
    exif[0x0112] = 6
    saved: list[tuple[Image.Image, str, dict[str, Any]]] = [
        (grey, "PNG", {}),
        (Image.fromarray(digit[6:34, 1:29]), "PNG", {}),
        (grey.convert("P"), "PNG", {"transparency": 0}),
        (grey.convert("LA"), "PNG", {}),
        (Image.fromarray(digit.astype(np.uint16) * 257), "PNG", {}),
        (grey, "JPEG", {"exif": exif}),
        (grey.convert("CMYK"), "JPEG", {"progressive": True}),
        (grey, "GIF", {"save_all": True, "append_images": [grey.rotate(90)], "transparency": 0}),
        (grey, "BMP", {}),
        (grey.convert("1"), "TIFF", {"compression": "group4"}),
        (Image.fromarray(digit.astype(np.float32)), "TIFF", {}),
        (grey.convert("RGBA"), "TIFF", {"compression": "tiff_lzw"}),
        (grey.convert("RGBA"), "WEBP", {"lossless": True}),
        (grey, "PPM", {}),
    ]
    contents = []
    for picture, form, options in saved:
        file = io.BytesIO()
        picture.save(file, form, **options)
        contents.append(file.getvalue())
    return contents


def _with_right_sums(content: bytes) -> bytes:
    """Of a PNG file's chunks."""
    mended, rest = content[:8], content[8:]
    if mended != b"\x89PNG\r\n\x1a\n":
        return content
    while len(rest) >= 12 and len(rest) >= (size := int.from_bytes(rest[:4], "big")) + 12:
        mended += rest[: 8 + size] + zlib.crc32(rest[4 : 8 + size]).to_bytes(4, "big")
        rest = rest[12 + size :]
    return mended + rest


def _state_dict() -> dict[str, np.ndarray]:
    shapes = {"0.weight": (2, 784), "0.bias": (2,), "2.weight": (10, 2), "2.bias": (10,)}
    return {name: np.full(shape, 0.5, np.float32) for name, shape in shapes.items()}


def _pt() -> bytes:
    import torch

    file = io.BytesIO()
    torch.save({name: torch.from_numpy(array) for name, array in _state_dict().items()}, file)
    return file.getvalue()


def _old_pt() -> bytes:
    """As before 1.6, but for the name of the numbers, which is where they were in memory."""
    import torch

    file, half = io.BytesIO(), torch.full((784 * 10,), 0.5)
    content = {n: half[: a.size].view(a.shape) for n, a in _state_dict().items()}
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return re.sub(rb"X.\0\0\0\d{9,}", b"X\x01\0\0\0" + b"7", file.getvalue(), flags=re.DOTALL)


def _npz_of_weights() -> bytes:
    file = io.BytesIO()
    np.savez(file, **_state_dict())
    return file.getvalue()


def _pickle() -> list[bytes]:
    """Of a state dict, and of a whole model whose numbers are as many."""
    import torch
    from torch import nn

    model = io.BytesIO()
    layers = nn.Linear(784, 2), nn.ReLU(), nn.Linear(2, 10), nn.LogSoftmax(dim=1)
    torch.save({"epoch": 1, "model": nn.Sequential(*layers)}, model)
    pickles = []
    for file in (io.BytesIO(_pt()), model):
        with zipfile.ZipFile(file) as archive:
            pickles.append(archive.read("archive/data.pkl"))
    return pickles


def _with_pickle(content: bytes) -> bytes:
    """The `.pt` file with another pickle in it."""
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(_pt())) as old, zipfile.ZipFile(file, "w") as new:
        for info in old.infolist():  # which has the date: the same at any time
            is_pickle = info.filename == "archive/data.pkl"
            new.writestr(info, content if is_pickle else old.read(info))
    return file.getvalue()


def _config() -> list[bytes]:
    content = {
        "config": {"epochs": 5, "learning_rate": 0.003, "hidden_sizes": [128, 64], "seed": 0},
        "dataset": {
            "name": "mnist",
            "source": "a folder",
            "data_dir": None,
            "class_names": list("0123456789"),
        },
        "checkpoints": {"every": "1", "keep": 3},
        "environment": {"python": "3.11.9"},
    }
    return [json.dumps(content, indent=2).encode()]


def _metrics() -> list[bytes]:
    row = {
        "epoch": 1, "step": 938, "train_loss": 1.9, "test_loss": 1.3, "test_accuracy": 0.7,
        "seconds": 0.3, "images_per_second": 200000.0, "dataset": "mnist",
    }  # fmt: skip
    return [(json.dumps(row) + "\n").encode() * 2]


def _checkpoint() -> list[bytes]:
    metadata = {
        "sha256": "0" * 64, "epoch": "1", "step": "2", "seconds": "0.5",
        "run": json.dumps({"seed": 0, "dataset": "mnist"}),
    }  # fmt: skip
    header = {
        "__metadata__": metadata,
        "[0].params['Dense_0']['bias']": {"dtype": "F32", "shape": [3], "data_offsets": [0, 12]},
        "[1].finite": {"dtype": "I32", "shape": [], "data_offsets": [12, 16]},
    }
    return [put_together(header, np.ones(3, np.float32).tobytes() + b"\2\0\0\0")]


READERS = {
    "idx": Reader("images", lambda path: read_idx(path, ndim=3), _idx),
    "idx.gz": Reader(
        "images.gz",
        lambda path: read_idx(path, ndim=3),
        lambda: [gzip.compress(content, mtime=0) for content in _idx()],
    ),
    "qmnist": Reader(
        "qmnist-test-labels-idx2-int",
        lambda path: read_idx(path, ndim=2, dtype="int32"),
        lambda: [b"\0\0\x0c\x02" + np.array([3, 8], ">u4").tobytes() + bytes(96)],
    ),
    "npz": Reader("mnist.npz", read_npz, _npz),
    "npy in npz": Reader("mnist.npz", read_npz, _npy, _with_npy),
    "csv": Reader("mnist_train.csv", read_csv, _csv),
    "parquet": Reader("train.parquet", read_parquet, _parquet),
    "picture": Reader("picture", read_image, _pictures, _with_right_sums),
    "safetensors": Reader(
        "weights.safetensors", load_weights, lambda: [safetensors.numpy.save(_state_dict())]
    ),
    "npz of weights": Reader("weights.npz", load_weights, lambda: [_npz_of_weights()]),
    "pt": Reader("weights.pt", load_weights, lambda: [_pt(), _old_pt()]),
    "pickle in pt": Reader("weights.pt", load_weights, _pickle, _with_pickle),
    "config.json": Reader("config.json", lambda path: read_config(path.parent), _config),
    "metrics.jsonl": Reader("metrics.jsonl", lambda path: read_metrics(path.parent), _metrics),
    "checkpoint": Reader("2.safetensors", read_checkpoint, _checkpoint, seal),
}

WRITTEN_BY_PYTORCH = {"pt", "pickle in pt"}
"""Those whose valid files only PyTorch makes."""
