"""JSON that nobody wrote by hand: settings, and what stands before numbers."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from flax_mnist.config import DatasetName
from flax_mnist.errors import DataError
from flax_mnist.store.checkpoint import read_checkpoint
from flax_mnist.store.record import read_config
from flax_mnist.store.weights import load_weights
from tests.fuzz.examples import answer, changed, mostly, repeatable
from tests.fuzz.readers import READERS
from tests.helpers.checkpoints import arrays_in, put_together, seal, take_apart


@repeatable
@given(st.data())
def test_a_lying_safetensors_header_is_refused_or_tells_what_is_there(folder, data):
    whole = READERS["safetensors"].seeds()[0]
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


@repeatable
@given(st.data())
def test_a_config_is_a_record_of_the_right_types_or_damaged(folder, data):
    content = changed(data.draw, json.loads(READERS["config.json"].seeds()[0]))
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
    content = json.loads(READERS["config.json"].seeds()[0])
    content[part][key] = value
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"config.json: damaged"):
        read_config(folder)


def test_a_config_with_a_setting_that_is_unknown_is_a_newer_versions(folder):
    content = json.loads(READERS["config.json"].seeds()[0])
    content["config"]["unknown"] = 1
    (folder / "config.json").write_text(json.dumps(content))
    with pytest.raises(DataError, match=r"config.json: a newer flax-mnist wrote it .*'unknown'"):
        read_config(folder)


@repeatable
@given(st.data())
def test_a_checkpoint_is_what_its_header_says_or_damaged(folder, data):
    header, rest = take_apart(READERS["checkpoint"].seeds()[0])
    content = put_together(changed(data.draw, header), rest)
    path = folder / "2.safetensors"
    path.write_bytes(content)
    found = answer(read_checkpoint, path)
    if found is not None:
        # Read by hand: what was accepted is what stands there.
        said = take_apart(content)[0]["__metadata__"]
        assert seal(content) == content
        assert [int(said["epoch"]), int(said["step"])] == [found.epoch, found.step]
        assert (float(said["seconds"]), json.loads(said["run"])) == (found.seconds, found.run)
        there = arrays_in(content)
        assert found.arrays.keys() == there.keys()
        for name, array in found.arrays.items():
            assert (array.dtype, array.shape) == (there[name].dtype, there[name].shape)
            assert array.tobytes() == there[name].tobytes()
    bit = data.draw(st.integers(0, 8 * len(content) - 1))
    flipped = bytearray(content)
    flipped[bit // 8] ^= 1 << bit % 8
    path.write_bytes(flipped)
    assert answer(read_checkpoint, path) is None
