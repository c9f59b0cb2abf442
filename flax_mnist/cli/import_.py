"""`flax-mnist import`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from flax_mnist.cli.flags import DataDir, Machine
from flax_mnist.config import DatasetName
from flax_mnist.show import terminal


@dataclasses.dataclass(frozen=True)
class Import:
    """Make a run folder from weights that PyTorch trained."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.safetensors|FILE.pt")]
    """State dict of the tutorial's nn.Sequential, of any hidden sizes."""
    run_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder to make."""
    dataset: DatasetName = "mnist"
    """What they were trained on: what evaluate and predict will look for."""
    data_dir: DataDir = None
    """Folder with those images, as for train."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Makes the folder."""
        from flax_mnist.data.dataset import class_names, require_folder
        from flax_mnist.runs.trained import config_of
        from flax_mnist.store import run_folder
        from flax_mnist.store.record import Record, write_config
        from flax_mnist.store.weights import from_torch_state_dict, load_weights, save_weights

        weights = load_weights(self.file)
        if self.data_dir is not None:
            require_folder(self.data_dir)
        config = config_of(weights)
        device = self.machine.start(config)
        record = Record(
            config,
            self.dataset,
            f"weights of {self.file}",
            self.data_dir,
            class_names(self.dataset),
        )
        path = run_folder.create(self.run_dir, self.dataset)
        with run_folder.only_writer(path):
            run_folder.require_no_run(path)  # now that nobody else can make one
            save_weights(path / run_folder.WEIGHTS, from_torch_state_dict(weights))
            write_config(path, record, device, known=("hidden_sizes", "precision"))
        terminal.say(f"Imported into {path}")
