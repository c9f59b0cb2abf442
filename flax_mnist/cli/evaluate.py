"""`flax-mnist evaluate`."""

import dataclasses

from flax_mnist.cli.flags import Machine, OptionalDir, RunDataDir, RunDataset, RunOrFile
from flax_mnist.show import terminal, text


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score trained weights on the test images."""

    weights: RunOrFile
    """Run folder, or a file of weights that import takes."""
    dataset: RunDataset = None
    """Images to score on."""
    data_dir: RunDataDir = None
    """Folder with the images, or a file of them, as for train."""
    report: OptionalDir = None
    """Folder to write confusion.png, classes.png, calibration.png, mistakes.png (the most confident
    ones) and report.json into."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        from flax_mnist.runs.trained import class_probabilities, load, load_images, score

        if self.report:
            from flax_mnist.show.results import Findings, make_report_folder, write_report

            make_report_folder(self.report)
        with terminal.warnings_at_both_ends():
            trained = load(self.weights, self.machine.start)
            dataset = load_images(self.dataset, self.data_dir, trained.record)
            loss, accuracy = score(trained, dataset)
            terminal.say(text.score(dataset, loss, accuracy))
            if self.report:
                probabilities = class_probabilities(trained, dataset.test.images)
                write_report(self.report, Findings(dataset, loss, probabilities))
                terminal.say(f"Report in {self.report}")
