"""What a network makes of images. Nothing here changes it."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float, Float32, Int, UInt8

from flax_mnist.checks import require_images, require_labelled, values_checked
from flax_mnist.model import MLP, Params, log_probs, nll_loss


class Evaluation(NamedTuple):
    """How good a network is on a set of images."""

    loss: Float[Array, ""]  #: Mean negative log-likelihood over the images, nats.
    #: Share of the images whose likeliest class is their label, 0 to 1.
    accuracy: Float32[Array, ""]


@values_checked
@functools.partial(jax.jit, static_argnames="model")
def evaluate(
    params: Params,
    images: UInt8[Array | np.ndarray, "n 28 28"],
    labels: Int[Array | np.ndarray, " n"],
    *,
    model: MLP,
) -> Evaluation:
    """Loss and accuracy over all images at once, so that no mean of unequal means is taken.

    Labels must be in [0, 10); the model is static.

    Raises:
        ArgumentError: images or labels are of another type or shape, or labels that are NumPy's
            out of range.
    """
    require_labelled(images, labels)
    scores = log_probs(params, images, model)
    right = scores.argmax(-1).astype(labels.dtype) == labels
    return Evaluation(nll_loss(scores, labels), jnp.mean(right))


@functools.partial(jax.jit, static_argnames="model")
def predict(
    params: Params, images: UInt8[Array | np.ndarray, "n 28 28"], *, model: MLP
) -> Float[Array, "n 10"]:
    """Class probabilities, each row summing to 1.

    Raises:
        ArgumentError: the images are of another type or shape, such as a single one of [28, 28].
    """
    require_images(images)
    return jnp.exp(log_probs(params, images, model))
