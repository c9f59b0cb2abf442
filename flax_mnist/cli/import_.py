"""`flax-mnist import`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from flax_mnist.cli.flags import DataDir, Machine
from flax_mnist.config import DatasetName
from flax_mnist.data import default_dir
from flax_mnist.show import terminal


@dataclasses.dataclass(frozen=True)
class Import:
    """Make a run folder from weights that PyTorch trained.

    Examples::

        flax-mnist import weights.pt --run-dir runs/imported
        flax-mnist import fashion.npz --dataset fashion_mnist --run-dir runs/b
    """

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE")]
    """The tutorial's nn.Sequential of any hidden sizes, or its state dict: what torch.save writes,
    safetensors or .npz, under any name."""
    run_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder to make."""
    dataset: DatasetName = "mnist"
    """What they were trained on: what evaluate and predict will look for."""
    data_dir: DataDir = dataclasses.field(default_factory=default_dir.named)
    """Folder with those images, or a file of them, as for train."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        from flax_mnist.runs.trained import import_weights

        with terminal.warnings_at_both_ends():
            path, how = import_weights(
                self.file, self.run_dir, self.dataset, self.data_dir, self.machine.start
            )
        terminal.say(f"Imported into {path}: {how}")
