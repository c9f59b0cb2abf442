"""`flax-mnist report`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from flax_mnist.cli.flags import Machine, RunDataDir, Switch, run_of
from flax_mnist.show import terminal


@dataclasses.dataclass(frozen=True)
class Report:
    """Write a run as one web page, with a canvas to draw digits for the network on.

    Examples::

        flax-mnist report runs/a --output a.html
        flax-mnist report runs/a --output a.html --data-dir /data/mnist
    """

    run_dir: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR")]
    """Run folder."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE.html")]
    """File to write; it needs no other file and no network."""
    data_dir: RunDataDir = None
    """Folder with the run's images, as for train."""
    paths: Switch = False
    """Show where on this machine images and run were; without it, only their names."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        from flax_mnist.runs.run_page import write_page

        with terminal.warnings_at_both_ends():
            run = run_of(self.run_dir)
            write_page(run, self.output, self.data_dir, self.machine.start, self.paths)
            terminal.say(f"Written to {self.output}")
