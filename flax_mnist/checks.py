"""What the functions of arrays are given: nonsense is refused, by the name of the argument.

Types and shapes are looked at while a function is traced, so that nothing of it is in the compiled
program. Values are looked at before that, where they are NumPy's and thereby known.
"""

import functools
import inspect
from collections.abc import Callable
from typing import Any, TypeVar, cast

import jax.numpy as jnp
import numpy as np

from flax_mnist.config import CLASSES
from flax_mnist.errors import ArgumentError, RequestError

_F = TypeVar("_F", bound=Callable[..., Any])


def require_images(images: Any) -> None:
    """Refuses with an `ArgumentError` what is not uint8 [n, 28, 28]."""
    if _dtype(images) != "uint8" or images.shape[1:] != (28, 28):
        raise ArgumentError(
            f"images: {_described(images)}, not uint8 [n, 28, 28], which are bytes, 0 to 255. "
            "A single image is image[None]."
        )


def require_labelled(images: Any, labels: Any) -> None:
    """Refuses with an `ArgumentError` all but uint8 [n, 28, 28] and n whole numbers, n above 0."""
    require_images(images)
    _require_whole_numbers("labels", labels)
    if len(labels) != len(images):
        raise ArgumentError(f"labels: {len(labels):,} for {len(images):,} images.")
    if not len(images):
        raise ArgumentError("images: there is none, of which there would be a mean.")


def require_classes(labels: Any) -> None:
    """Refuses with an `ArgumentError` labels that are NumPy's and not of a class."""
    _require_below("labels", labels, CLASSES)


def require_batches(order: Any, batch_size: int) -> None:
    """Refuses with an `ArgumentError` what is not whole numbers [rows], and batches of nothing."""
    _require_whole_numbers("order", order)
    if not len(order):
        raise ArgumentError("order: is empty, and an epoch visits at least one image.")
    if batch_size < 1:
        raise ArgumentError(f"batch_size: {batch_size}, not at least 1.")


def values_checked(compiled: _F) -> _F:
    """The function, which refuses with an `ArgumentError` what it would index wrongly with.

    Those are `labels` that are no classes, and an `order` of rows that `images` has not: on the
    device both are clipped or wrapped, and the result looks like one.
    """
    signature = inspect.signature(compiled)

    @functools.wraps(compiled)
    def call(*args: Any, **kwargs: Any) -> Any:
        given = signature.bind(*args, **kwargs).arguments
        require_classes(given["labels"])
        if "order" in given:
            _require_below("order", given["order"], len(given["images"]))
        return compiled(*args, **kwargs)

    return cast(_F, call)


def require_float64(what: str) -> None:
    """Raises RequestError if JAX makes everything float32, and `what` needs more."""
    if jnp.result_type(float) != np.float64:
        raise RequestError(
            f"{what} float64 in JAX: first jax.config.update('jax_enable_x64', True)."
        )


def _require_whole_numbers(name: str, array: Any) -> None:
    if not _dtype(array).startswith(("int", "uint")) or array.ndim != 1:
        raise ArgumentError(f"{name}: {_described(array)}, not one row of whole numbers.")


def _require_below(name: str, array: Any, n: int) -> None:
    if not isinstance(array, np.ndarray) or array.dtype.kind not in "iu" or not array.size:
        return  # a device's, or refused by its type
    low, high = int(array.min()), int(array.max())
    if low < 0 or high >= n:
        wrong = low if low < 0 else high
        raise ArgumentError(f"{name}: {wrong:,} is among them, and they are 0 to {n - 1:,}.")


def _dtype(array: Any) -> str:
    return str(getattr(array, "dtype", ""))


def _described(array: Any) -> str:
    return f"{_dtype(array)} {list(array.shape)}" if _dtype(array) else f"a {type(array).__name__}"
