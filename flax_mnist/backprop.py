"""Backpropagation by hand: what ``loss.backward()`` and ``jax.grad`` do, formula by formula.

Two networks, each with its loss and the gradients that the chain rule gives: the two-layer network
that the tutorial draws to explain backpropagation, and the network it then trains. Nothing trains
with this file; it is there to be read beside the tutorial, and tests hold it against ``jax.grad``,
PyTorch's autograd and finite differences.

Notation: ∂A stands for ∂ℓ/∂A, the gradient of the loss, and has the shape of A; ⊙ multiplies
element by element; ᵀ transposes; n is the number of rows in the batch. Rows are examples, so the
tutorial's W x + b reads x W + b.

NumPy arrays give NumPy arrays, float64 ones too; JAX arrays give JAX arrays, under ``jit`` as well.
"""
# ruff: noqa: N803, N806  -- W1, L1, S, L2 are the tutorial's own letters.

from collections.abc import Sequence
from types import ModuleType
from typing import TypeAlias

import jax
import numpy as np
from jaxtyping import Float, Int

Array: TypeAlias = jax.Array | np.ndarray  #: On the device, or NumPy's: the formulas are the same.
Scalar: TypeAlias = Float[jax.Array | np.floating, ""]  #: A number, as both keep one.
#: (kernel, bias), as Flax keeps them; PyTorch's nn.Linear.weight is kernel.T. Each layer has sizes
#: of its own, so that nothing checks them: jaxtyping's sign for that is the underscore.
Layer: TypeAlias = tuple[Float[Array, "_in _out"], Float[Array, " _out"]]


def linear(
    x: Float[Array, "n in"], W: Float[Array, "in out"], b: Float[Array, " out"]
) -> Float[Array, "n out"]:
    """L = x W + b, the same b for every row."""
    return x @ W + b[None, :]


def sigmoid(L: Float[Array, "n units"]) -> Float[Array, "n units"]:
    """S = 1 / (1 + exp(-L)), whose derivative is S ⊙ (1 - S)."""
    S: Array = 1 / (1 + _namespace(L).exp(-L))
    return S


def relu(L: Float[Array, "n units"]) -> Float[Array, "n units"]:
    """S = max(L, 0), whose derivative is taken as 0 at L = 0, as PyTorch does."""
    S: Array = _namespace(L).maximum(L, 0)
    return S


def log_softmax(logits: Float[Array, "n classes"]) -> Float[Array, "n classes"]:
    """Logits minus log Σ exp(logits), row by row: the logarithms of the probabilities."""
    xp = _namespace(logits)
    # exp of a large logit overflows; taking the row's maximum off first changes nothing else.
    shifted = logits - xp.max(logits, axis=1, keepdims=True)
    log_probs: Array = shifted - xp.log(xp.sum(xp.exp(shifted), axis=1, keepdims=True))
    return log_probs


def two_layer_gradients(
    params: Sequence[Layer], x: Float[Array, "n in"], y: Float[Array, "n out"]
) -> tuple[Scalar, tuple[Layer, ...]]:
    """Loss and gradients of the tutorial's drawing: x -> L1 -> S -> L2 -> ℓ.

    Forward, with x [n, in], W1 [in, hidden], b1 [hidden], W2 [hidden, out], b2 [out], y [n, out]::

        L1 = x W1 + b1        S = sigmoid(L1)        L2 = S W2 + b2        ℓ = Σ (y - L2)² / 2n

    Backward. The tutorial's ∂ℓ/∂W1 = ∂L1/∂W1 · ∂S/∂L1 · ∂L2/∂S · ∂ℓ/∂L2 is read from right to
    left; each line multiplies the one above by one more factor::

        ∂L2 = (L2 - y) / n                       [n, out]
        ∂W2 = Sᵀ ∂L2                             [hidden, out]       ∂b2 = Σ over rows of ∂L2
        ∂S  = ∂L2 W2ᵀ                            [n, hidden]
        ∂L1 = ∂S ⊙ S ⊙ (1 - S)                   [n, hidden]
        ∂W1 = xᵀ ∂L1                             [in, hidden]        ∂b1 = Σ over rows of ∂L1

    Of ``params``, which are ``((W1, b1), (W2, b2))``, inputs x and targets y it returns ℓ, and the
    gradients in the structure of ``params``.

    Raises:
      ValueError: a shape does not fit.
    """
    (W1, b1), (W2, b2) = params
    _require_shape("x", x, (len(x), W1.shape[0]))
    _require_shape("y", y, (len(x), W2.shape[1]))
    n = len(x)

    L1 = linear(x, W1, b1)
    S = sigmoid(L1)
    L2 = linear(S, W2, b2)
    loss = ((y - L2) ** 2).sum() / (2 * n)

    dL2 = (L2 - y) / n
    dW2, db2 = S.T @ dL2, dL2.sum(axis=0)
    dS = dL2 @ W2.T
    dL1 = dS * S * (1 - S)
    dW1, db1 = x.T @ dL1, dL1.sum(axis=0)
    return loss, ((dW1, db1), (dW2, db2))


def mlp_gradients(
    params: Sequence[Layer], images: Float[Array, "n in"], labels: Int[Array, " n"]
) -> tuple[Scalar, tuple[Layer, ...]]:
    """Loss and gradients of the network the tutorial trains, with any number of layers K >= 1.

    Forward, with S_0 = images and W_k [in_k, out_k], b_k [out_k] for k = 1 ... K::

        L_k = S_(k-1) W_k + b_k                  [n, out_k]
        S_k = max(L_k, 0)                        hidden layers, k < K
        p   = softmax(L_K)                       ℓ = -1/n Σ_i log p[i, labels_i]

    Backward. log p[i, c] = L_K[i, c] - log Σ_j exp(L_K[i, j]), and the derivative of that last term
    by L_K[i, j] is p[i, j]; so log-softmax and loss together leave only a difference, in which
    onehot [n, classes] is 1 at each label and 0 elsewhere::

        ∂L_K     = (p - onehot) / n
        ∂W_k     = S_(k-1)ᵀ ∂L_k                 ∂b_k = Σ over rows of ∂L_k
        ∂S_(k-1) = ∂L_k W_kᵀ
        ∂L_(k-1) = ∂S_(k-1) ⊙ [L_(k-1) > 0]      then on with k - 1, down to k = 1

    Of ``params``, a ``(kernel, bias)`` for each layer (the tutorial's are 784 -> 128 -> 64 -> 10),
    images that are normalised and flattened, and labels 0 ... out_K - 1 it returns ℓ, and the
    gradients in the structure of ``params``.

    Raises:
      ValueError: a shape does not fit.
    """
    _require_shape("images", images, (len(images), params[0][0].shape[0]))
    _require_shape("labels", labels, (len(images),))
    n = len(images)
    S = [images]
    for W, b in params[:-1]:
        S.append(relu(linear(S[-1], W, b)))
    log_probs = log_softmax(linear(S[-1], *params[-1]))
    xp = _namespace(log_probs)
    loss = -log_probs[xp.arange(n), labels].mean()

    classes = xp.arange(log_probs.shape[1], dtype=labels.dtype)
    onehot = (labels[:, None] == classes[None, :]).astype(log_probs.dtype)
    dL = (xp.exp(log_probs) - onehot) / n
    gradients: tuple[Layer, ...] = ()
    for k in reversed(range(len(params))):
        gradients = ((S[k].T @ dL, dL.sum(axis=0)), *gradients)
        if k > 0:  # The images are not trained: their gradient would be wasted work.
            dL = (dL @ params[k][0].T) * (S[k] > 0).astype(dL.dtype)
    return loss, gradients


def gradient_descent(
    params: Sequence[Layer], gradients: Sequence[Layer], alpha: float
) -> tuple[Layer, ...]:
    """W' = W - α ∂ℓ/∂W for every kernel and bias: what ``optimizer.step()`` does in plain SGD."""
    return tuple(
        (W - alpha * dW, b - alpha * db) for (W, b), (dW, db) in zip(params, gradients, strict=True)
    )


def _namespace(array: Array) -> ModuleType:
    """``numpy`` or ``jax.numpy``, whichever ``array`` belongs to (Python array API standard)."""
    xp: ModuleType = array.__array_namespace__()
    return xp


def _require_shape(name: str, array: Array, shape: tuple[int, ...]) -> None:
    # A missing axis would broadcast, and give a wrong gradient instead of an error.
    if array.shape != shape:
        raise ValueError(f"{name} has shape {list(array.shape)}, expected {list(shape)}")
