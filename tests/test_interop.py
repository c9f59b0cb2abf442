"""Weights to PyTorch and back, bit for bit, and the files that are refused."""

from __future__ import annotations

import pickle
import zipfile

import jax
import numpy as np
import pytest
import safetensors.torch
import torch

from benchmarks.torch_reference import build_model, normalize
from flax_mnist import Config, from_torch_state_dict, init_state, predict, to_torch_state_dict
from flax_mnist.errors import DataError, RequestError
from flax_mnist.interop import hidden_sizes, load_weights, save_weights
from flax_mnist.model import make_model


@pytest.fixture(params=[(128, 64), (32,), (20, 30, 40)], ids=str)
def config(request) -> Config:
    return Config(hidden_sizes=request.param)


def test_names_and_layouts_are_pytorchs(config):
    ours = to_torch_state_dict(init_state(config).params)
    theirs = build_model(config.hidden_sizes).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: tuple(v.shape) for k, v in theirs.items()}
    assert list(ours) == list(theirs)


def test_a_file_written_here_predicts_the_same_in_pytorch(config, digits, tmp_path):
    params = init_state(config).params
    save_weights(tmp_path / "weights.safetensors", params)
    model = build_model(config.hidden_sizes)
    state_dict = safetensors.torch.load_file(tmp_path / "weights.safetensors")
    model.load_state_dict(state_dict, strict=True)
    images = digits["test_images"]
    with torch.no_grad():
        theirs = model(normalize(images)).exp().numpy()
    # One float32 rounding error in each of a few hundred sums.
    np.testing.assert_allclose(
        predict(params, images, model=make_model(config)), theirs, rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_both_ways_bit_for_bit(config, suffix, dtype, tmp_path):
    torch.manual_seed(0)
    state_dict = build_model(config.hidden_sizes, dtype).state_dict()
    path = tmp_path / f"theirs{suffix}"
    if suffix == ".safetensors":
        safetensors.torch.save_file(state_dict, path)
    else:
        torch.save(state_dict, path)
    with jax.enable_x64(dtype == torch.float64):
        loaded = load_weights(path)
        assert hidden_sizes(loaded) == config.hidden_sizes
        params = from_torch_state_dict(loaded)
        save_weights(tmp_path / "ours.safetensors", params)
    back = safetensors.torch.load_file(tmp_path / "ours.safetensors")
    assert set(back) == set(state_dict)
    for name, tensor in state_dict.items():
        assert back[name].dtype == dtype
        assert torch.equal(back[name], tensor)


def test_a_weight_is_transposed():
    weight = np.arange(784 * 10, dtype=np.float32).reshape(10, 784)
    params = from_torch_state_dict({"0.weight": weight, "0.bias": np.zeros(10, np.float32)})
    assert float(params["Dense_0"]["kernel"][3, 7]) == weight[7, 3]


def test_what_is_saved_over_is_replaced_whole(tmp_path):
    path = tmp_path / "weights.safetensors"
    save_weights(path, init_state(Config(seed=1)).params)
    first = path.read_bytes()
    save_weights(path, init_state(Config(seed=2)).params)
    assert path.read_bytes() != first
    assert [p.name for p in tmp_path.iterdir()] == ["weights.safetensors"]


def weights(**change: object) -> dict[str, np.ndarray]:
    state_dict = to_torch_state_dict(init_state(Config()).params)
    for name, array in change.items():
        name = name.strip("_").replace("_", ".")
        if array is None:
            del state_dict[name]
        else:
            state_dict[name] = np.asarray(array)
    return state_dict


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape, np.float32)


@pytest.mark.parametrize(
    ("change", "says"),
    [
        ({"_2_bias": None}, "2.bias is missing"),
        (
            {"_4_weight": None, "_6_weight": zeros(10, 64)},
            "4.weight is missing; 6.weight is not expected",
        ),
        ({"fc1_weight": zeros(3)}, "fc1.weight is not expected"),
        ({"_0_weight": zeros(784, 128)}, r"0.weight is \[784, 128\], not \[128, 784\]"),
        ({"_2_weight": zeros(64, 100)}, r"2.weight is \[64, 100\], not \[64, 128\]"),
        ({"_4_bias": zeros(11)}, r"4.bias is \[11\], not \[10\]"),
        ({"_0_bias": zeros(128, 1)}, r"0.bias is \[128, 1\]"),
        ({"_0_bias": np.zeros(128)}, "dtypes are float32, float64"),
        ({"_0_bias": np.zeros(128, np.int32)}, "dtypes are float32, int32"),
        ({"_0_bias": zeros(128) * np.nan}, "0.bias has values that are not finite"),
    ],
)
def test_every_difference_is_listed(change, says):
    with pytest.raises(DataError, match=says):
        from_torch_state_dict(weights(**change))


def test_nothing_at_all_is_refused():
    with pytest.raises(DataError, match=r"0.weight is missing; 0.bias is missing"):
        from_torch_state_dict({})


# ---- Files that are not what they say --------------------------------------------------------


def test_a_missing_file(tmp_path):
    with pytest.raises(RequestError, match="no such file"):
        load_weights(tmp_path / "absent.pt")


@pytest.mark.parametrize("content", [b"", b"junk", b"\xff" * 8 + b"{}", b"\x02\0\0\0\0\0\0\0{}"])
@pytest.mark.parametrize("suffix", [".safetensors", ".pt"])
def test_junk_is_refused_and_named(tmp_path, content, suffix):
    path = tmp_path / f"weights{suffix}"
    path.write_bytes(content)
    with pytest.raises(DataError, match=f"weights{suffix}: "):
        load_weights(path)


class Bomb:
    """A pickle of it would make a file when loaded."""

    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return (open, (self.path, "w"))


@pytest.mark.parametrize("form", ["torch.save", "bare pickle", "zip by hand"])
def test_a_pickle_that_would_run_code_does_not_run_it(tmp_path, form):
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
    with pytest.raises(DataError, match=r"refused by PyTorch's safe reader: .*state_dict\(\)"):
        load_weights(path)
    assert not mark.exists()

    pickle.loads(pickle.dumps(Bomb(str(mark)))).close()  # the bomb itself is live
    assert mark.exists()


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ([torch.zeros(1)], "is not a state dict"),
        ({"0.weight": 1.0}, "is not a state dict"),
        (
            {"0.weight": torch.zeros(10, 784, dtype=torch.bfloat16)},
            "not all of its tensors",
        ),
    ],
)
def test_other_contents_of_a_pt_file(tmp_path, content, says):
    torch.save(content, tmp_path / "weights.pt")
    with pytest.raises(DataError, match=says):
        load_weights(tmp_path / "weights.pt")


def test_a_whole_model_in_a_pt_file_is_refused_with_a_remedy(tmp_path):
    torch.save(build_model(), tmp_path / "model.pt")
    with pytest.raises(DataError, match=r"torch.save\(model.state_dict\(\), FILE\)"):
        load_weights(tmp_path / "model.pt")
