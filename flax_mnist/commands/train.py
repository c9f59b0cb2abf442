"""`flax-mnist train`."""

from __future__ import annotations

import dataclasses
import time
from pathlib import Path
from typing import Annotated

from flax_mnist import terminal
from flax_mnist.commands.flags import DataDir, Machine, directory
from flax_mnist.config import Config, DatasetName


@dataclasses.dataclass(frozen=True)
class Train:
    """Train the network and keep it in a run folder."""

    config: Config = dataclasses.field(default_factory=Config)
    dataset: DatasetName = "auto"
    """Images to train on; auto is mnist where it can be had, otherwise synthetic."""
    data_dir: DataDir = None
    """Folder with the four IDX files, gzipped or not, or a tensorflow-datasets folder."""
    run_dir: Annotated[Path | None, directory("runs/<dataset>-<timestamp>")] = None
    """Folder to write to."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Trains, with a line for each epoch."""
        from flax_mnist import interop, run_dir, train
        from flax_mnist.data import load_dataset

        config = self.config
        device = self.machine.start(config)
        with terminal.warnings_at_both_ends():
            dataset = load_dataset(self.dataset, self.data_dir)
            state = train.init_state(config)
            path = run_dir.create(self.run_dir, dataset.name)
            record = run_dir.Record(
                config, dataset.name, dataset.source, self.data_dir, dataset.class_names
            )
            run_dir.write_config(path, record, device)
            terminal.say(terminal.header(config, dataset, state.params, device))
            start = time.perf_counter()
            run_epoch = train.compile_epoch(config, state, dataset.train)
            terminal.say(f"Compiled in {time.perf_counter() - start:.2f} s")
            with terminal.progress_bar(config.epochs) as advance:
                for current, metrics in train.fit(config, dataset, state, run_epoch):
                    run_dir.append_metrics(path, metrics, dataset.name)
                    interop.save_weights(path / run_dir.WEIGHTS, current.params)
                    terminal.say(terminal.epoch_line(metrics, config.epochs))
                    advance()
            terminal.say(f"Saved in {path}")
