"""Whole models in files of PyTorch's: taken as the tutorial's network, or refused as another."""

from __future__ import annotations

import io
import zipfile

import pytest

pytest.importorskip("torch")

import torch
from torch import nn

from benchmarks.equivalence.torch_reference import build_model
from flax_mnist import Config, init_state
from flax_mnist.config import PIXELS
from flax_mnist.errors import DataError, FlaxMnistError
from flax_mnist.store.torch_files import read_torch, to_torch
from flax_mnist.store.weights import load_weights, to_torch_state_dict

LINEAR, RELU = (nn.Linear, nn.ReLU)
SQUARE = nn.Linear(PIXELS, PIXELS)


class Net(nn.Sequential):
    """A class of the user's own: what it computes stands in no file."""


def changed(where: int, **attributes: object) -> nn.Sequential:
    """The tutorial's network with other attributes of one layer."""
    model = build_model((6,))
    vars(model[where]).update(attributes)
    return model


def circle() -> nn.Sequential:
    model = build_model((6,))
    vars(model)["_modules"]["3"] = model
    return model


def network(*layers: nn.Module) -> nn.Sequential:
    return nn.Sequential(*layers)


@pytest.mark.parametrize(
    ("model", "says"),
    [
        (network(LINEAR(784, 6), nn.Tanh(), LINEAR(6, 10)), "its model has Tanh. A whole model is"),
        (network(LINEAR(784, 6), RELU(), LINEAR(6, 10), nn.Softmax(1)), "its model has Softmax"),
        (nn.DataParallel(build_model((6,))), r"data_parallel\.DataParallel\. Save it"),
        (Net(LINEAR(784, 6), RELU(), LINEAR(6, 10)), r"test_torch_files\.Net\. .*state_dict\(\)"),
        (network(LINEAR(784, 6), LINEAR(6, 10)), "its model is Linear, Linear, not Linear, ReLU"),
        (network(RELU(), LINEAR(784, 6), RELU(), LINEAR(6, 10)), "its model is ReLU, Linear"),
        (network(LINEAR(784, 6), RELU(), LINEAR(6, 10), RELU()), "Linear, ReLU, not"),
        (network(LINEAR(784, 6), nn.LogSoftmax(1), LINEAR(6, 10)), "Linear, LogSoftmax, Linear, n"),
        (network(nn.Dropout()), "its model is , not Linear"),
        (network(SQUARE, RELU(), SQUARE, RELU(), LINEAR(784, 10)), "layer '2' stands twice"),
        (circle(), "layer '3' stands twice"),
        (changed(0, _parameters={}), "0.weight is missing"),
        (changed(0, _parameters={"weight": 1.0, "bias": 1.0}), "not all of its weights are dense"),
        (changed(0, _parameters={"scale": SQUARE.bias}), "0.scale is not expected"),
        (changed(0, _buffers={"mean": SQUARE.bias}), r"layer '0' \(Linear\) has a '_buffers'"),
        (changed(1, _parameters={"weight": SQUARE.bias}), r"'1' \(ReLU\) has a '_parameters'"),
        (changed(1, _modules={"inner": SQUARE}), r"layer '1' \(ReLU\) has a '_modules' of its own"),
        (changed(2, forward=nn.ReLU), r"layer '2' \(Linear\) has a 'forward' of its own"),
        (changed(2, __call__=nn.ReLU), r"layer '2' \(Linear\) has a '__call__' of its own"),
        (changed(2, __setstate__=nn.ReLU), r"layer '2' \(Linear\) has a '__setstate__' of its own"),
        (changed(2, _forward_hooks={1: nn.ReLU}), "'_forward_hooks' of its own"),
        (changed(2, _forward_pre_hooks={1: nn.ReLU}), "'_forward_pre_hooks' of its own"),
        (changed(3, dim=0), r"layer '3' \(LogSoftmax\) has another dim than 1"),
        (changed(3, dim=SQUARE.bias), r"layer '3' \(LogSoftmax\) has another dim than 1"),
        (network(nn.Flatten(0), build_model((6,))), r"\(Flatten\) has another start_dim than 1"),
        (network(nn.Flatten(1, 1), build_model((6,))), r"\(Flatten\) has another end_dim than -1"),
    ],
)  # fmt: skip
def test_a_model_that_may_be_another_function_is_refused_and_named(tmp_path, model, says):
    torch.save(model, tmp_path / "w.pt")
    with pytest.raises(DataError, match=says) as refusal:
        load_weights(tmp_path / "w.pt")
    assert str(refusal.value).startswith(f"{tmp_path / 'w.pt'}: ")
    assert str(refusal.value).count("\n") <= 1


def test_no_layer_is_ever_made_or_called(tmp_path, monkeypatch):
    torch.save(build_model(), tmp_path / "w.pt")
    for method in ("__init__", "__setstate__", "__setattr__", "__call__", "load_state_dict"):
        monkeypatch.setattr(nn.Module, method, lambda *_, **__: pytest.fail("a layer was made"))
    assert read_torch(tmp_path / "w.pt").layers == ["0", "2", "4"]


NEW = b"\x80\x02ctorch.nn.modules.linear\nLinear\n"


@pytest.mark.parametrize(
    ("pickle", "says"),
    [
        # Linear(784, 2**31 - 1), which would take 6 TB.
        (NEW + b"M\x10\x03J\xff\xff\xff\x7f\x86R.", "refused by PyTorch's safe reader"),
        (NEW + b"M\x10\x03J\xff\xff\xff\x7f\x86\x81.", "refused by PyTorch's safe reader"),
        (NEW + b")\x81.", "its layers lack what layers have"),  # without a state
        (NEW + b")\x81K\x01b.", "its layers lack what layers have"),  # of which the state is 1
        (NEW + b".", "is not a state dict"),  # the class itself
        (b"\x80\x02" + b"(" * 8000 + b".", "refused by PyTorch's safe reader"),
    ],
)
def test_pickles_by_hand(tmp_path, pickle, says):
    file = io.BytesIO()
    torch.save({}, file)
    with zipfile.ZipFile(file) as old, zipfile.ZipFile(tmp_path / "w.pt", "w") as new:
        for info in old.infolist():
            new.writestr(info, pickle if info.filename.endswith("data.pkl") else old.read(info))
    with pytest.raises(DataError, match=says):
        load_weights(tmp_path / "w.pt")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_what_is_written_for_pytorch_is_read_by_it_bit_for_bit(dtype):
    torch.manual_seed(0)
    theirs = build_model((6,), dtype).state_dict()
    arrays = {name: tensor.numpy() for name, tensor in theirs.items()}
    back = torch.load(io.BytesIO(to_torch(arrays)), weights_only=True)
    assert list(back) == list(theirs)
    assert all(torch.equal(back[k], theirs[k]) and back[k].dtype == dtype for k in theirs)


def test_an_export_to_pytorch_of_other_bits_is_not_given(monkeypatch):
    arrays = to_torch_state_dict(init_state(Config(hidden_sizes=(8,))).params)
    honest = torch.save

    def save(content: dict[str, torch.Tensor], file: io.BytesIO) -> None:
        content["0.bias"][0] = torch.nextafter(content["0.bias"][0], torch.tensor(9.0))
        honest(content, file)

    monkeypatch.setattr(torch, "save", save)
    with pytest.raises(FlaxMnistError, match="holds other weights; it was not written"):
        to_torch(arrays)
