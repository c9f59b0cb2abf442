"""`flax-mnist evaluate`."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

from flax_mnist.cli.flags import (
    Machine,
    OptionalDir,
    RunDataDir,
    RunDataset,
    RunOrFile,
    Switch,
    run_of,
)
from flax_mnist.show import terminal, text

if TYPE_CHECKING:
    from flax_mnist.data.dataset import Dataset


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score trained weights on the test images.

    Examples::

        flax-mnist evaluate runs/a
        flax-mnist evaluate runs/a --report report
        flax-mnist evaluate weights.safetensors --dataset mnist --json
    """

    weights: RunOrFile
    """Run folder, or a file of weights that import takes."""
    dataset: RunDataset = None
    """Images to score on."""
    data_dir: RunDataDir = None
    """Folder with the images, or a file of them, as for train."""
    report: OptionalDir = None
    """Folder to write confusion.png, classes.png, calibration.png, mistakes.png (the most confident
    ones) and report.json into."""
    json: Switch = False
    """Print one JSON object instead of lines."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        from flax_mnist.runs.trained import class_probabilities, load, load_images, score

        if self.report:
            from flax_mnist.show.results import Findings, make_report_folder, write_report

            make_report_folder(self.report)
        with terminal.warnings_at_both_ends():
            trained = load(run_of(self.weights), self.machine.start)
            dataset = load_images(self.dataset, self.data_dir, trained.record)
            loss, accuracy = score(trained, dataset)
            if self.json:
                terminal.say(self._object(dataset, loss, accuracy))
            else:
                terminal.say(text.score(dataset, loss, accuracy))
            if self.report:
                probabilities = class_probabilities(trained, dataset.test.images)
                write_report(self.report, Findings(dataset, loss, probabilities))
                if not self.json:
                    terminal.say(f"Report in {self.report}")

    def _object(self, dataset: Dataset, loss: float, accuracy: float) -> str:
        content = {
            "weights": str(self.weights),
            "dataset": dataset.name,
            "source": dataset.source,
            "images": len(dataset.test.labels),
            "test_loss": loss,
            "test_accuracy": round(accuracy, 6),
            "report": str(self.report) if self.report else None,
        }
        return json.dumps(content)
