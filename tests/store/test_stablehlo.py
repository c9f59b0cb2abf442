"""Files for other programs: what they compute, and that a wrong one is not written."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from types import ModuleType

import jax
import jax.numpy as jnp
import numpy as np
import pytest
import safetensors.numpy

from flax_mnist import Config, init_state, predict
from flax_mnist.cli.main import main
from flax_mnist.errors import RequestError
from flax_mnist.model import make_model
from flax_mnist.store import stablehlo as exports
from flax_mnist.store.stablehlo import to_stablehlo
from flax_mnist.store.weights import save_weights, to_torch_state_dict

ONLY_JAX = """
import sys
sys.modules.update(dict.fromkeys(["flax_mnist", "flax", "optax", "torch", "safetensors"]))
"""


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """A file of weights."""
    save_weights(tmp_path / "weights.safetensors", init_state(Config(seed=3)).params)
    return tmp_path / "weights.safetensors"


@pytest.fixture
def in_pytorch(torch: ModuleType, tutorial: ModuleType) -> Callable[..., np.ndarray]:
    """The class probabilities that PyTorch computes in float64 of a state dict and images."""

    def probabilities(state_dict: dict[str, np.ndarray], images: np.ndarray) -> np.ndarray:
        sizes = tuple(len(state_dict[f"{2 * i}.bias"]) for i in range(len(state_dict) // 2 - 1))
        model = tutorial.build_model(sizes, torch.float64)
        model.load_state_dict({k: torch.tensor(v).double() for k, v in state_dict.items()})
        with torch.no_grad():
            return model(tutorial.normalize(images, torch.float64)).exp().numpy()

    return probabilities


def test_stablehlo_is_called_in_a_process_that_has_only_jax(weights, tmp_path, capsys, in_pytorch):
    file = tmp_path / "a network.stablehlo"
    assert main(["export", str(weights), "--format", "stablehlo", "--output", str(file)]) == 0
    said, _, program = capsys.readouterr().out.partition("\n")
    assert said.startswith(f"Written to {file}.")
    assert len(program.strip().splitlines()) == 3
    done = subprocess.run(
        [sys.executable, "-c", ONLY_JAX + program], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stderr
    printed = np.array(done.stdout.replace("[", "").replace("]", "").split(), float)
    expected = in_pytorch(
        safetensors.numpy.load_file(weights), np.zeros((2, 28, 28), dtype=np.uint8)
    )
    np.testing.assert_allclose(printed.reshape(2, 10), expected, rtol=0, atol=1e-6)


@pytest.mark.parametrize(
    ("precision", "sizes", "tolerance"),
    [("float32", (128, 64), 1e-6), ("float64", (32,), 1e-14), ("bfloat16", (20, 30, 40), 0.01)],
)
def test_stablehlo_computes_in_any_batch_what_pytorch_does(
    precision, sizes, tolerance, digits, in_pytorch
):
    with jax.enable_x64(precision == "float64"):
        config = Config(hidden_sizes=sizes, precision=precision)
        params, model = init_state(config).params, make_model(config)
        exported = jax.export.deserialize(bytearray(to_stablehlo(params, model)))
        assert exported.platforms == ("cpu", "cuda", "tpu")
        assert str(exported.in_avals[0]) == "uint8[b,28,28]"
        for n in (1, 200):
            images = digits["test_images"][:n]
            ours = np.asarray(exported.call(images))
            theirs = in_pytorch(to_torch_state_dict(params), images)
            assert ours.dtype == ("float64" if precision == "float64" else "float32")
            np.testing.assert_allclose(ours, theirs, rtol=0, atol=tolerance)
            np.testing.assert_array_equal(ours, predict(params, images, model=model))


def test_the_same_network_gives_the_same_bytes_wherever_it_lies():
    config = Config(hidden_sizes=(8,))
    params, model = init_state(config).params, make_model(config)
    content = to_stablehlo(params, model)
    assert content == to_stablehlo(params, model)
    assert str(Path(exports.__file__).parent).encode() not in content
    assert b".py" not in content


def test_safetensors_are_read_by_pytorch_as_they_were_written(weights, tmp_path, capsys):
    file = tmp_path / "copy.safetensors"
    assert main(["export", str(weights), "--output", str(file)]) == 0
    assert capsys.readouterr().out == f"Written to {file}\n"
    assert file.read_bytes() == weights.read_bytes()


def test_a_stablehlo_export_that_predicts_otherwise_is_not_written(
    weights, tmp_path, capsys, monkeypatch
):
    honest = jax.export.deserialize

    class Slightly:
        def __init__(self, content: bytearray) -> None:
            self.network = honest(content)

        def call(self, images: np.ndarray) -> np.ndarray:
            # Only where there is more than one image, and only one probability.
            wrong = np.array(self.network.call(images))
            wrong[1:2, 3] += 2e-6
            return wrong

    monkeypatch.setattr(exports.export, "deserialize", Slightly)
    file = tmp_path / "network.stablehlo"
    assert main(["export", str(weights), "--format", "stablehlo", "--output", str(file)]) == 1
    said = capsys.readouterr()
    assert said.out == ""
    assert "differs from predict by 2.0e-06" in said.err
    assert not file.exists()


def test_a_safetensors_export_of_other_bits_is_not_written(tmp_path, capsys, monkeypatch):
    params = init_state(Config(hidden_sizes=(8,))).params
    params["Dense_0"]["bias"] = params["Dense_0"]["bias"].at[0].set(0)
    save_weights(tmp_path / "weights.safetensors", params)
    honest = safetensors.numpy.load

    def load(content: bytes) -> dict[str, np.ndarray]:
        arrays = honest(content)
        arrays["0.bias"][0] *= -1  # -0 is equal to 0
        return arrays

    monkeypatch.setattr(safetensors.numpy, "load", load)
    file = tmp_path / "copy.safetensors"
    monkeypatch.setattr(
        "flax_mnist.runs.trained.load_weights", lambda path: honest(path.read_bytes())
    )
    assert main(["export", str(tmp_path / "weights.safetensors"), "--output", str(file)]) == 1
    assert "holds other weights" in capsys.readouterr().err
    assert not file.exists()


def test_what_no_stablehlo_file_can_hold_is_refused():
    def export() -> None:
        to_stablehlo({"Dense_0": {"kernel": jnp.zeros((784, 700_000))}}, make_model(Config()))

    with pytest.raises(RequestError, match=r"take 2\.2 GB, and a StableHLO file holds 2 GB"):
        jax.eval_shape(export)  # without the 2.2 GB
