"""A network as one file for other programs, tried before anyone gets it."""

from pathlib import Path
from typing import cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array, export
from jaxtyping import Float, UInt8

from flax_mnist.errors import FlaxMnistError, RequestError
from flax_mnist.evaluation import predict
from flax_mnist.model import MLP, Params

PLATFORMS = ("cpu", "cuda", "tpu")
MAX_BYTES = 2 * 10**9  #: Of weights; flatbuffers, the format of the file, ends at 2**31.
#: Of a probability, in epsilons of the format of the products: 9.5e-7 in float32. It is what
#: the last bit of a logit from 32 to 64 can do; on a CPU there is no difference at all.
TOLERANCE = 8


def to_stablehlo(params: Params, model: MLP) -> bytes:
    """`predict` with these weights in it, as a program that JAX loads and calls by itself.

    It is a serialized `jax.export.Exported`: from uint8 images `[b, 28, 28]`, for any b from 1, to
    class probabilities `[b, 10]` of the weights' dtype, on any of `PLATFORMS`. JAX promises that
    releases up to 6 months newer and 3 weeks older than this one can load it
    (https://docs.jax.dev/en/latest/export/export.html#compatibility-guarantees).

    Raises:
        RequestError: the weights are too many for such a file.
        FlaxMnistError: loaded again, it does not compute what `predict` does.
    """
    size = sum(array.nbytes for array in jax.tree.leaves(params))
    if size > MAX_BYTES:
        raise RequestError(
            f"The weights take {size / 1e9:.1f} GB, and a StableHLO file holds {MAX_BYTES / 1e9:g} "
            "GB. Take --format safetensors."
        )

    @jax.jit
    def probabilities(images: UInt8[Array, "b 28 28"]) -> Float[Array, "b 10"]:
        return cast(Array, predict(params, images, model=model))

    (b,) = export.symbolic_shape("b")
    images = jax.ShapeDtypeStruct((b, 28, 28), jnp.uint8)
    limit = jax.config.values["jax_traceback_in_locations_limit"]
    jax.config.update("jax_traceback_in_locations_limit", 0)  # no folders of this machine's in it
    try:
        content = export.export(probabilities, platforms=PLATFORMS)(images).serialize()
    finally:
        jax.config.update("jax_traceback_in_locations_limit", limit)
    _require_same_predictions(content, params, model)
    return bytes(content)


def caller(path: Path) -> str:
    """Three lines of Python that load and call a file of `to_stablehlo`'s without this package."""
    return f"""
import jax.export, numpy
predict = jax.export.deserialize(bytearray(numpy.fromfile({str(path)!r}, 'uint8'))).call
print(predict(numpy.zeros((2, 28, 28), 'uint8')))
"""


def _require_same_predictions(content: bytearray, params: Params, model: MLP) -> None:
    loaded = export.deserialize(content)
    rng = np.random.default_rng(0)
    tolerance = TOLERANCE * float(jnp.finfo(model.dtype).eps)  # type: ignore[no-untyped-call]
    for n in (1, 3):
        images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
        expected = np.asarray(predict(params, images, model=model))
        difference = np.abs(np.asarray(loaded.call(images)) - expected).max()
        if not difference <= tolerance:
            raise FlaxMnistError(
                f"The StableHLO export differs from predict by {difference:.1e}, which is more "
                f"than {tolerance:.1e}; it was not written."
            )
