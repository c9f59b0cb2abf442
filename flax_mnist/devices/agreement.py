"""What several processes that train together tell each other."""

import hashlib
import json
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
from jax import Array
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from numpy.typing import NDArray

from flax_mnist.devices.processes import are_many, is_first
from flax_mnist.devices.sharding import Tree
from flax_mnist.errors import FlaxMnistError, RequestError


def all_gather(mine: NDArray[Any]) -> NDArray[Any]:
    """What each process has, `[processes, ...]`: each gives an array of one shape and dtype."""
    if not are_many():
        return mine[np.newaxis]
    sent = np.frombuffer(mine.tobytes(), np.uint8)  # whatever JAX makes of 64 bits
    received = _meet(jnp.copy, sent)
    return np.frombuffer(received.tobytes(), mine.dtype).reshape(-1, *mine.shape)


def _meet(function: Callable[[Array], Array], mine: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """A function of what the processes give, `[processes, ...]`, in each of them.

    One device of each takes part, so that they may have unequal numbers of them.
    """
    firsts = {device.process_index: device for device in reversed(jax.devices())}
    mesh = Mesh(np.array([firsts[i] for i in range(jax.process_count())]), "processes")
    spread = NamedSharding(mesh, PartitionSpec("processes"))
    parts = jax.make_array_from_process_local_data(spread, mine[None])
    everywhere = NamedSharding(mesh, PartitionSpec())
    return np.asarray(jax.jit(function, out_shardings=everywhere)(parts).addressable_data(0))


def _sum(parts: Array) -> Array:  # jit knows a function by identity
    return jnp.sum(parts, axis=0, dtype=jnp.uint8)


def barrier() -> None:
    """Waits for the others to be here too."""
    largest(0)


def largest(number: int) -> int:
    """The largest of the processes' numbers, each given its own."""
    return int(all_gather(np.array(number, np.int64)).max())


def smallest(number: int) -> int:
    """The smallest of the processes' numbers, each given its own."""
    return -largest(-number)


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


def broadcast(make: Callable[[], Tree], like: Any) -> Tree:
    """The pytree of numbers and arrays that `make` returns in the first process, bit for bit.

    It is called there alone. `like` has the same structure, shapes and dtypes, and may have them
    only: `jax.ShapeDtypeStruct` in place of arrays.

    Raises:
        FlaxMnistError: see `on_first`.
    """
    return share(on_first(make), like)


def share(made: Tree | None, like: Any) -> Tree:
    """What one process has made, and is None in the others; for `like` see `broadcast`."""
    if not are_many():
        return cast(Tree, made)
    leaves, structure = jax.tree.flatten(like)
    specs = [leaf if hasattr(leaf, "dtype") else np.asarray(leaf) for leaf in leaves]
    sizes = [spec.size * spec.dtype.itemsize for spec in specs]
    sent = np.zeros(sum(sizes), np.uint8)
    if made is not None:
        content = b"".join(np.asarray(leaf).tobytes() for leaf in jax.tree.leaves(made))
        sent = np.frombuffer(content, np.uint8)
    # As bytes: this is a sum with zeros, and -0.0 + 0.0 is 0.0.
    parts = np.split(_meet(_sum, sent), np.cumsum(sizes)[:-1])
    received = [
        np.frombuffer(part.tobytes(), spec.dtype).reshape(spec.shape)
        for part, spec in zip(parts, specs, strict=True)
    ]
    return cast(Tree, jax.tree.unflatten(structure, received))


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
    digests = all_gather(np.frombuffer(digest, np.uint8))
    others = [i for i, theirs in enumerate(digests) if theirs.tobytes() != digests[0].tobytes()]
    if others:
        raise RequestError(
            f"process {jax.process_index()}: the settings or images of the processes differ: "
            f"{', '.join(map(str, others))} from process 0's."
        )
