"""Weights to PyTorch and back, bit for bit, and the files that are refused."""

from __future__ import annotations

import importlib

import jax
import numpy as np
import pytest

from flax_mnist import Config, from_torch_state_dict, init_state, predict, to_torch_state_dict
from flax_mnist.config import MAX_WEIGHTS
from flax_mnist.errors import DataError, RequestError
from flax_mnist.model import make_model
from flax_mnist.store.weights import (
    check_state_dict,
    hidden_sizes,
    load_weights,
    save_weights,
)


@pytest.fixture(params=[(128, 64), (32,), (20, 30, 40)], ids=str)
def config(request) -> Config:
    return Config(hidden_sizes=request.param)


def test_names_and_layouts_are_pytorchs(tutorial, config):
    ours = to_torch_state_dict(init_state(config).params)
    theirs = tutorial.build_model(config.hidden_sizes).state_dict()
    assert {k: v.shape for k, v in ours.items()} == {k: tuple(v.shape) for k, v in theirs.items()}
    assert list(ours) == list(theirs)


def test_a_file_written_here_predicts_the_same_in_pytorch(
    torch, tutorial, config, digits, tmp_path
):
    params = init_state(config).params
    save_weights(tmp_path / "weights.safetensors", params)
    model = tutorial.build_model(config.hidden_sizes)
    state_dict = importlib.import_module("safetensors.torch").load_file(
        tmp_path / "weights.safetensors"
    )
    model.load_state_dict(state_dict, strict=True)
    images = digits["test_images"]
    with torch.no_grad():
        theirs = model(tutorial.normalize(images)).exp().numpy()
    # One float32 rounding error in each of a few hundred sums.
    np.testing.assert_allclose(
        predict(params, images, model=make_model(config)), theirs, rtol=0, atol=2e-6
    )


@pytest.mark.parametrize("suffix", [".safetensors", ".pt", ".pth"])
@pytest.mark.parametrize("precision", ["float32", "float64"])
def test_both_ways_bit_for_bit(torch, tutorial, config, suffix, precision, tmp_path):
    safetensors, dtype = importlib.import_module("safetensors.torch"), getattr(torch, precision)
    torch.manual_seed(0)
    state_dict = tutorial.build_model(config.hidden_sizes, dtype).state_dict()
    path = tmp_path / f"theirs{suffix}"
    if suffix == ".safetensors":
        safetensors.save_file(state_dict, path)
    else:
        torch.save(state_dict, path)
    with jax.enable_x64(precision == "float64"):
        loaded = load_weights(path)
        assert hidden_sizes(loaded) == config.hidden_sizes
        params = from_torch_state_dict(loaded)
        save_weights(tmp_path / "ours.safetensors", params)
    back = safetensors.load_file(tmp_path / "ours.safetensors")
    assert set(back) == set(state_dict)
    for name, tensor in state_dict.items():
        assert back[name].dtype == dtype
        assert torch.equal(back[name], tensor)


def test_float64_is_not_made_float32_without_a_word():
    state_dict = {name: value.astype(np.float64) for name, value in weights().items()}
    with pytest.raises(RequestError, match="float64 weights need float64 in JAX"):
        from_torch_state_dict(state_dict)


def test_a_weight_is_transposed():
    weight = np.arange(784 * 10, dtype=np.float32).reshape(10, 784)
    params = from_torch_state_dict({"0.weight": weight, "0.bias": np.zeros(10, np.float32)})
    assert float(params["Dense_0"]["kernel"][3, 7]) == weight[7, 3]


def test_a_path_may_be_a_string(tmp_path):
    params = init_state(Config()).params
    save_weights(f"{tmp_path}/weights.safetensors", params)
    loaded = load_weights(f"{tmp_path}/weights.safetensors")
    np.testing.assert_array_equal(loaded["0.bias"], params["Dense_0"]["bias"])


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
        ({"_4_weight": zeros(10, 64) - np.inf}, "4.weight has values that are not finite"),
        ({"_2_bias": zeros(0), "_2_weight": zeros(0, 128)}, r"2.bias is \[0\], not \[\?\]"),
    ],
)
def test_every_difference_is_listed(change, says):
    with pytest.raises(DataError, match=says):
        from_torch_state_dict(weights(**change))


def test_what_is_larger_than_a_network_may_be_is_not_looked_through():
    def endless(*shape: int) -> np.ndarray:
        return np.broadcast_to(np.float32(0), shape)

    n = MAX_WEIGHTS // (784 + 10) + 1
    shapes = {"0.weight": (n, 784), "0.bias": (n,), "2.weight": (10, n), "2.bias": (10,)}
    with pytest.raises(DataError, match="there are more than 1,000,000,000 weights"):
        check_state_dict({name: endless(*shape) for name, shape in shapes.items()})


def test_nothing_at_all_is_refused():
    with pytest.raises(DataError, match=r"0.weight is missing; 0.bias is missing"):
        from_torch_state_dict({})
