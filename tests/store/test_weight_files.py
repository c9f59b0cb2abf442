"""Files of weights that are not what they say: each is refused and named."""

from __future__ import annotations

import io
import json
import pickle
import sys
import zipfile

import pytest
import torch

from benchmarks.equivalence.torch_reference import build_model
from flax_mnist import Config, init_state
from flax_mnist.config import MAX_WEIGHTS
from flax_mnist.errors import DataError, RequestError
from flax_mnist.store import weights as interop
from flax_mnist.store.weights import MAX_BYTES, MAX_PICKLE, load_weights, save_weights
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


class Bomb:
    """A pickle of it would make a file when loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("torch.save", r"refused by PyTorch's safe reader: .*state_dict\(\)"),
        ("zip by hand", r"refused by PyTorch's safe reader: .*state_dict\(\)"),
        ("bare pickle", r"not as torch.save has written .*state_dict\(\)"),
    ],
)
def test_a_pickle_that_would_run_code_does_not_run_it(tmp_path, form, says):
    mark, path = tmp_path / "ran", tmp_path / "weights.pt"
    content = {"0.weight": torch.zeros(10, 784), "0.bias": Bomb(str(mark))}
    if form == "torch.save":
        torch.save(content, path)
    elif form == "bare pickle":
        path.write_bytes(pickle.dumps(Bomb(str(mark))))
    else:
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Bomb(str(mark)), protocol=2))
            archive.writestr("archive/version", "3")
    with pytest.raises(DataError, match=says):
        load_weights(path)
    assert not mark.exists()

    pickle.loads(pickle.dumps(Bomb(str(mark)))).close()  # the bomb itself is live
    assert mark.exists()


def saved(**how: object) -> bytes:
    file = io.BytesIO()
    torch.save(build_model().state_dict(), file, **how)
    return file.getvalue()


def zipped_again(compression: int, padding: bytes) -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(io.BytesIO(saved())) as old, zipfile.ZipFile(file, "w") as new:
        for name in old.namelist():
            content = old.read(name) + padding * name.endswith(".pkl")
            new.writestr(name, content, compression)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        zipped_again(zipfile.ZIP_DEFLATED, b""),
        zipped_again(zipfile.ZIP_STORED, bytes(MAX_PICKLE)),
        b"PK\3\4" + bytes(100),
        saved(_use_new_zipfile_serialization=False),
        pickle.dumps({}) + saved(),
    ],
    ids=["compressed", "long pickle", "no zip", "before 1.6", "zip behind a pickle"],
)
def test_what_torch_save_does_not_write_is_not_shown_to_pytorch(tmp_path, monkeypatch, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(zipped_again(zipfile.ZIP_STORED, b""))
    load_weights(path)
    path.write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("PyTorch saw it"))
    with pytest.raises(DataError, match=r"not as torch.save has written files since 1\.6"):
        load_weights(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.zeros(1)], "is not a state dict"),
        ({"0.weight": 1.0}, "is not a state dict"),
        (
            {"0.weight": torch.zeros(10, 784, dtype=torch.bfloat16)},
            "not all of its tensors are float",
        ),
        ({"0.weight": torch.zeros(10, 784).to_sparse()}, "not all of its tensors are dense"),
        ({"0.weight": torch.zeros(10, 784, device="meta")}, "not all of its tensors are dense"),
    ],
)
def test_other_contents_of_a_pt_file(tmp_path, content, says):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=says):
        load_weights(tmp_path / "weights.pt")


def test_a_pt_file_where_there_is_no_pytorch(tmp_path, monkeypatch):
    (tmp_path / "weights.pt").write_bytes(saved())
    monkeypatch.setitem(sys.modules, "torch", None)
    with pytest.raises(RequestError, match=r"weights\.pt: reading it needs PyTorch"):
        load_weights(tmp_path / "weights.pt")


def test_a_whole_model_in_a_pt_file_is_refused_with_a_remedy(tmp_path):
    torch.save(build_model(), tmp_path / "model.pt")
    with pytest.raises(DataError, match=r"torch.save\(model.state_dict\(\), FILE\)"):
        load_weights(tmp_path / "model.pt")
