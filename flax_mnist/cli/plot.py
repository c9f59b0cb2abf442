"""`flax-mnist plot`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from flax_mnist.cli.flags import Switch
from flax_mnist.errors import RequestError
from flax_mnist.show import terminal

if TYPE_CHECKING:
    from matplotlib.figure import Figure


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
        if not self.runs:
            raise RequestError("plot needs run folders.")
        if self.weights and len(self.runs) > 1:
            raise RequestError("--weights draws one run.")
        from flax_mnist.show.figures import save

        figure = self._weights() if self.weights else self._curves()
        output = self.output or Path("weights.png" if self.weights else "loss.png")
        save(figure, output)
        terminal.say(f"Written to {output}")

    def _weights(self) -> Figure:
        from flax_mnist.show.kernels import draw_weights
        from flax_mnist.store import run_folder
        from flax_mnist.store.weights import load_weights

        state_dict = load_weights(self.runs[0] / run_folder.WEIGHTS)
        return draw_weights(state_dict["0.weight"].T)

    def _curves(self) -> Figure:
        from flax_mnist.show.figures import draw_curves
        from flax_mnist.store.metrics import read_finished

        return draw_curves({str(path): read_finished(path) for path in self.runs})
