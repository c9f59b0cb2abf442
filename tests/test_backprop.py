"""The hand-derived gradients against three that know nothing of the derivation.

jax.grad and torch's autograd differentiate losses written with their own layers; finite differences
differentiate nothing. Everything is float64 and must agree to 1e-10, relative to the largest entry
of each gradient: single entries may cancel to almost nothing, where no relative accuracy is left.
"""

import inspect
from collections.abc import Callable, Iterator
from itertools import pairwise
from types import ModuleType
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from flax_mnist import backprop

TOLERANCE = 1e-10

Layers = tuple[tuple[np.ndarray, np.ndarray], ...]


@pytest.fixture(autouse=True)
def float64() -> Iterator[None]:
    # A context, not jax.config: the other tests of the same process run in float32. Rank promotion
    # is what turns a forgotten axis into a wrong gradient.
    with jax.enable_x64(True), jax.numpy_rank_promotion("raise"):
        yield


def random_layers(*sizes: int, seed: int = 0) -> Layers:
    """As torch.nn.Linear draws them: kernel and bias uniform within 1 / sqrt(fan_in)."""
    rng = np.random.default_rng(seed)
    return tuple(
        (
            rng.uniform(-1, 1, (fan_in, fan_out)) / np.sqrt(fan_in),
            rng.uniform(-1, 1, fan_out) / np.sqrt(fan_in),
        )
        for fan_in, fan_out in pairwise(sizes)
    )


def two_layer_problem() -> tuple[Layers, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    return random_layers(7, 5, 3), rng.uniform(-1, 1, (6, 7)), rng.normal(size=(6, 3))


def mlp_problem(*sizes: int, n: int) -> tuple[Layers, np.ndarray, np.ndarray]:
    rng = np.random.default_rng(1)
    images = rng.uniform(-1, 1, (n, sizes[0]))
    return random_layers(*sizes), images, rng.integers(0, sizes[-1], n)


def assert_close(actual: object, expected: object) -> None:
    assert jax.tree.structure(actual) == jax.tree.structure(expected)
    for a, b in zip(jax.tree.leaves(actual), jax.tree.leaves(expected), strict=True):
        assert a.shape == b.shape
        assert a.dtype == np.float64
        assert np.abs(a - b).max() <= TOLERANCE * np.abs(b).max()


def jax_two_layer_loss(params: Layers, x: jax.Array, y: jax.Array) -> jax.Array:
    (W1, b1), (W2, b2) = params  # noqa: N806
    hidden = jax.nn.sigmoid(jnp.einsum("ni,ih->nh", x, W1) + b1[None])
    outputs = jnp.einsum("nh,ho->no", hidden, W2) + b2[None]
    return 0.5 * jnp.mean(jnp.sum(jnp.square(outputs - y), axis=1))


def jax_mlp_loss(params: Layers, images: jax.Array, labels: jax.Array) -> jax.Array:
    activations = images
    for kernel, bias in params[:-1]:
        activations = jax.nn.relu(jnp.einsum("ni,io->no", activations, kernel) + bias[None])
    kernel, bias = params[-1]
    log_probs = jax.nn.log_softmax(jnp.einsum("ni,io->no", activations, kernel) + bias[None])
    return -jnp.mean(jnp.sum(log_probs * jax.nn.one_hot(labels, bias.size), axis=1))


def torch_gradients(
    torch: ModuleType, model: Any, params: Layers, criterion: Callable[[], Any]
) -> tuple[np.ndarray, Layers]:
    """``criterion()`` with ``params`` in the Linear layers of ``model``, and its gradients."""
    linears = [layer for layer in model if isinstance(layer, torch.nn.Linear)]
    with torch.no_grad():
        for layer, (kernel, bias) in zip(linears, params, strict=True):
            layer.weight.copy_(torch.tensor(kernel.T))
            layer.bias.copy_(torch.tensor(bias))
    loss = criterion()
    loss.backward()
    gradients = tuple((x.weight.grad.numpy().T, x.bias.grad.numpy()) for x in linears)
    return loss.detach().numpy(), gradients


def torch_mlp_gradients(
    torch: ModuleType, params: Layers, images: np.ndarray, labels: np.ndarray
) -> tuple[np.ndarray, Layers]:
    layers: list[Any] = []
    for kernel, _ in params:
        layers += [torch.nn.Linear(*kernel.shape), torch.nn.ReLU()]
    layers[-1] = torch.nn.LogSoftmax(dim=1)
    model = torch.nn.Sequential(*layers).double()
    criterion = torch.nn.NLLLoss()
    return torch_gradients(
        torch, model, params, lambda: criterion(model(torch.tensor(images)), torch.tensor(labels))
    )


def finite_differences(loss: Callable[[Layers], float], params: Layers, step: float) -> Layers:
    """Central differences at step, step/2, step/4 and step/8, extrapolated to step 0 (Richardson).

    The error of one central difference falls as step² and its rounding grows as 1/step: no step
    reaches 1e-10. Extrapolating cancels the terms in step², step⁴ and step⁶, so step can be large.
    """
    params = jax.tree.map(np.copy, params)
    slopes = jax.tree.map(np.empty_like, params)
    for values, slope in zip(jax.tree.leaves(params), jax.tree.leaves(slopes), strict=True):
        for i in np.ndindex(values.shape):
            start = values[i]
            table = []
            for h in (step, step / 2, step / 4, step / 8):
                values[i] = start + h
                above = loss(params)
                values[i] = start - h
                table.append((above - loss(params)) / (2 * h))
            values[i] = start
            for weight in (4, 16, 64):
                table = [
                    (weight * fine - coarse) / (weight - 1) for coarse, fine in pairwise(table)
                ]
            (slope[i],) = table
    return slopes


def test_two_layers_against_jax_grad() -> None:
    params, x, y = two_layer_problem()
    expected = jax.value_and_grad(jax_two_layer_loss)(params, x, y)
    assert_close(backprop.two_layer_gradients(params, x, y), expected)


def test_two_layers_against_torch(torch: ModuleType) -> None:
    params, x, y = two_layer_problem()
    model = torch.nn.Sequential(
        torch.nn.Linear(7, 5), torch.nn.Sigmoid(), torch.nn.Linear(5, 3)
    ).double()
    # MSELoss divides by all 3 columns too, and leaves out the tutorial's 1/2.
    expected = torch_gradients(
        torch,
        model,
        params,
        lambda: torch.nn.MSELoss()(model(torch.tensor(x)), torch.tensor(y)) * (3 / 2),
    )
    assert_close(backprop.two_layer_gradients(params, x, y), expected)


def test_two_layers_against_finite_differences() -> None:
    params, x, y = two_layer_problem()
    expected = finite_differences(lambda p: backprop.two_layer_gradients(p, x, y)[0], params, 0.05)
    assert_close(backprop.two_layer_gradients(params, x, y)[1], expected)


SIZES = {
    "the tutorial's, full batch": ((784, 128, 64, 10), 64),
    "the tutorial's, short last batch": ((784, 128, 64, 10), 32),
    "one layer": ((6, 4), 5),
    "four hidden layers, one row": ((6, 9, 8, 7, 5, 4), 1),
}
mlp_sizes = pytest.mark.parametrize(("sizes", "n"), SIZES.values(), ids=SIZES.keys())


@mlp_sizes
def test_mlp_against_jax_grad(sizes: tuple[int, ...], n: int) -> None:
    params, images, labels = mlp_problem(*sizes, n=n)
    expected = jax.value_and_grad(jax_mlp_loss)(params, images, labels)
    assert_close(backprop.mlp_gradients(params, images, labels), expected)


@mlp_sizes
def test_mlp_against_torch(torch: ModuleType, sizes: tuple[int, ...], n: int) -> None:
    params, images, labels = mlp_problem(*sizes, n=n)
    expected = torch_mlp_gradients(torch, params, images, labels)
    assert_close(backprop.mlp_gradients(params, images, labels), expected)


def test_mlp_against_finite_differences() -> None:
    params, images, labels = mlp_problem(5, 4, 4, 3, n=3)
    (W1, b1), (W2, b2), _ = params  # noqa: N806
    L1 = images @ W1 + b1  # noqa: N806
    L2 = np.maximum(L1, 0) @ W2 + b2  # noqa: N806
    # Differences across a kink of the ReLU are no derivative: both hidden layers stay clear of 0.
    step = 0.02
    assert min(np.abs(L1).min(), np.abs(L2).min()) > step
    assert max(np.abs(images).max(), np.abs(L1).max(), np.abs(W2).max()) <= 1
    expected = finite_differences(
        lambda p: backprop.mlp_gradients(p, images, labels)[0], params, step
    )
    assert_close(backprop.mlp_gradients(params, images, labels)[1], expected)


def test_relu_has_slope_0_at_0_as_in_torch_and_jax(torch: ModuleType) -> None:
    params, images, labels = mlp_problem(6, 5, 4, 3, n=8)
    for kernel, bias in params[:-1]:
        kernel[:, 1], bias[1] = 0, 0
    gradients = backprop.mlp_gradients(params, images, labels)[1]
    for kernel, bias in gradients[:-1]:
        assert not kernel[:, 1].any()
        assert bias[1] == 0
        assert np.delete(kernel, 1, axis=1).any()
    assert_close(gradients, torch_mlp_gradients(torch, params, images, labels)[1])
    assert_close(gradients, jax.grad(jax_mlp_loss)(params, images, labels))


def test_large_logits_do_not_overflow(torch: ModuleType) -> None:
    params = ((np.eye(3), np.zeros(3)),)
    logits, labels = np.array([[2000.0, 0.0, -2000.0]]), np.array([1])
    assert_close(
        backprop.mlp_gradients(params, logits, labels),
        torch_mlp_gradients(torch, params, logits, labels),
    )


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_arrays_come_back_as_they_went_in(dtype: type[np.floating]) -> None:
    layers, *batch = two_layer_problem()
    mlp_layers, images, labels = mlp_problem(6, 5, 4, n=3)
    for function, params, *arguments in (
        (backprop.two_layer_gradients, layers, *(a.astype(dtype) for a in batch)),
        (backprop.mlp_gradients, mlp_layers, images.astype(dtype), labels),
    ):
        params = jax.tree.map(lambda leaf: leaf.astype(dtype), params)
        in_numpy = function(params, *arguments)
        in_jax = jax.jit(function)(params, *arguments)
        for ours, compiled in zip(*map(jax.tree.leaves, (in_numpy, in_jax)), strict=True):
            assert isinstance(ours, np.ndarray | np.floating)
            assert isinstance(compiled, jax.Array)
            assert ours.dtype == compiled.dtype == dtype
            np.testing.assert_allclose(compiled, ours, rtol=0, atol=8 * np.finfo(dtype).eps)


def test_gradient_descent_is_a_step_of_torch_sgd(torch: ModuleType) -> None:
    params, images, labels = mlp_problem(6, 5, 4, n=3)
    gradients = backprop.mlp_gradients(params, images, labels)[1]
    stepped = backprop.gradient_descent(params, gradients, alpha=0.003)

    tensors = [torch.nn.Parameter(torch.tensor(leaf)) for leaf in jax.tree.leaves(params)]
    for tensor, gradient in zip(tensors, jax.tree.leaves(gradients), strict=True):
        tensor.grad = torch.tensor(gradient)
    torch.optim.SGD(tensors, lr=0.003).step()
    structure = jax.tree.structure(params)
    expected = jax.tree.unflatten(structure, [tensor.detach().numpy() for tensor in tensors])
    assert_close(stepped, expected)
    moved = jax.tree.map(lambda new, old: np.abs(new - old).max(), stepped, params)
    assert min(jax.tree.leaves(moved)) > 1e-5


def test_shapes_that_would_broadcast_are_refused() -> None:
    # As users have them: in the tests the signatures refuse most of it before.
    two_layer_gradients = inspect.unwrap(backprop.two_layer_gradients)
    mlp_gradients = inspect.unwrap(backprop.mlp_gradients)
    params, x, y = two_layer_problem()
    with pytest.raises(ValueError, match=r"x has shape \[7\]"):
        two_layer_gradients(params, x[0], y)
    with pytest.raises(ValueError, match=r"y has shape \[6, 1\], expected \[6, 3\]"):
        two_layer_gradients(params, x, y[:, :1])
    params, images, labels = mlp_problem(784, 4, n=3)
    with pytest.raises(ValueError, match=r"images has shape \[3, 28, 28\], expected \[3, 784\]"):
        mlp_gradients(params, images.reshape(3, 28, 28), labels)
    with pytest.raises(ValueError, match=r"labels has shape \[3, 1\], expected \[3\]"):
        mlp_gradients(params, images, labels[:, None])
