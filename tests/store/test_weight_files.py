"""Files of weights that are not what they say: each is refused and named."""

from __future__ import annotations

import json

import pytest

from flax_mnist import Config, init_state
from flax_mnist.config import MAX_WEIGHTS
from flax_mnist.errors import DataError, RequestError
from flax_mnist.store import weights as interop
from flax_mnist.store.weights import MAX_BYTES, load_weights, save_weights
from tests.helpers.odd_files import forbidden, link_to_itself


def test_what_is_no_file(tmp_path):
    for name, says in (
        ("absent.pt", "there is no such file"),
        (link_to_itself(tmp_path / "loop.pt").name, "there is no such file"),
        ("x" * 300, "there is no such file"),
        ("", "is no ordinary file"),
    ):
        with pytest.raises(RequestError, match=f"{tmp_path / name}: {says}"):
            load_weights(tmp_path / name)


def test_a_file_that_may_not_be_read_is_named(tmp_path):
    save_weights(tmp_path / "warm", init_state(Config()).params)
    load_weights(tmp_path / "warm")  # nobody may not import safetensors
    denied = pytest.raises(DataError, match=r"weights: cannot be read .Permission denied")
    with forbidden("weights", b"") as path, denied:
        load_weights(path)


@pytest.mark.parametrize("name", ["weights.safetensors", "weights.pt"])
def test_what_is_larger_than_any_network_is_not_read(tmp_path, monkeypatch, name):
    assert MAX_BYTES > 8 * MAX_WEIGHTS  # of float64
    monkeypatch.setattr(interop, "MAX_BYTES", 1000)
    (tmp_path / name).write_bytes(bytes(1000))
    with pytest.raises(DataError, match=r"as (safetensors|torch\.save)"):  # for what it holds
        load_weights(tmp_path / name)
    (tmp_path / name).write_bytes(bytes(1001))
    with pytest.raises(DataError, match="larger than the weights of any network"):
        load_weights(tmp_path / name)


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 8 + b"{}", b"\x02\0\0\0\0\0\0\0{}"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_junk_is_refused_and_named(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"weights{suffix}: "):
        load_weights(path)


def entry(dtype: str, shape: list[int], begin: int, end: int) -> dict[str, object]:
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    "header",
    [
        {"0.weight": entry("F32", [10, 784], 0, 31_360)},
        {"0.weight": entry("F32", [10, 784], 0, 31_360), "0.bias": entry("F32", [10], 0, 40)},
        {"0.weight": entry("F32", [10, 784], 0, 31_360),
         "0.bias": entry("F32", [20], 31_360, 31_400)},
        {"0.weight": entry("F32", [10, 784], 0, 31_360),
         "0.bias": entry("F32", [10], 2**63, 2**63 + 40)},
        {"0.weight": entry("F32", [2**32, 2**32], 0, 31_360),
         "0.bias": entry("F32", [10], 31_360, 31_400)},
        {"0.weight": entry("F99", [10, 784], 0, 31_360),
         "0.bias": entry("F32", [10], 31_360, 31_400)},
        {"0.weight": entry("F32", [10, 784], 40, 31_400), "0.bias": entry("F32", [10], 40, 0)},
    ],
    ids=["less than there is", "overlap", "shape", "beyond", "overflow", "dtype", "backwards"],
)  # fmt: skip
def test_a_lying_safetensors_header_is_refused(tmp_path, header):
    text, path = json.dumps(header).encode(), tmp_path / "weights.safetensors"
    path.write_bytes(len(text).to_bytes(8, "little") + text + bytes(31_400))
    with pytest.raises(DataError, match=r"weights.safetensors: cannot be read as safetensors"):
        load_weights(path)
