"""`flax-mnist plot`."""

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from flax_mnist.cli.flags import Switch, by_default
from flax_mnist.errors import RequestError
from flax_mnist.show import terminal


@dataclasses.dataclass(frozen=True)
class Plot:
    """Draw the loss and accuracy of runs, or the weights of one."""

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

    def run(self) -> None:
        if not self.runs:
            raise RequestError("plot needs run folders.")
        if self.weights and len(self.runs) > 1:
            raise RequestError("--weights draws one run.")
        from flax_mnist.show import figures
        from flax_mnist.store import run_folder
        from flax_mnist.store.metrics import read_finished

        if self.weights:
            from flax_mnist.show.kernels import draw_weights
            from flax_mnist.store.weights import load_weights

            output = self.output or Path("weights.png")
            weights = load_weights(self.runs[0] / run_folder.WEIGHTS)
            figure = draw_weights(weights["0.weight"].T)
        else:
            output = self.output or Path("loss.png")
            figure = figures.draw_curves({str(path): read_finished(path) for path in self.runs})
        figures.save(figure, output)
        terminal.say(f"Written to {output}")
