"""`flax-mnist export`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from flax_mnist.cli.flags import Machine, RunOrFile
from flax_mnist.show import terminal


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a trained network for other programs."""

    weights: RunOrFile
    """Run folder, or safetensors file with PyTorch's names."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File to write. What it will hold is read back and compared with the network before."""
    format: Literal["safetensors", "stablehlo"] = "safetensors"
    """safetensors: the weights, as the tutorial's nn.Sequential loads them.
    stablehlo: images to probabilities in one program, for JAX alone on CPU, NVIDIA GPU or TPU."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        import jax

        from flax_mnist.files import write_atomically
        from flax_mnist.runs.trained import load
        from flax_mnist.store import stablehlo, weights

        trained = load(self.weights, self.machine.start)
        said = f"Written to {self.output}"
        if self.format == "stablehlo":
            content = stablehlo.to_stablehlo(trained.params, trained.model)
            said += f". This calls it, with flatbuffers and jax {jax.__version__} or newer alone:\n"
            said += stablehlo.caller(self.output)
        else:
            content = weights.to_safetensors(trained.params)
        write_atomically(self.output, content)
        terminal.say(said)
