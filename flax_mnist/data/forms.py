"""The forms in which people have MNIST on disk, each read by the library that owns it.

What is found is not believed: arrays are as the files hold them, and `load_dataset` checks them.
Nothing is ever unpickled.
"""

import contextlib
import io
import re
import zipfile
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Shaped, UInt8

from flax_mnist import files
from flax_mnist.data import idx
from flax_mnist.errors import DataError, FlaxMnistError, RequestError

#: What is read, for the line that says so where nothing of it is found.
READ = (
    "the four IDX files, mnist.npz, CSV (mnist_train.csv and mnist_test.csv), "
    "Parquet (train-*.parquet and test-*.parquet), and tensorflow-datasets' folder"
)

SPLITS = tuple(idx.FILES)  #: What a dataset is made of: train and test.
_NPZ = {"train": ("x_train", "y_train"), "test": ("x_test", "y_test")}
_TABLE = r"(?P<set>.*?)(?<![a-z])(?P<split>train|test)"
_CSV = re.compile(rf"{_TABLE}\.csv", re.IGNORECASE)
_PARQUET = re.compile(rf"{_TABLE}(-\d+-of-(?P<count>\d+))?\.parquet", re.IGNORECASE)
_LABEL = ("label", "labels", "class")  # what the column is called in a header, in small letters
_PIXELS = 28 * 28
_MAX_ROWS = idx.MAX_BYTES // _PIXELS


class Found(NamedTuple):
    """A dataset on disk in one of the forms."""

    form: str  #: Its name, for people.
    place: Path  #: The folder it lies in, or the one file.
    files: tuple[Path, ...]
    read: Callable[[], dict[str, idx.Pair]]  #: By the names of the splits.


def find(path: Path, name: str, folders: tuple[str, ...]) -> Found | None:
    """The dataset `name` in a folder or a file; None if the folder has none of the forms.

    A folder is looked into first, then those of the `folders` that it has; the first with one of
    the forms counts. Of several there the order is: IDX, that of QMNIST, that of EMNIST's digits,
    NumPy's archive, Parquet, CSV. A file stands for itself, or for those that belong to it.

    Raises:
        RequestError: a file is of none of the forms, or is a pickle; or a folder has several sets
            in one form, or those of other datasets only, by their names.
    """
    if path.is_file():
        path = path.absolute()
        for folder in (path.parent.parent, path.parent):  # IDX files may have folders of their own
            for found in _in(folder):
                if path in found.files:
                    _require_named(path, name, [found])
                    return found
        _refuse_pickle(path)
        raise RequestError(f"{path}: is none of the files that are read: {READ}.")
    for folder in (path, *(path / inner for inner in folders)):
        if candidates := list(_in(folder)):
            first, *others = _require_named(path, name, candidates)
            if others and others[0].form == first.form:
                either = f"{first.files[0].name} and {others[0].files[0].name}"
                raise RequestError(f"{folder}: has {either}. Name the file that is meant.")
            return first
    for file in _entries(path):
        _refuse_pickle(file)
    return None


def what_is_in(folder: Path) -> str:
    """The first few names in a folder, for people."""
    names = [entry.name for entry in _entries(folder)]
    more = f" and {len(names) - 4:,} more" if len(names) > 4 else ""
    return ", ".join(names[:4]) + more


def is_empty(folder: Path) -> bool:
    """Whether a folder has nothing but what is hidden."""
    return not _entries(folder)


def set_of(name: str) -> str | None:
    """Which dataset a file's name speaks of; None if of none."""
    name = name.lower()
    if "fashion" in name:
        return "fashion_mnist"
    if "kmnist" in name or "kuzushiji" in name:
        return "kmnist"
    return "mnist" if "mnist" in name else None


def read_npz(path: Path) -> dict[str, idx.Pair]:
    """The splits of Keras's `mnist.npz`, with the arrays `x_train`, `y_train`, `x_test`, `y_test`.

    Raises:
        DataError: it is not such a file.
    """
    with _damage_named(path, "as NumPy's archive"):
        archive = zipfile.ZipFile(io.BytesIO(_content(path)))
        names = sorted(info.filename for info in archive.infolist())
        expected = sorted(f"{array}.npy" for pair in _NPZ.values() for array in pair)
        if names != expected:
            has = ", ".join(names)[:200]
            raise DataError(f"{path}: holds {has or 'nothing'}, not {', '.join(expected)}.")
        pairs = {}
        for split, (x, y) in _NPZ.items():
            images, labels = _array(archive, path, x), _array(archive, path, y)
            if images.dtype != np.uint8 or images.ndim != 3:
                raise DataError(f"{path}: {x} is {_kind(images)}, not uint8[n, 28, 28].")
            if labels.dtype.kind not in "iu" or labels.ndim != 1:
                raise DataError(f"{path}: {y} is {_kind(labels)}, not uint8[n].")
            pairs[split] = idx.Pair(images, labels, f"{path}: {x}", f"{path}: {y}")
        return pairs


def read_csv(path: Path) -> idx.Pair:
    """A split from a table of a label and 784 pixels a row, with a header or without.

    Where the file's name speaks of EMNIST, rows and columns of the images are exchanged.

    Raises:
        DataError: it is not such a file, or has a value that is no whole number from 0 to 255.
    """
    import pyarrow
    import pyarrow.csv

    with _damage_named(path, "as CSV"):
        content = _content(path)
        first = content[: content.find(b"\n") + 1 or None].decode("utf-8-sig")
        header = [column.strip().strip('"').lower() for column in first.split(",")]
        has_header = not header[0].lstrip("-").replace(".", "").isdigit()
        if has_header and header[0] not in _LABEL:
            raise DataError(f"{path}: its first column is {header[0]!r:.40}, not label.")
        if len(header) != 1 + _PIXELS:
            raise DataError(f"{path}: has {len(header):,} columns, not a label and 784 pixels.")
        names = [str(column) for column in range(1 + _PIXELS)]
        table = pyarrow.csv.read_csv(
            pyarrow.BufferReader(content),
            # By one thread: only then are errors told with their row.
            read_options=pyarrow.csv.ReadOptions(
                use_threads=False, column_names=names, skip_rows=int(has_header)
            ),
            convert_options=pyarrow.csv.ConvertOptions(
                column_types=dict.fromkeys(names, pyarrow.uint8()), null_values=[]
            ),
        )
        columns = np.stack([column.to_numpy() for column in table.columns], axis=1)
        images = np.ascontiguousarray(columns[:, 1:]).reshape(-1, 28, 28)
        if "emnist" in path.name.lower():
            images = idx.upright(images)
        return idx.Pair(images, columns[:, 0].copy(), str(path), str(path))


def read_parquet(path: Path) -> idx.Pair:
    """A split, or a part of one, as the Hugging Face Hub has it: PNG images and labels.

    Raises:
        DataError: it is not such a file.
    """
    import pyarrow
    import pyarrow.parquet

    with _damage_named(path, "as Parquet"):
        file = pyarrow.parquet.ParquetFile(pyarrow.BufferReader(_content(path)))
        schema = file.schema_arrow
        if schema.names != ["image", "label"] or not _is_hugging_faces(*schema.types):
            has = ", ".join(f"{column.name} ({column.type})" for column in schema)[:200]
            raise DataError(f"{path}: its columns are {has}, not image (bytes, path) and label.")
        groups = [file.metadata.row_group(i) for i in range(file.metadata.num_row_groups)]
        unpacked = sum(group.total_byte_size for group in groups)
        if file.metadata.num_rows > _MAX_ROWS or unpacked > idx.MAX_BYTES:
            raise DataError(f"{path}: is larger than any such set.")
        table = file.read(columns=["image.bytes", "label"])
        if table["label"].null_count:
            raise DataError(f"{path}: some of its rows have no label.")
        contents = table["image"].combine_chunks().field("bytes").to_pylist()
        images = [_png(content, path, row) for row, content in enumerate(contents)]
        return idx.Pair(np.stack(images), table["label"].to_numpy(), str(path), str(path))


def _in(folder: Path) -> Iterator[Found]:
    """All that lies in a folder in one of the forms, in the order of preference."""
    relatives = {"IDX": idx.FILES, "QMNIST's IDX": idx.QMNIST, "IDX of EMNIST's digits": idx.EMNIST}
    for form, names in relatives.items():
        if paths := idx.find_idx_files(folder, names):
            read = partial(idx.read_idx_files, paths, names)
            yield Found(form, folder, tuple(paths.values()), read)
    for file in _entries(folder):
        if file.suffix.lower() == ".npz":
            yield Found("npz", file, (file,), partial(read_npz, file))
    yield from _tables("Parquet", folder, _PARQUET, read_parquet)
    yield from _tables("CSV", folder, _CSV, read_csv)


def _tables(
    form: str, folder: Path, pattern: re.Pattern[str], read: Callable[[Path], idx.Pair]
) -> Iterator[Found]:
    """The sets of a folder that have a file, or several, for each split."""
    sets: dict[str, dict[str, list[Path]]] = {}
    for file in _entries(folder):
        if match := pattern.fullmatch(file.name):
            splits = sets.setdefault(match["set"].lower(), {})
            splits.setdefault(match["split"].lower(), []).append(file)
    for splits in sets.values():
        paths = tuple(path for split in SPLITS for path in splits.get(split, []))
        yield Found(form, folder, paths, partial(_read_tables, form, folder, splits, pattern, read))


def _read_tables(
    form: str,
    folder: Path,
    splits: Mapping[str, list[Path]],
    pattern: re.Pattern[str],
    read: Callable[[Path], idx.Pair],
) -> dict[str, idx.Pair]:
    pairs = {}
    for split in SPLITS:
        paths = splits.get(split, [])
        if not paths:
            other = next(iter(splits.values()))[0].name
            raise RequestError(f"{folder}: has {other}, but no {form} file of the {split} images.")
        match = pattern.fullmatch(paths[0].name)
        count = int((match and match.groupdict().get("count")) or 1)
        if len(paths) != count:
            raise RequestError(f"{folder}: of {count} {form} files of {split} it has {len(paths)}.")
        parts = [read(path) for path in paths]
        images = np.concatenate([part.images for part in parts])
        labels = np.concatenate([part.labels for part in parts])
        pairs[split] = idx.Pair(images, labels, str(paths[0]), str(paths[0]))
    return pairs


def _require_named(path: Path, name: str, candidates: list[Found]) -> list[Found]:
    """Those of the candidates whose names do not speak of another dataset."""

    def told(found: Found) -> str | None:
        file = found.files[0]
        return set_of(str(file.relative_to(path)) if path.is_dir() else file.name)

    fitting = [found for found in candidates if told(found) in (None, name)]
    if not fitting:
        other, file = told(candidates[0]), candidates[0].files[0]
        raise RequestError(f"{file}: is of {other}, not {name}. Give --dataset {other}.")
    # Names that speak of none are MNIST's own: of another set what says so is preferred.
    return sorted(fitting, key=lambda found: name != "mnist" and told(found) is None)


def _entries(folder: Path) -> list[Path]:
    """What is in a folder, but for what is hidden, such as macOS's `._mnist_train.csv`."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError:  # there is none, or one that may not be read: nothing is found in it
        return []


def _refuse_pickle(path: Path) -> None:
    """Raises RequestError if it is called a pickle, with what turns the usual one into an archive.

    Of that one the images are float32, their grey levels divided by 256, and of the 60,000 for
    training the last 10,000 are apart, for validation.
    """
    if not re.search(r"\.(pkl|pickle)(\.gz)?$", path.name, re.IGNORECASE):
        return
    content = f"pathlib.Path({str(path)!r}).read_bytes()"
    if path.suffix.lower() == ".gz":
        content = f"gzip.decompress({content})"
    raise RequestError(
        f"{path}: is a pickle, whose code would run when it is read. Where you trust it, or where "
        "no harm can come of it, as in a container, Python makes mnist.npz of it, which is read:\n"
        "import gzip, pathlib, pickle, numpy as np\n"
        f'(x, y), (v, w), (s, t) = pickle.loads({content}, encoding="latin1")\n'
        'np.savez("mnist.npz", x_train=np.uint8(np.r_[x, v] * 256).reshape(-1, 28, 28), '
        "y_train=np.r_[y, w], x_test=np.uint8(s * 256).reshape(-1, 28, 28), y_test=t)"
    )


def _content(path: Path) -> bytes:
    content = files.read(path, most=idx.MAX_BYTES + 1)
    if len(content) > idx.MAX_BYTES:
        raise DataError(f"{path}: is larger than any such set.")
    return content


@contextlib.contextmanager
def _damage_named(path: Path, form: str) -> Iterator[None]:
    """Turns whatever a library raises into a DataError that names the file."""
    try:
        yield
    except FlaxMnistError:
        raise
    except Exception as error:
        reason = (str(error) or type(error).__name__).splitlines()[0][:200].rstrip(".")
        raise DataError(f"{path}: cannot be read {form} ({reason}).") from error


def _array(archive: zipfile.ZipFile, path: Path, name: str) -> Shaped[np.ndarray, "*shape"]:
    if archive.getinfo(f"{name}.npy").file_size > idx.MAX_BYTES:
        raise DataError(f"{path}: {name} is larger than any such set.")
    with archive.open(f"{name}.npy") as file:
        array: Shaped[np.ndarray, "*shape"] = np.lib.format.read_array(file, allow_pickle=False)
        if file.read(1):
            raise DataError(f"{path}: {name} holds more than its header promises.")
    return array


def _kind(array: Shaped[np.ndarray, "*shape"]) -> str:
    return f"{array.dtype}[{', '.join(map(str, array.shape))}]"


def _is_hugging_faces(image: Any, label: Any) -> bool:
    from pyarrow import types

    if not types.is_struct(image) or not types.is_integer(label):
        return False
    fields = {field.name: field.type for field in image}
    return fields.keys() == {"bytes", "path"} and types.is_binary(fields["bytes"])


def _png(content: bytes | None, path: Path, row: int) -> UInt8[np.ndarray, "28 28"]:
    from PIL import Image

    if content is None:
        raise DataError(f"{path}: image {row} is missing.")
    with (
        _damage_named(path, f"at image {row}"),
        Image.open(io.BytesIO(content), formats=("PNG",)) as picture,
    ):
        if picture.size != (28, 28) or picture.mode != "L":
            what = f"{picture.width}x{picture.height} of mode {picture.mode}"
            raise DataError(f"{path}: image {row} is {what}, not 28x28 of mode L.")
        return np.asarray(picture)
