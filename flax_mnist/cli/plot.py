"""`flax-mnist plot`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from flax_mnist.cli.flags import Switch
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
        Path | None,
        tyro.conf.arg(
            metavar="PICTURE.png",
            help_behavior_hint="(default: loss.png, with --weights weights.png)",
        ),
    ] = None
    """File to write; the ending decides the format."""

    def run(self) -> None:
        """Writes the picture."""
        if not self.runs:
            raise RequestError("plot needs run folders.")
        if self.weights and len(self.runs) > 1:
            raise RequestError("--weights draws one run.")
        from flax_mnist.show import figures
        from flax_mnist.show.curves import draw_curves
        from flax_mnist.show.kernels import draw_weights
        from flax_mnist.store import run_folder
        from flax_mnist.store.metrics import read_metrics
        from flax_mnist.store.weights import load_weights

        if self.weights:
            state_dict = load_weights(self.runs[0] / run_folder.WEIGHTS)
            figure = draw_weights(state_dict["0.weight"].T)
        else:
            metrics = {str(path): read_metrics(path) for path in self.runs}
            for name, rows in metrics.items():
                if not rows:
                    raise RequestError(f"{name}: has not finished its first epoch.")
            figure = draw_curves(metrics)
        output = self.output or Path("weights.png" if self.weights else "loss.png")
        figures.save(figure, output)
        terminal.say(f"Written to {output}")
