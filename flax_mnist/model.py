"""The network, its input and its losses: pure functions of arrays."""

from collections.abc import Sequence
from typing import cast

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
from jax.typing import DTypeLike
from jaxtyping import Array, Float, Int, UInt8

from flax_mnist.checks import require_float64
from flax_mnist.config import CLASSES, Config, Init

Params = dict[str, dict[str, Float[Array, "..."]]]
"""`{"Dense_0": {"kernel": [784, 128], "bias": [128]}, "Dense_1": ...}`, input to output."""


class MLP(nn.Module):
    """The tutorial's network: linear layers with ReLU between them, log-softmax at the end.

    `MLP().apply({"params": params}, inputs)` is the pure function from inputs to log-probabilities;
    with `method="logits"` it stops before the log-softmax.
    """

    hidden_sizes: Sequence[int] = Config.hidden_sizes
    init_rule: Init = Config.init
    dtype: DTypeLike = jnp.float32  #: Of the products and activations.
    param_dtype: DTypeLike = jnp.float32  #: Of the weights, the logits and the log-probabilities.

    def __post_init__(self) -> None:
        self.hidden_sizes = tuple(self.hidden_sizes)  # a list has no hash, by which jit knows it
        super().__post_init__()

    def __call__(self, inputs: Float[Array, "batch 784"]) -> Float[Array, "batch 10"]:
        """Log-probabilities, of `param_dtype`."""
        return jax.nn.log_softmax(self.logits(inputs))

    @nn.compact
    def logits(self, inputs: Float[Array, "batch 784"]) -> Float[Array, "batch 10"]:
        """Logits, of `param_dtype`. Raises RequestError for float64 without `jax_enable_x64`."""
        if jnp.dtype(self.dtype) == np.float64:
            require_float64("float64 and deterministic networks need")
        x = inputs
        for size in self.hidden_sizes:
            x = jax.nn.relu(self._linear(size, x))
        return self._linear(CLASSES, x).astype(self.param_dtype)

    def _linear(self, size: int, x: Float[Array, "batch in"]) -> Float[Array, "batch {size}"]:
        torch_rule = torch_uniform(fan_in=x.shape[-1]) if self.init_rule == "torch" else None
        layer = nn.Dense(
            size,
            dtype=self.dtype,
            param_dtype=self.param_dtype,
            # float32 is float32: without this GPUs multiply in TF32 and TPUs in bfloat16.
            precision=jax.lax.Precision.HIGHEST,
            kernel_init=torch_rule or nn.initializers.lecun_normal(),
            bias_init=torch_rule or nn.initializers.zeros,
        )
        return layer(x)


def torch_uniform(fan_in: int) -> nn.initializers.Initializer:
    """`torch.nn.Linear`'s rule for weight *and* bias: U(-1/sqrt(fan_in), 1/sqrt(fan_in)).

    PyTorch states the weight's as `kaiming_uniform_(a=sqrt(5))`, which comes to the same
    (`torch.nn.Linear.reset_parameters`).
    """
    bound = fan_in**-0.5

    def draw(key: Array, shape: tuple[int, ...], dtype: DTypeLike = jnp.float32) -> Array:
        return jax.random.uniform(key, shape, dtype, -bound, bound)

    return draw


def make_model(config: Config) -> MLP:
    """The network that `config` describes; `config.sums_in_float64` needs `jax_enable_x64`.

    A deterministic float32 network computes its activations in float64 from weights in float32.
    Adding up a gradient in another order, as other devices do, then changes its last bits in
    float64, and next to none of what is left when it is rounded to float32.
    """
    products = {"float32": jnp.float32, "bfloat16": jnp.bfloat16, "float64": jnp.float64}
    return MLP(
        config.hidden_sizes,
        config.init,
        dtype=jnp.float64 if config.sums_in_float64 else products[config.precision],
        param_dtype=jnp.float64 if config.precision == "float64" else jnp.float32,
    )


@jax.named_scope("normalize")  # by which a profile, and `inspect`, know what an operation is for
def normalize(
    images: UInt8[Array | np.ndarray, "batch height width"], dtype: DTypeLike = jnp.float32
) -> Float[Array, "batch height*width"]:
    """Pixels to inputs of `dtype` in [-1, 1].

    Bit for bit what torchvision's `ToTensor` and `Normalize(0.5, 0.5)` make of them,
    `(x / 255 - 0.5) / 0.5`, compiled or not.
    """
    x = jnp.asarray(images, dtype).reshape(images.shape[0], -1)
    # A compiler turns x / 255 into x * (1 / 255), which is wrong in the last bit for 205 of the 256
    # pixel values. The head of 1 / 255 is short enough for x * head to be exact, so that the sum
    # with the tail's small product rounds as the quotient does.
    scale: float = 2 ** (jnp.finfo(dtype).nmant - 1)  # type: ignore[no-untyped-call]
    head = round(scale / 255) / scale
    tail = (1 - 255 * head) / 255
    quotient = x * head + x * tail
    return (quotient - 0.5) / 0.5


def log_probs(
    params: Params, images: UInt8[Array | np.ndarray, "batch 28 28"], model: MLP
) -> Float[Array, "batch 10"]:
    """From pixels to log-probabilities."""
    inputs = normalize(images, model.param_dtype)
    return cast(Array, model.apply({"params": params}, inputs))


@jax.named_scope("loss")
def nll_losses(
    log_probs: Float[Array | np.ndarray, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
) -> Float[Array, " batch"]:
    """Each image's negative log-likelihood, as `torch.nn.NLLLoss(reduction="none")`.

    It is of the dtype of `log_probs`, and NaN where a label is not in [0, classes).
    """
    classes = log_probs.shape[-1]
    # A mask's gradient is a mask. That of indexing is a sum over indices, one after the other.
    chosen = jax.nn.one_hot(labels, classes, dtype=bool)
    others = jnp.where((labels >= 0) & (labels < classes), 0.0, jnp.nan)[:, None]
    return -jnp.where(chosen, log_probs, others).sum(axis=-1)


@jax.named_scope("loss")
def nll_loss(
    log_probs: Float[Array | np.ndarray, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
) -> Float[Array, ""]:
    """Mean negative log-likelihood, as `torch.nn.NLLLoss`; of the dtype of `log_probs`.

    Labels must be in [0, classes): with any other the loss is NaN.
    """
    return nll_losses(log_probs, labels).mean()


def cross_entropy_loss(
    logits: Float[Array | np.ndarray, "batch classes"], labels: Int[Array | np.ndarray, " batch"]
) -> Float[Array, ""]:
    """Mean cross-entropy, as `torch.nn.CrossEntropyLoss`: log-softmax, then `nll_loss`."""
    return nll_loss(jax.nn.log_softmax(logits), labels)
