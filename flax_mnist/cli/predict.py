"""`flax-mnist predict`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from flax_mnist.cli.flags import Machine, RunDataDir, RunDataset, Switch, Trained
from flax_mnist.errors import FlaxMnistError, RequestError
from flax_mnist.show import terminal
from flax_mnist.show.prediction import prediction_chart, prediction_json

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

    from flax_mnist.data.dataset import Dataset

    Picture = tuple[str, NDArray[np.uint8], str | None]  # title, image, class if known


@dataclasses.dataclass(frozen=True)
class Predict:
    """Show the class probabilities of pictures or test images."""

    weights: Trained
    """Run folder, or safetensors file with PyTorch's names."""
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
        """Prints ten probabilities for each picture."""
        if not self.images and not self.index:
            raise RequestError(
                "predict needs picture files, or --index with numbers of test images."
            )
        import numpy as np

        from flax_mnist.data.dataset import DIGITS
        from flax_mnist.data.pictures import read_image
        from flax_mnist.evaluation import predict
        from flax_mnist.runs.trained import load, load_images
        from flax_mnist.show.prediction import Prediction

        with terminal.warnings_at_both_ends():
            trained = load(self.weights, self.machine)
            pictures: list[Picture] = [
                (str(path), read_image(path, self.invert), None) for path in self.images
            ]
            names = trained.record.class_names if trained.record else DIGITS
            if self.index:
                dataset = load_images(self.dataset, self.data_dir, trained.record)
                names = dataset.class_names
                pictures += [_test_picture(dataset, i) for i in self.index]
            images = np.stack([image for _, image, _ in pictures])
            rows = np.asarray(predict(trained.params, images, model=trained.model)).tolist()
            if not np.isfinite(rows).all():
                raise FlaxMnistError(f"{self.weights}: predicts what is not finite.")
            predictions = [
                Prediction(*picture, names, row)
                for picture, row in zip(pictures, rows, strict=True)
            ]
            show = prediction_json if self.json else prediction_chart
            for prediction in predictions:
                terminal.say(show(prediction))
            if self.output:
                from flax_mnist.show import figures
                from flax_mnist.show.results import draw_predictions

                figures.save(draw_predictions(predictions), self.output)


def _test_picture(dataset: Dataset, index: int) -> Picture:
    images, labels = dataset.test
    if not 0 <= index < len(labels):
        raise RequestError(f"index is {index}; the test images are 0 to {len(labels) - 1}.")
    return f"{dataset.name} test image {index}", images[index], dataset.class_names[labels[index]]
