"""What several processes that train together tell each other."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import numpy as np
from jax.experimental import multihost_utils

from flax_mnist.devices.processes import are_many, is_first
from flax_mnist.errors import FlaxMnistError, RequestError

Tree = TypeVar("Tree")


def barrier() -> None:
    """Waits for the others to be here too."""
    largest(0)


def largest(number: int) -> int:
    """The largest of the processes' numbers, each given its own."""
    if not are_many():
        return number
    return int(multihost_utils.process_allgather(np.int32(number)).max())


def on_first(action: Callable[[], Tree]) -> Tree | None:
    """What `action` returns where this process is the first; None elsewhere.

    Raises:
        FlaxMnistError: in the first process what `action` raises, in the others that it did.
    """
    result, failure = None, None
    if is_first():
        try:
            result = action()
        except FlaxMnistError as error:
            failure = error
    if largest(failure is not None):
        raise failure or FlaxMnistError(f"process {jax.process_index()}: process 0 has failed.")
    return result


def broadcast(make: Callable[[], Tree], like: Tree) -> Tree:
    """The pytree of numbers and arrays that `make` returns in the first process, bit for bit.

    It is called there alone; `like` is a pytree of the same structure, shapes and dtypes.

    Raises:
        FlaxMnistError: see `on_first`.
    """
    made = on_first(make)
    mine = like if made is None else made
    if not are_many():
        return mine
    arrays = jax.tree.map(np.asarray, mine)
    # As bytes: a broadcast is a sum with zeros, and -0.0 + 0.0 is 0.0.
    sent = jax.tree.map(lambda array: np.frombuffer(array.tobytes(), np.uint8), arrays)
    received = multihost_utils.broadcast_one_to_all(sent)

    def as_sent(array: np.ndarray, content: Any) -> np.ndarray:
        return np.frombuffer(np.asarray(content).tobytes(), array.dtype).reshape(array.shape)

    tree: Tree = jax.tree.map(as_sent, arrays, received)
    return tree


def broadcast_text(make: Callable[[], str]) -> str:
    """The text that `make` returns in the first process.

    Raises:
        FlaxMnistError: see `on_first`.
    """
    if not are_many():
        return make()
    content = (on_first(make) or "").encode()
    like = np.zeros(largest(len(content)), np.uint8)
    sent = broadcast(lambda: np.frombuffer(content, np.uint8), like)
    return sent.tobytes().decode()


def require_same(what: Any) -> None:
    """Refuses what is not the same in every process: JSON, settings and images for instance.

    Raises:
        RequestError: in every process.
    """
    if not are_many():
        return
    digest = hashlib.sha256(json.dumps(what, sort_keys=True).encode()).digest()
    digests = multihost_utils.process_allgather(np.frombuffer(digest, np.uint8))
    others = [i for i, theirs in enumerate(digests) if theirs.tobytes() != digests[0].tobytes()]
    if others:
        raise RequestError(
            f"process {jax.process_index()}: the settings or images of the processes differ: "
            f"{', '.join(map(str, others))} from process 0's."
        )
