"""`flax-mnist export`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated, Literal

import tyro

from flax_mnist import terminal
from flax_mnist.commands.flags import Machine, Trained


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the weights of a run for other programs."""

    weights: Trained
    """Run folder, or safetensors file with PyTorch's names."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File to write."""
    format: Literal["safetensors"] = "safetensors"
    """safetensors has the names and layouts that the tutorial's nn.Sequential loads."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Writes the file."""
        from flax_mnist import interop
        from flax_mnist.commands import trained as trained_weights

        interop.save_weights(self.output, trained_weights.load(self.weights, self.machine).params)
        terminal.say(f"Written to {self.output}")
