"""`flax-mnist evaluate`."""

from __future__ import annotations

import dataclasses
import json
import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import tyro

from flax_mnist.cli.flags import Machine, RunDataDir, RunDataset, Trained
from flax_mnist.errors import FlaxMnistError, RequestError
from flax_mnist.show import terminal, text

if TYPE_CHECKING:
    from flax_mnist.data.dataset import Dataset
    from flax_mnist.scoring import Floats


MISTAKES = 25
"""So many are shown."""


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score trained weights on the test images."""

    weights: Trained
    """Run folder, or safetensors file with PyTorch's names."""
    dataset: RunDataset = None
    """Images to score on."""
    data_dir: RunDataDir = None
    """Folder with the images, as for train."""
    report: Annotated[Path | None, tyro.conf.arg(metavar="DIR")] = None
    """Folder to write confusion.png, classes.png, calibration.png, mistakes.png (the most confident
    ones) and report.json into."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Prints test loss and accuracy."""
        from flax_mnist.evaluation import evaluate, predict
        from flax_mnist.runs.trained import load, load_images

        if self.report:
            _make(self.report)
        with terminal.warnings_at_both_ends():
            trained = load(self.weights, self.machine)
            dataset = load_images(self.dataset, self.data_dir, trained.record)
            score = evaluate(trained.params, *dataset.test, model=trained.model)
            loss = float(score.loss)
            if not math.isfinite(loss):
                raise FlaxMnistError(f"{self.weights}: its test loss is {loss}; it did not learn.")
            terminal.say(text.score(dataset, loss, float(score.accuracy)))
            if self.report:
                import numpy as np

                rows = predict(trained.params, dataset.test.images, model=trained.model)
                _write_report(self.report, dataset, np.asarray(rows), loss)
                terminal.say(f"Report in {self.report}")


def _make(folder: Path) -> None:
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except (FileExistsError, NotADirectoryError) as error:
        raise RequestError(f"{folder}: a file stands in the way of that folder.") from error


def _write_report(folder: Path, dataset: Dataset, probabilities: Floats, loss: float) -> None:
    from flax_mnist import scoring
    from flax_mnist.files import write_atomically
    from flax_mnist.show import figures
    from flax_mnist.show.prediction import Prediction
    from flax_mnist.show.results import (
        draw_calibration,
        draw_classes,
        draw_confusion,
        draw_mistakes,
    )

    images, labels = dataset.test
    names = dataset.class_names
    confusion = scoring.confusion_matrix(probabilities, labels)
    mistakes = [
        Prediction(f"test image {i}", images[i], names[labels[i]], names, probabilities[i].tolist())
        for i in scoring.confident_mistakes(probabilities, labels, MISTAKES)
    ]
    count = confusion.sum() - confusion.trace()
    figures.save(draw_confusion(confusion, names), folder / "confusion.png")
    figures.save(draw_classes(confusion, names), folder / "classes.png")
    figures.save(draw_mistakes(mistakes, count), folder / "mistakes.png")
    calibration = scoring.calibration(probabilities, labels)
    figures.save(draw_calibration(calibration), folder / "calibration.png")
    content = {
        "dataset": {"name": dataset.name, "source": dataset.source},
        "test_loss": loss,
        **scoring.summary(probabilities, labels, names, MISTAKES),
    }
    text = json.dumps(content, indent=2, ensure_ascii=False, allow_nan=False)
    write_atomically(folder / "report.json", f"{text}\n".encode())
