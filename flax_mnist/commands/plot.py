"""`flax-mnist plot`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import Annotated

import tyro

from flax_mnist import terminal
from flax_mnist.commands.flags import Switch
from flax_mnist.errors import RequestError


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
        from flax_mnist import interop, plots, run_dir

        if self.weights:
            state_dict = interop.load_weights(self.runs[0] / run_dir.WEIGHTS)
            figure = plots.draw_weights(state_dict["0.weight"].T)
        else:
            metrics = {str(path): run_dir.read_metrics(path) for path in self.runs}
            for name, rows in metrics.items():
                if not rows:
                    raise RequestError(f"{name}: has not finished its first epoch.")
            figure = plots.draw_curves(metrics)
        output = self.output or Path("weights.png" if self.weights else "loss.png")
        plots.save(figure, output)
        terminal.say(f"Written to {output}")
