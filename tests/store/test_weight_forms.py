"""Files as people have them: taken, and then the network is PyTorch's, or refused with a reason."""

from __future__ import annotations

import contextlib

import jax.numpy as jnp
import numpy as np
import pytest

pytest.importorskip("torch")

import torch

from benchmarks.equivalence.torch_reference import normalize
from flax_mnist import from_torch_state_dict
from flax_mnist import model as ours
from flax_mnist.errors import DataError, FlaxMnistWarning
from flax_mnist.store.weights import hidden_sizes, load_weights, read_weights
from tests.helpers.torch_files import FORMS, TUTORIAL


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if not form.refused])
def test_a_form_that_is_taken_is_the_network_that_pytorch_has(name, digits, tmp_path):
    form = FORMS[name]
    form.write(tmp_path / form.file)
    said = contextlib.nullcontext()
    if "half" in name or "bfloat16" in name:
        said = pytest.warns(FlaxMnistWarning, match=r"w\..*float16 was widened to float32")
    with said:
        weights = load_weights(tmp_path / form.file)
    images = digits["test_images"]
    with torch.no_grad():
        theirs = (form.network or TUTORIAL)(normalize(images).view(len(images), 784))
        theirs = torch.log_softmax(theirs, dim=1).numpy()  # which changes no log-probabilities
    network = ours.MLP(hidden_sizes(weights))
    params = from_torch_state_dict(weights)
    log_probs = network.apply({"params": params}, ours.normalize(jnp.asarray(images)))
    # One float32 rounding error in each of a few hundred sums.
    np.testing.assert_allclose(log_probs, theirs, rtol=0, atol=2e-6)


@pytest.mark.parametrize("name", [name for name, form in FORMS.items() if form.refused])
def test_a_form_that_is_refused_is_refused_with_its_reason(name, tmp_path):
    form = FORMS[name]
    form.write(tmp_path / form.file)
    with pytest.raises(DataError, match=form.refused) as refusal:
        load_weights(tmp_path / form.file)
    assert str(refusal.value).startswith(str(tmp_path / form.file))


@pytest.mark.parametrize(
    ("name", "layers", "known"),
    [
        ("state dict", ["0", "2", "4"], False),
        ("whole model", ["0", "2", "4"], True),
        ("whole model, nested", ["1.0", "1.3"], True),
        ("flatten first", ["1", "3"], False),
        ("names in no order", ["out", "hidden", "in"], False),
    ],
)
def test_how_a_file_was_read_is_told(name, layers, known, tmp_path):
    FORMS[name].write(tmp_path / "w.pt")
    assert read_weights(tmp_path / "w.pt")[1:] == (layers, known)
