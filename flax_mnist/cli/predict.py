"""`flax-mnist predict`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from flax_mnist.cli.flags import Machine, RunDataDir, RunDataset, RunOrFile, Switch
from flax_mnist.errors import RequestError
from flax_mnist.show import terminal

if TYPE_CHECKING:
    from numpy.typing import NDArray

    from flax_mnist.runs.trained import TrainedModel
    from flax_mnist.show.prediction import Prediction


@dataclasses.dataclass(frozen=True)
class Predict:
    """Show the class probabilities of pictures or test images."""

    weights: RunOrFile
    """Run folder, or a file of weights that import takes."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")] = ()
    """Picture files, a digit each. 28x28 is taken as it is; in any other size the ink is cut out,
    scaled, its proportions kept, and centred as MNIST's digits are."""
    invert: Literal["auto", "yes", "no"] = "auto"
    """Whether the ink is darker than its ground, and has to be inverted; auto sees for itself."""
    index: tuple[int, ...] = ()
    """Test images, counted from 0."""
    dataset: RunDataset = None
    """Whose test images."""
    data_dir: RunDataDir = None
    """Folder with the images, as for train."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="PICTURE.png")] = None
    """Draw the images beside their charts into this file; the ending decides the format."""
    json: Switch = False
    """Print one JSON object a picture instead of a chart."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        if not self.images and not self.index:
            raise RequestError(
                "predict needs picture files, or --index with numbers of test images."
            )
        from flax_mnist.runs.trained import load
        from flax_mnist.show.prediction import prediction_chart, prediction_json

        with terminal.warnings_at_both_ends():
            predictions = self._predictions(load(self.weights, self.machine.start))
            show = prediction_json if self.json else prediction_chart
            for prediction in predictions:
                terminal.say(show(prediction))
            if self.output:
                from flax_mnist.show import figures
                from flax_mnist.show.results import draw_predictions

                figures.save(draw_predictions(predictions), self.output)

    def _predictions(self, trained: TrainedModel) -> list[Prediction]:
        import numpy as np

        from flax_mnist.data.pictures import read_image
        from flax_mnist.runs.trained import class_probabilities, load_images
        from flax_mnist.show.prediction import Prediction

        # Of each its title, itself, and its class where that is known.
        pictures: list[tuple[str, NDArray[np.uint8], str | None]] = [
            (str(path), read_image(path, self.invert), None) for path in self.images
        ]
        names = trained.class_names
        if self.index:
            dataset = load_images(self.dataset, self.data_dir, trained.record)
            names, test = dataset.class_names, dataset.test
            for i in self.index:
                if not 0 <= i < len(test.labels):
                    last = len(test.labels) - 1
                    raise RequestError(f"index is {i}; the test images are 0 to {last}.")
                title, label = f"{dataset.name} test image {i}", names[test.labels[i]]
                pictures.append((title, test.images[i], label))
        images = np.stack([image for _, image, _ in pictures])
        rows = class_probabilities(trained, images).tolist()
        return [
            Prediction(*picture, names, row) for picture, row in zip(pictures, rows, strict=True)
        ]
