"""Files of PyTorch's that hold what they should not: none is run, each is refused and named."""

from __future__ import annotations

import copy
import io
import pickle
import sys
import zipfile

import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.equivalence.torch_reference import build_model
from flax_mnist.errors import DataError, RequestError
from flax_mnist.store.torch_files import MAX_PICKLE
from flax_mnist.store.weights import load_weights


class Bomb:
    """A pickle of it would make a file when loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


#: Where the state of a layer that is taken can hide one.
PLACES = {
    "attribute": lambda layer, bomb: setattr(layer, "note", bomb),
    "method": lambda layer, bomb: setattr(layer, "forward", bomb),
    "hook": lambda layer, bomb: vars(layer)["_forward_hooks"].update({0: bomb}),
    "bias": lambda layer, bomb: vars(layer)["_parameters"].update(bias=bomb),
    "inner layer": lambda layer, bomb: vars(layer)["_modules"].update(inner=bomb),
    "setting": lambda layer, bomb: setattr(layer, "in_features", [[bomb]]),
}


@pytest.mark.parametrize(
    ("form", "says"),
    [
        ("torch.save", r"of which nothing is run: io\.open\. .*state_dict\(\)"),
        ("before 1.6", r"of which nothing is run: io\.open\. .*state_dict\(\)"),
        ("before 1.6, aside", r"of which nothing is run: io\.open\. .*state_dict\(\)"),
        ("zip by hand", r"of which nothing is run: io\.open\. .*state_dict\(\)"),
        ("newer protocol", r"refused by PyTorch's safe reader: .*state_dict\(\)"),
        ("bare pickle", r"a pickle that torch\.save did not write, .*state_dict\(\)"),
        ("array", r"cannot be read as \.npz"),
        *((f"{place} of a layer", r"of which nothing is run: io\.open\.") for place in PLACES),
    ],
)
def test_a_pickle_that_would_run_code_does_not_run_it(tmp_path, form, says):
    mark, path = tmp_path / "ran", tmp_path / "weights.pt"
    content = {"0.weight": torch.zeros(10, 784), "0.bias": Bomb(str(mark))}
    if form in ("torch.save", "before 1.6"):
        torch.save(content, path, _use_new_zipfile_serialization=form == "torch.save")
    elif form == "before 1.6, aside":  # in the pickle that tells of the machine
        torch.save({}, path, _use_new_zipfile_serialization=False)
        first, protocol, _, *rest = path.read_bytes().split(b"\x80\x02")[1:]
        bomb = pickle.dumps(Bomb(str(mark)), 2)[2:]
        path.write_bytes(b"".join(b"\x80\x02" + p for p in (first, protocol, bomb, *rest)))
    elif form == "bare pickle":
        path.write_bytes(pickle.dumps(Bomb(str(mark))))
    elif form == "array":
        with path.open("wb") as file:
            np.savez(file, **{"0.weight": np.array([Bomb(str(mark))])})
    elif form.endswith(" of a layer"):
        model = build_model()
        PLACES[form.removesuffix(" of a layer")](model[2], Bomb(str(mark)))
        torch.save(model, path)
    else:
        protocol = 4 if form == "newer protocol" else 2
        with zipfile.ZipFile(path, "w") as archive:
            archive.writestr("archive/data.pkl", pickle.dumps(Bomb(str(mark)), protocol))
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


def lying_over_each_other() -> bytes:
    """A zip archive whose directory has its first numbers many times, as a zip bomb has."""
    content, file = saved(), io.BytesIO()
    file.write(content)
    with zipfile.ZipFile(file, "a") as archive:
        numbers = next(info for info in archive.infolist() if info.filename.endswith("data/0"))
        for i in range(5):
            twin = copy.copy(numbers)
            twin.filename = f"archive/data/{100 + i}"
            archive.filelist.append(twin)
        archive.writestr("archive/last", b"")  # so that the directory is written
    return file.getvalue()


def long_before_1_6() -> bytes:
    file = io.BytesIO()
    content = {"note": "x" * MAX_PICKLE, "state_dict": build_model().state_dict()}
    torch.save(content, file, _use_new_zipfile_serialization=False)
    return file.getvalue()


@pytest.mark.parametrize(
    "content",
    [
        zipped_again(zipfile.ZIP_DEFLATED, b""),
        zipped_again(zipfile.ZIP_STORED, bytes(MAX_PICKLE)),
        lying_over_each_other(),
        b"PK\3\4" + bytes(100),
        pickle.dumps({}) + saved(),
        saved(_use_new_zipfile_serialization=False)[:200],
        long_before_1_6(),
    ],
    ids=[
        "compressed", "long pickle", "one number for many", "no zip", "zip behind a pickle",
        "before 1.6, cut off", "before 1.6, long pickle",
    ],
)  # fmt: skip
def test_what_torch_save_does_not_write_is_not_shown_to_pytorch(tmp_path, monkeypatch, content):
    path = tmp_path / "weights.pt"
    path.write_bytes(zipped_again(zipfile.ZIP_STORED, b""))
    load_weights(path)
    path.write_bytes(content)
    monkeypatch.setattr(torch, "load", lambda *_, **__: pytest.fail("PyTorch saw it"))
    with pytest.raises(DataError, match=r"not as torch\.save writes|torch\.save did not write"):
        load_weights(path)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.zeros(1)], "is not a state dict"),
        ({"0.weight": 1.0}, "is not a state dict"),
        (
            {"0.weight": torch.zeros(10, 784, dtype=torch.int8), "0.bias": torch.zeros(10)},
            "dtypes are float32, int8, not all",
        ),
        ({"0.weight": torch.zeros(10, 784).to_sparse()}, "plain tensors.*_rebuild_sparse_tensor"),
        ({"0.weight": torch.zeros(10, 784, device="meta")}, "plain tensors.*_rebuild_meta_tensor"),
        ({"a": build_model().state_dict(), "b": build_model()}, "several state dicts, a, b"),
        ({"a": {"b": build_model().state_dict()}}, "is not a state dict"),
        ({}, "is not a state dict"),
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
