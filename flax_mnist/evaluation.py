"""What a network makes of images. Nothing here changes it."""

from __future__ import annotations

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from numpy.typing import NDArray

from flax_mnist.model import MLP, Params, log_probs, nll_loss


class Evaluation(NamedTuple):
    """How good a network is on a set of images; two scalars."""

    loss: Array
    """Mean negative log-likelihood over the images, nats."""
    accuracy: Array
    """Share of the images whose likeliest class is their label, float32, 0 to 1."""


@functools.partial(jax.jit, static_argnames="model")
def evaluate(
    params: Params,
    images: Array | NDArray[np.uint8],
    labels: Array | NDArray[np.int32],
    *,
    model: MLP,
) -> Evaluation:
    """Loss and accuracy over all images at once, so that no mean of unequal means is taken.

    Args:
        params: the weights.
        images: uint8 `[n, 28, 28]`.
        labels: integer `[n]` in [0, 10).
        model: static.
    """
    scores = log_probs(params, images, model)
    return Evaluation(nll_loss(scores, labels), jnp.mean(scores.argmax(-1) == labels))


@functools.partial(jax.jit, static_argnames="model")
def predict(params: Params, images: Array | NDArray[np.uint8], *, model: MLP) -> Array:
    """Class probabilities `[n, 10]`, each row summing to 1, for uint8 images `[n, 28, 28]`."""
    return jnp.exp(log_probs(params, images, model))
