"""Input, network and losses against NumPy and SciPy."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import scipy.special
from jax.dtypes import TypePromotionError
from jaxtyping import TypeCheckError

from flax_mnist import Config, cross_entropy_loss, nll_loss, normalize
from flax_mnist.model import MLP, log_probs, make_model, nll_losses

PIXEL_VALUES = np.arange(256, dtype=np.uint8).reshape(256, 1, 1)


@pytest.mark.parametrize("compile", [lambda f: f, jax.jit], ids=["eager", "jit"])
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_every_pixel_value_becomes_the_input_of_totensor_and_normalize(compile, dtype):
    # The correctly rounded quotient; torchvision's, as the torch ladder shows.
    expected = (PIXEL_VALUES.astype(dtype) / dtype(255) - dtype(0.5)) / dtype(0.5)
    with jax.enable_x64(dtype == np.float64):
        inputs = compile(lambda x: normalize(x, dtype))(PIXEL_VALUES)
    assert inputs.dtype == dtype
    np.testing.assert_array_equal(np.asarray(inputs), expected[:, :, 0])


def test_the_network_in_numpy():
    model, rng = MLP((5, 7)), np.random.default_rng(0)
    images = rng.integers(0, 256, (6, 28, 28), np.uint8)
    params = model.init(jax.random.key(0), jnp.zeros((1, 784)))["params"]
    x = (images.reshape(6, 784) / 255 - 0.5) / 0.5
    for i in range(3):
        kernel, bias = (np.asarray(params[f"Dense_{i}"][k], np.float64) for k in ("kernel", "bias"))
        x = x @ kernel + bias
        x = np.maximum(x, 0) if i < 2 else x
    np.testing.assert_allclose(
        log_probs(params, images, model), scipy.special.log_softmax(x, axis=-1), atol=2e-6
    )


def test_the_tutorials_network_has_109_386_parameters():
    params = make_model(Config()).init(jax.random.key(0), jnp.zeros((1, 784)))["params"]
    shapes = jax.tree.map(jnp.shape, params)
    assert shapes == {
        "Dense_0": {"kernel": (784, 128), "bias": (128,)},
        "Dense_1": {"kernel": (128, 64), "bias": (64,)},
        "Dense_2": {"kernel": (64, 10), "bias": (10,)},
    }
    assert sum(array.size for array in jax.tree.leaves(params)) == 109_386


def test_flax_rule_is_lecun_normal_and_zero_bias():
    config = Config(init="flax", hidden_sizes=(2000,))
    layer = make_model(config).init(jax.random.key(0), jnp.zeros((1, 784)))["params"]["Dense_0"]
    assert not layer["bias"].any()
    assert float(layer["kernel"].std()) == pytest.approx(784**-0.5, rel=0.01)


@pytest.mark.parametrize(
    ("precision", "weights", "products"),
    [
        ("float32", "float32", "float32"),
        ("bfloat16", "float32", "bfloat16"),
        ("float64", "float64", "float64"),
        ("float32, deterministic", "float32", "float64"),
        ("bfloat16, deterministic", "float32", "bfloat16"),
    ],
)
def test_precision_decides_the_dtypes(precision, weights, products):
    precision, _, deterministic = precision.partition(", ")
    config = Config(precision=precision, deterministic=bool(deterministic))
    with jax.enable_x64(config.sums_in_float64):
        model = make_model(config)
        params = model.init(jax.random.key(0), jnp.zeros((1, 784)))["params"]
        images = np.zeros((2, 28, 28), np.uint8)
        assert {str(array.dtype) for array in jax.tree.leaves(params)} == {weights}
        assert log_probs(params, images, model).dtype == weights
        jaxpr = str(jax.make_jaxpr(lambda p: log_probs(p, images, model))(params))
    short = {"float32": "f32", "bfloat16": "bf16", "float64": "f64"}[products]
    assert jaxpr.count(f":{short}[2,128] = dot_general") == 1


def test_a_shape_that_the_signature_does_not_have_is_refused_in_tests():
    """Every test relies on it: `tests/conftest.py` has the functions checked."""
    scores, labels = jnp.zeros((20, 10)), jnp.zeros(20, jnp.int32)
    assert nll_loss(scores, labels) == 0
    for wrong in (labels[:1], labels[:, None], labels.astype(float)):
        with pytest.raises(TypeCheckError, match="'labels'"):
            jax.jit(nll_loss)(scores, wrong)
    with pytest.raises(TypePromotionError):
        labels + scores[:, 0]
    with pytest.raises(ValueError, match="rank_promotion='raise'"):
        scores + scores[0]


def test_losses_in_numpy():
    rng = np.random.default_rng(0)
    logits = rng.normal(size=(20, 10)).astype(np.float32) * 5
    labels = rng.integers(0, 10, 20, np.int32)
    expected = -scipy.special.log_softmax(logits.astype(np.float64), axis=-1)[range(20), labels]
    assert float(cross_entropy_loss(logits, labels)) == pytest.approx(expected.mean(), rel=1e-6)
    scores = scipy.special.log_softmax(logits, axis=-1)
    assert float(nll_loss(scores, labels)) == pytest.approx(expected.mean(), rel=1e-6)
    np.testing.assert_allclose(nll_losses(scores, labels), expected, rtol=1e-5)


@pytest.mark.parametrize("wrong", [-1, 10])
def test_the_loss_of_a_label_that_is_no_class_is_nan(wrong):
    scores = jnp.zeros((3, 10))
    assert np.isnan(nll_loss(scores, jnp.array([0, wrong, 9])))
    assert np.isnan(nll_losses(scores, jnp.array([0, wrong, 9]))).tolist() == [False, True, False]
    assert nll_loss(scores.at[0, 5].set(-jnp.inf), jnp.array([0, 1, 9])) == 0


def test_losses_of_extreme_logits_are_finite():
    logits = jnp.array([[1e4, -1e4, 0.0]])
    assert float(cross_entropy_loss(logits, jnp.array([0]))) == 0
    assert float(cross_entropy_loss(logits, jnp.array([1]))) == 2e4
    gradient = jax.grad(cross_entropy_loss)(logits, jnp.array([1]))
    np.testing.assert_array_equal(gradient, [[1, -1, 0]])
