"""Names and folders to arrays: what is read, and what is refused."""

from __future__ import annotations

import collections
import contextlib
import gzip
import hashlib
import http.server
import io
import struct
import sys
import threading
import tracemalloc
import types
import zlib
from pathlib import Path

import numpy as np
import pytest
import requests
from PIL import Image

from flax_mnist.config import DatasetName
from flax_mnist.data import dataset as data
from flax_mnist.data import idx
from flax_mnist.data.dataset import (
    ATTEMPTS,
    DIGITS,
    LABEL_SUMS,
    DownloadError,
    _builder,
    _unreachable,
    find_dataset,
    load_dataset,
)
from flax_mnist.data.idx import MAX_BYTES, read_idx
from flax_mnist.errors import DataError, FlaxMnistWarning, RequestError
from tests.helpers.odd_files import forbidden, link_to_itself

POSIX = pytest.mark.skipif(sys.platform == "win32", reason="Windows has no such devices")
IMAGES, LABELS = "train-images-idx3-ubyte.gz", "train-labels-idx1-ubyte.gz"


def header(*shape: int, zeros: int = 0, kind: int = 8, ndim: int | None = None) -> bytes:
    dimensions = len(shape) if ndim is None else ndim
    return struct.pack(f">HBB{len(shape)}I", zeros, kind, dimensions, *shape)


# ---- What is read ---------------------------------------------------------------------------


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


def test_the_names_of_digits_are_those_of_tensorflow_datasets():
    builder = _builder("mnist", None)
    assert tuple(builder.info.features["label"].names) == DIGITS


def test_synthetic_is_the_size_of_mnist():
    dataset = load_dataset("synthetic")
    assert (dataset.name, dataset.class_names) == ("synthetic", DIGITS)
    assert dataset.train.images.shape == (60_000, 28, 28)
    assert dataset.test.labels.shape == (10_000,)
    assert dataset.test.labels.dtype == np.int32


def flip(content: bytes) -> bytes:
    middle = len(content) // 2
    return content[:middle] + bytes([content[middle] ^ 1]) + content[middle + 1 :]


# ---- What is refused ------------------------------------------------------------------------


def damage(idx_dir: Path, name: str, content: bytes) -> Path:
    (idx_dir / name).write_bytes(content)
    return idx_dir


@pytest.mark.parametrize(
    ("name", "change", "says"),
    [
        pytest.param(IMAGES, lambda z: z[:-2000], "damaged gzip", id="truncated gzip"),
        pytest.param(IMAGES, lambda z: flip(gzip.compress(gzip.decompress(z), 0)),
                     "damaged gzip .*incorrect data check", id="flipped byte"),
        pytest.param(IMAGES, lambda z: b"", "damaged gzip", id="empty file"),
        pytest.param(IMAGES, lambda z: b"<html>404</html>", "damaged gzip", id="not gzip"),
        pytest.param(IMAGES, lambda z: z + b"junk", "more after its end", id="junk after it"),
        pytest.param(IMAGES, lambda z: z + bytes(512), "more after its end", id="zeros after it"),
        pytest.param(IMAGES, lambda z: z + gzip.compress(b""), "more after its end",
                     id="another member after it"),
    ],
)  # fmt: skip
def test_damaged_gzip(idx_dir, name, change, says):
    damage(idx_dir, name, change((idx_dir / name).read_bytes()))
    with pytest.raises(DataError, match=says) as error:
        load_dataset("mnist", idx_dir)
    assert name in str(error.value)


@pytest.mark.parametrize(
    ("name", "content", "says"),
    [
        pytest.param(IMAGES, header(1, 28, 28, zeros=7) + bytes(784), "not an IDX", id="magic"),
        pytest.param(IMAGES, header(1, 28, 28, kind=9) + bytes(784), "type 0x09", id="dtype"),
        pytest.param(IMAGES, header(28, 28, 1, ndim=2) + bytes(784), "2 dimensions", id="ndim"),
        pytest.param(IMAGES, header(1000, 14, 56) + bytes(784_000), "14x56", id="image size"),
        pytest.param(IMAGES, header(0, 28, 28), "promises", id="empty set"),
        pytest.param(IMAGES, header(2**32 - 1, 2**32 - 1, 2**32 - 1), "promises", id="overflow"),
        pytest.param(IMAGES, header(1000, 28, 28) + bytes(784_001), "holds more", id="trailing"),
        pytest.param(IMAGES, header(1000, 28, 28) + bytes(783_999), "holds 783,999", id="short"),
        pytest.param(IMAGES, header(1000, 28), "ends within its header", id="half a header"),
        pytest.param(LABELS, header(999) + bytes(999), "999 labels for the 1,000", id="count"),
        pytest.param(LABELS, header(1000) + bytes(999) + b"\n", "label 10 at 999", id="label 10"),
    ],
)
@pytest.mark.parametrize("gzipped", [True, False])
def test_wrong_content(idx_dir, name, content, says, gzipped):
    if gzipped:
        damage(idx_dir, name, gzip.compress(content))
    else:
        (idx_dir / name).unlink()
        name = name.removesuffix(".gz")
        damage(idx_dir, name, content)
    with pytest.raises(DataError, match=says) as error:
        load_dataset("mnist", idx_dir)
    assert name in str(error.value)


def test_a_gzip_bomb_costs_no_more_than_an_honest_file(tmp_path, monkeypatch):
    path = tmp_path / "bomb.gz"
    with gzip.open(path, "wb", compresslevel=1) as file:
        file.write(header(10))
        for _ in range(64):
            file.write(bytes(2**20))
    unpacked = []

    class Counting:
        def __init__(self, **how):
            self.real = zlib.decompressobj(**how)

        def __getattr__(self, name):
            return getattr(self.real, name)

        def decompress(self, packed, size):
            unpacked.append(self.real.decompress(packed, size))
            return unpacked[-1]

    monkeypatch.setattr(
        idx, "zlib", types.SimpleNamespace(**vars(zlib) | {"decompressobj": Counting})
    )
    with pytest.raises(DataError, match="holds more"):
        read_idx(path, ndim=1)
    assert sum(map(len, unpacked)) == 8 + 10 + 1


def test_gzip_is_checked_to_its_very_end(tmp_path, monkeypatch):
    path, packed = tmp_path / "labels.gz", gzip.compress(header(100) + bytes(range(100)))
    for piece in (1, 7, len(packed)):  # what follows may begin a piece of its own
        monkeypatch.setattr(idx, "_PIECE", piece)
        path.write_bytes(packed)
        assert read_idx(path, ndim=1).tolist() == list(range(100))
        path.write_bytes(packed + b"\0")
        with pytest.raises(DataError, match="more after its end"):
            read_idx(path, ndim=1)


@pytest.mark.parametrize("name", ["plain", "packed.gz"])
def test_a_promise_takes_no_memory(tmp_path, name):
    content = header(MAX_BYTES) + bytes(1000)
    path = tmp_path / name
    path.write_bytes(gzip.compress(content) if name.endswith(".gz") else content)
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="holds 1,000"):
            read_idx(path, ndim=1)
        assert tracemalloc.get_traced_memory()[1] < 10 * 2**20
    finally:
        tracemalloc.stop()


def test_a_header_may_not_promise_more_than_any_such_set_has(tmp_path):
    path = tmp_path / "huge"
    path.write_bytes(header(MAX_BYTES + 1))
    with pytest.raises(DataError, match="which no such set has"):
        read_idx(path, ndim=1)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (Path.mkdir, "is no ordinary file"),
        (link_to_itself, "cannot be read .*symbolic links"),
        (lambda path: path.symlink_to("nowhere"), "cannot be read .*No such file"),
    ],
    ids=["folder", "link to itself", "link to nowhere"],
)
def test_what_stands_in_a_files_place(idx_dir, make, says):
    (idx_dir / LABELS).unlink()
    make(idx_dir / LABELS)
    with pytest.raises(DataError, match=f"{LABELS}: {says}"):
        load_dataset("mnist", idx_dir)


@POSIX
def test_a_device_is_not_read():
    with pytest.raises(DataError, match="/dev/zero: is no ordinary file"):
        read_idx(Path("/dev/zero"), ndim=1)


def test_a_file_that_may_not_be_read_is_named(digits):
    content = gzip.compress(header(1) + b"7")
    denied = pytest.raises(DataError, match=f"{LABELS}: cannot be read .Permission denied")
    with forbidden(LABELS, content) as path, denied:
        read_idx(path, ndim=1)


def test_a_missing_file_is_named(idx_dir):
    (idx_dir / LABELS).unlink()
    with pytest.raises(RequestError, match="missing: train-labels-idx1-ubyte"):
        load_dataset("mnist", idx_dir)


@pytest.mark.parametrize(
    ("name", "reason"),
    [
        ("absent", "No such file"),
        ("file", "Not a directory"),
        ("loop", "symbolic links"),
        ("x" * 300, "name too long"),
        ("~nobody-of-this-name/data", "No such file"),
        ("not mine", "Permission denied"),
    ],
)
def test_a_data_dir_must_be_a_folder(tmp_path, name, reason):
    (tmp_path / "file").write_text("")
    link_to_itself(tmp_path / "loop")
    (tmp_path / "not mine").mkdir(mode=0)
    folder = name if name.startswith("~") else tmp_path / name
    someone_else = forbidden("file", b"") if name == "not mine" else contextlib.nullcontext()
    says = f"is no folder to read .*{reason}.*--data-dir"
    with someone_else, pytest.raises(RequestError, match=says):
        load_dataset("auto", folder)


# ---- Files of another dataset ---------------------------------------------------------------


def test_the_sums_are_those_that_tensorflow_datasets_registers():
    for name, known in LABEL_SUMS.items():
        registered = [
            info.checksum
            for url, info in _builder(name, None).url_infos.items()
            if url.endswith("train-labels-idx1-ubyte.gz")
        ]
        assert registered == [known]
    assert set(LABEL_SUMS) == set(DatasetName.__args__) - {"auto", "synthetic"}


@pytest.mark.parametrize("name", ["auto", "mnist", "kmnist"])
def test_the_files_of_another_dataset_are_refused(idx_dir, monkeypatch, name):
    content = (idx_dir / LABELS).read_bytes()
    monkeypatch.setitem(LABEL_SUMS, "fashion_mnist", hashlib.sha256(content).hexdigest())
    with pytest.raises(
        RequestError, match=r"is of fashion_mnist, not k?mnist\. Give --dataset fash"
    ):
        load_dataset(name, idx_dir)
    assert load_dataset("fashion_mnist", idx_dir).name == "fashion_mnist"


def test_mnists_files_are_not_believed_to_be_fashion(mnist_dir):
    with pytest.raises(RequestError, match="is of mnist, not fashion_mnist"):
        load_dataset("fashion_mnist", mnist_dir)


# ---- Without MNIST, without its network ------------------------------------------------------


@pytest.fixture
def _no_network(monkeypatch):
    """Every connection is refused: the proxy that the variables name is not there."""
    for variable in ("http_proxy", "https_proxy", "HTTP_PROXY", "HTTPS_PROXY"):
        monkeypatch.setenv(variable, "http://127.0.0.1:9")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)


@pytest.mark.usefixtures("_no_network")
def test_auto_falls_back_with_a_warning():
    with pytest.warns(FlaxMnistWarning, match="NOT MNIST"):
        dataset = load_dataset("auto")
    assert dataset.name == "synthetic"


@pytest.mark.usefixtures("_no_network")
@pytest.mark.parametrize("name", ["mnist", "fashion_mnist", "kmnist"])
def test_a_named_dataset_never_falls_back(name):
    with pytest.raises(DownloadError, match=rf"{name} is not on disk .*--data-dir"):
        load_dataset(name)


@pytest.mark.usefixtures("_no_network")
def test_auto_with_a_named_folder_never_falls_back(tmp_path):
    with pytest.raises(DownloadError, match="mnist is not on disk"):
        load_dataset("auto", tmp_path)


@pytest.mark.parametrize(
    "proxy", ["http://", "http://[::1", "socks9://x", "http://a..b", "http://ü..x"]
)
def test_a_proxy_that_is_none_is_no_network(monkeypatch, proxy):
    for variable in ("http_proxy", "HTTP_PROXY", "no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    monkeypatch.setenv("http_proxy", proxy)
    assert _unreachable("http://127.0.0.1:9/").startswith("no network (")


def test_a_server_that_does_not_answer_is_given_up(monkeypatch):
    answer = threading.Event()

    class Silent(http.server.BaseHTTPRequestHandler):
        def do_HEAD(self):
            answer.wait(20)

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Silent)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    monkeypatch.setattr(data, "NETWORK_TIMEOUT", 0.2)
    try:
        problem = _unreachable(f"http://127.0.0.1:{server.server_port}/")
    finally:
        answer.set()
        server.shutdown()
        server.server_close()
    assert problem == "no answer within 0.2 s"


def test_a_name_server_that_does_not_answer_is_given_up(monkeypatch):
    never, answered = threading.Event(), []

    def head(*_: object, **__: object) -> None:  # heeds no time-out, as getaddrinfo does not
        never.wait(20)
        answered.append(True)
        raise requests.ConnectionError

    monkeypatch.setattr(requests, "head", head)
    monkeypatch.setattr(data, "NETWORK_TIMEOUT", 0.2)
    assert _unreachable("http://nowhere/") == "no answer within 0.2 s"
    assert not answered
    never.set()


# ---- tensorflow-datasets ---------------------------------------------------------------------


class Mirror(http.server.BaseHTTPRequestHandler):
    """A proxy that answers every request with the file of that name in `folder`."""

    folder: Path
    requests: list[str]

    def _file(self) -> bytes:
        self.requests.append(f"{self.command} {self.path}")
        content = (self.folder / self.path.rsplit("/", 1)[-1]).read_bytes()
        self.send_response(200)
        self.send_header("Content-Length", str(len(content)))
        self.end_headers()
        return content

    def do_HEAD(self) -> None:
        self._file()

    def do_GET(self) -> None:
        self.wfile.write(self._file())

    def log_message(self, *_: object) -> None:
        pass


@pytest.fixture
def mirror(idx_dir, monkeypatch):
    """KMNIST's server (plain http) as seen through a proxy, serving the small set."""
    handler = type("Handler", (Mirror,), {"folder": idx_dir, "requests": []})
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    for variable in ("http_proxy", "HTTP_PROXY"):
        monkeypatch.setenv(variable, f"http://127.0.0.1:{server.server_port}")
    for variable in ("no_proxy", "NO_PROXY"):
        monkeypatch.delenv(variable, raising=False)
    yield handler
    server.shutdown()
    server.server_close()


def expect_the_small_set(monkeypatch, idx_dir):
    """Puts the small set's sizes and sums in the place of those registered for KMNIST."""
    from tensorflow_datasets.core.download import checksums

    original = _builder

    def builder(name, data_dir):
        made = original(name, data_dir)
        for url, info in made.url_infos.items():
            content = (idx_dir / url.rsplit("/", 1)[-1]).read_bytes()
            small = checksums.UrlInfo(
                len(content), hashlib.sha256(content).hexdigest(), info.filename
            )
            monkeypatch.setitem(made.url_infos, url, small)
        return made

    monkeypatch.setattr(data, "_builder", builder)


def test_downloads_through_a_proxy_verifies_and_caches(
    mirror, idx_dir, tmp_path, monkeypatch, digits
):
    expect_the_small_set(monkeypatch, idx_dir)
    place = tmp_path / "tfds"
    place.mkdir()
    dataset = load_dataset("kmnist", place)
    assert dataset.name == "kmnist"
    assert dataset.class_names == ("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo")
    np.testing.assert_array_equal(dataset.train.images, digits["train_images"])
    assert sum(request.startswith("GET") for request in mirror.requests) == 4

    mirror.requests.clear()
    np.testing.assert_array_equal(load_dataset("kmnist", place).test.images, dataset.test.images)
    assert mirror.requests == []  # from the cache, without a look at the network


def test_a_server_that_sends_nothing_is_given_up_after_a_few_attempts(
    mirror, tmp_path, monkeypatch
):
    asked = []

    def fail(request):
        asked.append(request.path)
        request.send_error(503)

    monkeypatch.setattr(mirror, "do_GET", fail)
    with pytest.raises(DownloadError, match="download of kmnist failed"):
        load_dataset("kmnist", tmp_path)
    assert max(collections.Counter(asked).values()) == ATTEMPTS


def test_a_download_with_a_wrong_sum_is_refused(mirror, tmp_path):
    place = tmp_path / "tfds"
    place.mkdir()
    with pytest.raises(DownloadError, match="download of kmnist failed"):
        load_dataset("kmnist", place)
    assert mirror.requests


def prepare(folder: Path, examples: dict[str, list[tuple[np.ndarray, int]]]) -> None:
    """Has tensorflow-datasets write them as what it takes for MNIST, in array_record."""
    pytest.importorskip("array_record", reason="array_record has no build for this platform")
    import tensorflow_datasets as tfds

    def png(image: np.ndarray) -> io.BytesIO:
        file = io.BytesIO()
        Image.fromarray(image).save(file, "png")
        file.seek(0)
        return file

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


def test_reads_what_tensorflow_datasets_has_prepared(tmp_path, digits, monkeypatch):
    prepare(tmp_path, {split: pairs(digits, split) for split in ("train", "test")})
    monkeypatch.setattr(data, "_unreachable", lambda url: pytest.fail("looked at the network"))
    dataset = load_dataset("mnist", tmp_path)
    assert dataset.train.images.shape == (50, 28, 28)
    assert find_dataset("mnist") is None  # the default folder has none
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


def test_a_dataset_that_needs_tensorflow_is_no_obstacle(mirror, idx_dir, tmp_path, monkeypatch):
    import tensorflow_datasets as tfds

    # What TensorFlow's users have: KMNIST prepared as TFRecord.
    made = tfds.builder("kmnist", data_dir=tmp_path / "tfds")
    made.info.set_file_format("tfrecord")
    made.data_path.mkdir(parents=True)
    made.info.write_to_directory(made.data_path)
    (made.data_path / "kmnist-train.tfrecord-00000-of-00001").write_bytes(b"")

    expect_the_small_set(monkeypatch, idx_dir)
    dataset = load_dataset("kmnist", tmp_path / "tfds")
    assert dataset.train.images.shape == (1000, 28, 28)
