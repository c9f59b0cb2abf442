"""`flax-mnist report`."""

from __future__ import annotations

import dataclasses
import math
from pathlib import Path
from typing import Annotated

import tyro

from flax_mnist.cli.flags import Machine, RunDataDir
from flax_mnist.errors import FlaxMnistError, RequestError
from flax_mnist.show import terminal


@dataclasses.dataclass(frozen=True)
class Report:
    """Write a run as one web page, with a canvas to draw digits for the network on."""

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Run folder."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE.html")]
    """File to write; it needs no other file and no network."""
    data_dir: RunDataDir = None
    """Folder with the run's images, as for train."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Writes the file."""
        import numpy as np

        from flax_mnist.evaluation import evaluate, predict
        from flax_mnist.files import write_atomically
        from flax_mnist.runs.trained import load, load_images
        from flax_mnist.show import page
        from flax_mnist.store.metrics import read_metrics
        from flax_mnist.store.record import read_config, read_environment

        if not self.run_dir.is_dir():
            raise RequestError(f"{self.run_dir}: is no run folder.")
        with terminal.warnings_at_both_ends():
            record = read_config(self.run_dir)
            metrics = read_metrics(self.run_dir)
            if not metrics:
                raise RequestError(f"{self.run_dir}: has not finished its first epoch.")
            environment = read_environment(self.run_dir)
            trained = load(self.run_dir, self.machine)
            network = page.embedded(trained.params)  # refuses before anything takes long
            dataset = load_images(None, self.data_dir, record)
            score = evaluate(trained.params, *dataset.test, model=trained.model)
            loss = float(score.loss)
            if not math.isfinite(loss):
                raise FlaxMnistError(f"{self.run_dir}: its test loss is {loss}; it did not learn.")
            rows = predict(trained.params, dataset.test.images, model=trained.model)
            content = page.page(
                self.run_dir.resolve().name,
                record.config,
                environment,
                metrics,
                dataset,
                loss,
                np.asarray(rows),
                network,
            )
            # A folder's name need not be text.
            write_atomically(self.output, content.encode("utf-8", "backslashreplace"))
            terminal.say(f"Written to {self.output}")
