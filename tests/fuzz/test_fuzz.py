"""Files that nobody wrote by hand: readers answer rightly, or raise the project's own errors."""

from __future__ import annotations

import copy
import gzip
import hashlib
import io
import itertools
import json
import math
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from flax_mnist.config import DatasetName
from flax_mnist.data.idx import read_idx
from flax_mnist.data.pictures import read_image
from flax_mnist.errors import DataError, FlaxMnistError
from flax_mnist.store.checkpoint import read_manifest
from flax_mnist.store.record import read_config
from flax_mnist.store.weights import load_weights
from tests.fuzz import __main__ as fuzz
from tests.helpers.odd_files import pipe

# The same examples every time: what fails for one fails for all.
repeatable = settings(derandomize=True, database=None, deadline=None, max_examples=100)


def answer(read, path: Path):
    """What is read; None where it is refused, with an error of ours that names the file."""
    try:
        return read(path)
    except FlaxMnistError as error:
        said = str(error)
    assert str(path) in said
    return None


@pytest.fixture(scope="module")
def folder(tmp_path_factory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


# ---- Any bytes ------------------------------------------------------------------------------


@pytest.mark.parametrize("name", fuzz.READERS)
def test_no_reader_raises_what_is_not_ours(name, folder):
    reader = fuzz.READERS[name]
    outcomes = {
        fuzz.attempt(reader, content, folder)
        for content in itertools.islice(fuzz.contents(reader, seed=1), 500)
    }
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("name", ["safetensors", "config.json", "metrics.jsonl", "manifest.json"])
def test_what_is_nested_too_deeply_is_damage(name, folder):
    reader, nested = fuzz.READERS[name], b'{"epoch": ' * 100_000
    for content in (nested, nested + b"\n", len(nested).to_bytes(8, "little") + nested):
        (folder / reader.file).write_bytes(reader.mend(content))
        with pytest.raises(DataError, match=str(folder)):
            reader.read(folder / reader.file)


@pytest.mark.parametrize("name", fuzz.READERS)
def test_a_pipe_is_not_waited_for(name, tmp_path):
    reader = fuzz.READERS[name]
    with pipe(tmp_path / reader.file), pytest.raises(FlaxMnistError, match="no ordinary file"):
        reader.read(tmp_path / reader.file)


def test_the_same_seed_damages_the_same():
    for reader in fuzz.READERS.values():
        first, again, other = (
            list(itertools.islice(fuzz.contents(reader, seed), 20)) for seed in (1, 1, 2)
        )
        assert first == again != other


def test_what_is_found_is_kept(tmp_path, monkeypatch, capsys):
    def careless(path):
        if path.read_bytes() != b"abc":
            raise KeyError("abc")

    reader = fuzz.Reader("file", careless, lambda: [b"abc"])
    monkeypatch.setattr(fuzz, "READERS", {"careless": reader})
    arguments = ["--seconds", "0.2", "--readers", "careless", "--output", str(tmp_path)]
    assert fuzz.main(arguments) == 1
    said = capsys.readouterr().out
    assert "KeyError: 'abc'" in said
    kept = next(tmp_path.iterdir())
    assert f"kept as {kept}" in said
    with pytest.raises(KeyError):
        careless(kept)

    monkeypatch.setitem(fuzz.READERS, "careless", reader._replace(read=Path.read_bytes))
    assert fuzz.main(arguments) == 0


# ---- IDX ------------------------------------------------------------------------------------

NUMBERS = (0, 1, 2, 3, 10, 2**16, 2**31, 2**32 - 1)


def mostly(usual, *others):
    return st.sampled_from([usual] * 12 + list(others))


@repeatable
@given(st.data())
def test_an_idx_file_is_read_if_it_is_one_and_refused_if_not(folder, data):
    draw = data.draw
    ndim = draw(st.sampled_from([1, 3]))
    shape = draw(st.lists(mostly(3, *NUMBERS), min_size=ndim, max_size=ndim))
    size = math.prod(shape)
    zeros, kind, stated = draw(mostly(0, 1)), draw(mostly(8, 0, 9, 13)), draw(mostly(ndim, 0, 2))
    lacking = draw(mostly(0, -1, 1, 7))
    content = bytes([0, zeros, kind, stated]) + np.array(shape, ">u4").tobytes()
    content += bytes(i % 251 for i in range(min(size, 1000) - lacking))
    cut = draw(mostly(len(content), 0, 3, 4, 7))
    good = 0 < size <= 1000 and (zeros, kind, stated, lacking) == (0, 8, ndim, 0)
    good = good and cut >= len(content)
    form = draw(st.sampled_from(["plain", "gzip", "padded", "two members", "cut", "flipped"]))
    packed = gzip.compress(content[:cut], mtime=0)
    flipped = draw(st.integers(8 * 10, 8 * len(packed) - 1))  # after the header, which says little
    written = {
        "plain": content[:cut],
        "gzip": packed,
        "padded": packed + bytes(draw(st.integers(1, 600))),
        "two members": packed + gzip.compress(b""),
        "cut": packed[: draw(st.integers(0, len(packed) - 1))],
        "flipped": (int.from_bytes(packed, "little") ^ 1 << flipped).to_bytes(
            len(packed), "little"
        ),
    }[form]
    path = folder / ("images" if form == "plain" else "images.gz")
    path.write_bytes(written)
    if good and form in ("plain", "gzip"):
        array = read_idx(path, ndim)
        assert array.shape == tuple(shape)
        assert array.tobytes() == content[4 + 4 * ndim :]
    else:
        with pytest.raises(DataError, match=str(path)):
            read_idx(path, ndim)


# ---- safetensors ----------------------------------------------------------------------------

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(max_size=5)
    | st.sampled_from(["F32", "F64", "I8", "0.weight", "4.bias", "mnist", "auto", 784, -1]),
    lambda inner: st.lists(inner, max_size=3)
    | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=4,
)  # fmt: skip


def changed(draw, tree):
    """The JSON tree with up to three of its nodes replaced, removed or renamed."""
    tree = copy.deepcopy(tree)
    for _ in range(draw(st.integers(0, 3))):
        node = tree
        while True:
            keys = list(node) if isinstance(node, dict) else list(range(len(node)))
            if not keys:
                break
            key = draw(st.sampled_from(keys))
            inner = node[key]
            if isinstance(inner, dict | list) and inner and draw(st.integers(0, 3)):
                node = inner
                continue
            match draw(st.sampled_from(["replace", "replace", "remove", "rename"])):
                case "remove":
                    del node[key]
                case "rename" if isinstance(node, dict):
                    node[draw(st.sampled_from(["0.weight", "x", "", "name"]))] = node.pop(key)
                case _:
                    node[key] = draw(JSON)
            break
    return tree


@repeatable
@given(st.data())
def test_a_lying_safetensors_header_is_refused_or_tells_what_is_there(folder, data):
    whole = fuzz.READERS["safetensors"].seeds()[0]
    length = int.from_bytes(whole[:8], "little")
    header = changed(data.draw, json.loads(whole[8 : 8 + length]))
    text = json.dumps(header).encode()
    stated = data.draw(mostly(len(text), 0, len(text) - 1, len(text) + 1, 2**63, 2**64 - 1))
    path = folder / "weights.safetensors"
    path.write_bytes(stated.to_bytes(8, "little") + text + whole[8 + length :])
    weights = answer(load_weights, path)
    # Read by hand: what was accepted is what stands there.
    for name, array in (weights or {}).items():
        begin, end = header[name]["data_offsets"]
        assert array.dtype == {"F32": np.float32, "F64": np.float64}[header[name]["dtype"]]
        assert list(array.shape) == header[name]["shape"]
        assert array.tobytes() == whole[8 + length :][begin:end]


# ---- JSON -----------------------------------------------------------------------------------


@repeatable
@given(st.data())
def test_a_config_is_a_record_of_the_right_types_or_damaged(folder, data):
    content = changed(data.draw, json.loads(fuzz.READERS["config.json"].seeds()[0]))
    (folder / "config.json").write_text(json.dumps(content))
    record = answer(read_config, folder)
    if record is None:
        return
    config = record.config
    assert all(type(n) is int for n in (config.epochs, config.batch_size, config.seed))
    assert all(type(n) is int for n in config.hidden_sizes)
    assert type(config.learning_rate) in (int, float)
    assert record.dataset in DatasetName.__args__
    assert type(record.source) is str
    assert record.data_dir is None or isinstance(record.data_dir, Path)
    assert len(record.class_names) == 10
    assert all(type(name) is str for name in record.class_names)


@pytest.mark.parametrize(
    ("part", "key", "value"),
    [
        ("config", "epochs", 1.5),
        ("config", "epochs", "5"),
        ("config", "hidden_sizes", [128.0]),
        ("config", "learning_rate", float("nan")),
        ("config", "unknown", 1),
        ("dataset", "name", "mnits"),
        ("dataset", "source", None),
        ("dataset", "data_dir", 5),
        ("dataset", "class_names", list("012345678")),
        ("dataset", "class_names", list(range(10))),
        ("checkpoints", "every", 1),
        ("checkpoints", "keep", "3"),
    ],
)
def test_a_config_with_a_value_of_no_sense_is_damaged(folder, part, key, value):
    content = json.loads(fuzz.READERS["config.json"].seeds()[0])
    content[part][key] = value
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"config.json: damaged"):
        read_config(folder)


@repeatable
@given(st.data())
def test_a_manifest_is_one_or_damaged(folder, data):
    content = changed(
        data.draw, json.loads(fuzz.READERS["manifest.json"].seeds()[0].splitlines()[0])
    )
    line = json.dumps(content).encode()
    seal = hashlib.sha256(line).hexdigest().encode() + b"\n"
    for ending, sealed in ((b"\n" + seal, True), (b"\n" + seal[::-1], False), (b"", False)):
        (folder / "manifest.json").write_bytes(line + ending)
        manifest = answer(read_manifest, folder / "manifest.json")
        assert sealed or manifest is None
        assert manifest is None or json.dumps(manifest._asdict(), sort_keys=True) == json.dumps(
            json.loads(line), sort_keys=True
        )


# ---- Pictures -------------------------------------------------------------------------------

FORMS = (
    ("PNG", ("1", "L", "LA", "P", "RGB", "RGBA", "I;16")), ("JPEG", ("L", "RGB", "CMYK")),
    ("GIF", ("1", "L", "P", "RGB")), ("BMP", ("1", "L", "P", "RGB")), ("PPM", ("1", "L", "RGB")),
    ("TIFF", ("1", "L", "LA", "P", "RGB", "RGBA", "CMYK", "LAB", "I;16", "I", "F")),
    ("WEBP", ("RGB", "RGBA")),
)  # fmt: skip


@repeatable
@given(
    form=st.sampled_from([(form, mode) for form, modes in FORMS for mode in modes]),
    size=st.tuples(mostly(28, 1, 2, 29, 300), mostly(28, 1, 2, 30, 300)),
    noise=st.sampled_from(["even", "noise", "blot"]),
    level=st.integers(0, 255),
    turned=st.integers(0, 9),
    invert=st.sampled_from(["auto", "yes", "no"]),
)
def test_any_picture_is_a_digit_or_none(folder, form, size, noise, level, turned, invert):
    pixels = np.full(size, level, np.uint8)
    if noise == "noise":
        pixels = np.random.default_rng(level).integers(0, 256, size).astype(np.uint8)
    elif noise == "blot":
        pixels[size[0] // 4 : 1 + size[0] // 2, size[1] // 4 : 1 + size[1] // 2] ^= 255
    kind, mode = form
    picture = {
        "I;16": lambda: Image.fromarray(pixels.astype(np.uint16) * 257),
        "I": lambda: Image.fromarray(pixels.astype(np.int32) * 8_000_000 - 2**30),
        "F": lambda: Image.fromarray(pixels.astype(np.float32) * np.float32(1e36)),
        "LAB": lambda: Image.merge("LAB", [Image.fromarray(pixels)] * 3),
    }.get(mode, lambda: Image.fromarray(pixels).convert(mode))()
    exif = Image.Exif()
    exif[0x0112] = turned
    options = {"exif": exif} if kind in ("PNG", "JPEG", "WEBP") else {}
    file = io.BytesIO()
    picture.save(file, kind, **options)
    (folder / "picture").write_bytes(file.getvalue())
    image = answer(lambda path: read_image(path, invert), folder / "picture")
    if image is not None:
        assert (image.shape, image.dtype) == ((28, 28), np.uint8)
    elif noise == "blot" and invert == "auto":
        assert mode == "LAB" or min(size) < 28 or abs(255 - 2 * level) < 40
