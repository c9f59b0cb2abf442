"""What processes tell each other arrives bit for bit."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from flax_mnist.devices import agreement

TOLD = {
    "zeros": np.array([-0.0, 0.0, np.nan, np.inf], np.float32),
    "none": np.zeros((0, 3), np.float64),
    "integers": np.array([[2**62, -1]]),
    "flag": np.array(True),
    "bfloat16": jnp.arange(3, dtype=jnp.bfloat16),
    "numbers": (7, 0.1),
}
LIKE = jax.tree.map(np.zeros_like, TOLD)


def told(monkeypatch, like):
    """What two processes have after one has told the other: both, and how often they met."""
    sent = []

    def meet(function, mine):
        sent.append(mine)
        # The first is told of nothing; the second is there when the first has sent.
        others = sent[0] if len(sent) > 1 else np.zeros_like(mine)
        return np.asarray(function(jnp.stack([mine, others])))

    monkeypatch.setattr(agreement, "are_many", lambda: True)
    monkeypatch.setattr(agreement, "_meet", meet)
    received = [agreement.share(made, like) for made in (TOLD, None)]
    return received, len(sent)


def require_the_same(received):
    assert jax.tree.structure(received) == jax.tree.structure(TOLD)
    for here, there in zip(jax.tree.leaves(received), jax.tree.leaves(TOLD), strict=True):
        there = np.asarray(there)
        assert (here.dtype, here.shape) == (there.dtype, there.shape)
        assert here.tobytes() == there.tobytes()


def test_every_bit_arrives_in_one_message(monkeypatch):
    received, messages = told(monkeypatch, LIKE)
    assert messages == len(received) == 2
    for each in received:
        require_the_same(each)


def test_shapes_are_enough_to_be_told(monkeypatch):
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, leaf.dtype), LIKE)
    received, _ = told(monkeypatch, shapes)
    require_the_same(received[1])
