"""`flax-mnist evaluate`."""

from __future__ import annotations

import dataclasses
import math

from flax_mnist import terminal
from flax_mnist.commands.flags import Machine, RunDataDir, RunDataset, Trained
from flax_mnist.errors import FlaxMnistError


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score trained weights on the test images."""

    weights: Trained
    """Run folder, or safetensors file with PyTorch's names."""
    dataset: RunDataset = None
    """Images to score on."""
    data_dir: RunDataDir = None
    """Folder with the images, as for train."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Prints test loss and accuracy."""
        from flax_mnist.commands import trained as trained_weights
        from flax_mnist.evaluation import evaluate

        with terminal.warnings_at_both_ends():
            trained = trained_weights.load(self.weights, self.machine)
            dataset = trained_weights.load_images(self.dataset, self.data_dir, trained.record)
            score = evaluate(trained.params, *dataset.test, model=trained.model)
            loss = float(score.loss)
            if not math.isfinite(loss):
                raise FlaxMnistError(f"{self.weights}: its test loss is {loss}; it did not learn.")
            terminal.say(terminal.score(dataset, loss, float(score.accuracy)))
