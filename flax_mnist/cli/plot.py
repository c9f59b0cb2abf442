"""`flax-mnist plot`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from flax_mnist.cli.flags import Switch, by_default, run_of
from flax_mnist.errors import RequestError
from flax_mnist.show import terminal


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw the loss and accuracy of runs, or the weights of one.

    Examples::

        flax-mnist plot runs/a
        flax-mnist plot runs/a runs/b --output curves.svg
        flax-mnist plot runs/a --weights
    """

    runs: Annotated[
        tuple[Path, ...],
        tyro.conf.Positional,
        tyro.conf.arg(metavar="RUN_DIR [RUN_DIR ...]", help_behavior_hint="(required)"),
    ]
    """Run folders."""
    weights: Switch = False
    """Draw the weights into each unit of the first layer instead, 28x28 as the images are."""
    output: Annotated[
        Path | None, by_default("PICTURE.png", "loss.png, with --weights weights.png")
    ] = None
    """File to write; the ending decides the format."""
    overwrite: Switch = False
    """Write it although there is one of that name."""

    def run(self) -> None:
        if not self.runs:
            raise RequestError("plot needs run folders.")
        if self.weights and len(self.runs) > 1:
            raise RequestError("--weights draws one run.")
        from flax_mnist.show import figures
        from flax_mnist.store import run_folder
        from flax_mnist.store.metrics import read_finished

        output = self.output or Path("weights.png" if self.weights else "loss.png")
        if output.exists() and not self.overwrite:
            raise RequestError(f"{output}: is there already. Give --output, or --overwrite.")
        runs = [run_of(path) for path in self.runs]
        if self.weights:
            from flax_mnist.show.kernels import draw_weights
            from flax_mnist.store.weights import load_weights

            weights = load_weights(runs[0] / run_folder.WEIGHTS)
            figure = draw_weights(weights["0.weight"].T)
        else:
            figure = figures.draw_curves({str(path): read_finished(path) for path in runs})
        figures.save(figure, output)
        terminal.say(f"Written to {output}")
