"""`flax-mnist predict`."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Literal

import tyro

from flax_mnist.cli.flags import (
    Machine,
    RunDataDir,
    RunDataset,
    RunOrFile,
    Switch,
    optional,
    run_of,
)
from flax_mnist.errors import FlaxMnistError, RequestError
from flax_mnist.show import terminal

if TYPE_CHECKING:
    from collections.abc import Sequence

    import numpy as np
    from numpy.typing import NDArray

    from flax_mnist.pictures.reading import Reading
    from flax_mnist.runs.trained import TrainedModel
    from flax_mnist.show.prediction import Prediction


@dataclasses.dataclass(frozen=True)
class Predict:
    """Show the class probabilities of pictures or test images.

    Examples::

        flax-mnist predict runs/a my-own-seven.png
        flax-mnist predict runs/a --index 0 1 2 --output three.png
        flax-mnist predict runs/a page.jpg --all --json
    """

    weights: RunOrFile
    """Run folder, or a file of weights that import takes."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, optional("IMAGE ...")] = ()
    """Picture files, or folders of them. The largest digit on each is found, whatever paper, lines
    or table it lies on, and prepared as MNIST's were; what looks like MNIST's own is taken as it
    is."""
    all: Switch = False
    """Read every digit on a picture, row by row from the left, not the largest alone."""
    invert: Literal["auto", "yes", "no"] = "auto"
    """Whether the ink is darker than its ground, and has to be inverted; auto sees for itself."""
    index: Annotated[tuple[int, ...], optional("N [N ...]")] = ()
    """Test images, counted from 0."""
    dataset: RunDataset = None
    """Whose test images."""
    data_dir: RunDataDir = None
    """Folder with the images, or a file of them, as for train."""
    output: Annotated[Path | None, optional("PICTURE.png")] = None
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
            trained = load(run_of(self.weights), self.machine.start)
            readings, unread = self._read(trained)
            predictions = self._predictions(trained, readings)
            show = prediction_json if self.json else prediction_chart
            for prediction in predictions:
                terminal.say(show(prediction))
            if self.output:
                from flax_mnist.show import figures
                from flax_mnist.show.results import draw_predictions

                figures.save(draw_predictions(predictions), self.output)
        if unread:
            raise FlaxMnistError(f"{unread} could not be read, see above.")

    def _read(self, trained: TrainedModel) -> tuple[list[tuple[str, Reading]], str]:
        """What is on the pictures, with titles, and how many could not be read, in words.

        One bad picture does not refuse the others; where there is no other, it is the request that
        is wrong.
        """
        from flax_mnist.pictures.decode import picture_files
        from flax_mnist.pictures.reading import read_digit, read_digits, read_whole

        files = [file for path in self.images for file in picture_files(path)]
        readings: list[tuple[str, Reading]] = []
        unread = 0
        for file in files:
            try:
                if not trained.of_digits:
                    found = [read_whole(file, self.invert)]
                elif self.all:
                    found = read_digits(file, self.invert)
                else:
                    found = [read_digit(file, self.invert)]
            except RequestError as error:
                if len(files) == 1 and not self.index:
                    raise
                terminal.complain(f"flax-mnist: {error}")
                unread += 1
                continue
            for number, reading in enumerate(found, start=1):
                title = f"{file} ({number} of {len(found)})" if len(found) > 1 else str(file)
                readings.append((title, reading))
                for doubt in reading.doubts:
                    terminal.complain(f"WARNING: {title}: {doubt}.", style="bold yellow")
        return readings, f"{unread} of {len(files)} pictures" if unread else ""

    def _predictions(
        self, trained: TrainedModel, readings: Sequence[tuple[str, Reading]]
    ) -> list[Prediction]:
        import numpy as np

        from flax_mnist.runs.trained import class_probabilities, load_images
        from flax_mnist.show.prediction import Prediction

        # Of each its title, itself, its class where that is known, and what it was found on.
        pictures: list[tuple[str, NDArray[np.uint8], str | None, Reading | None]] = [
            (title, reading.image, None, reading) for title, reading in readings
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
                pictures.append((title, test.images[i], label, None))
        if not pictures:
            return []
        rows = class_probabilities(trained, np.stack([image for _, image, *_ in pictures])).tolist()
        return [
            Prediction(title, image, label, names, row, reading)
            for (title, image, label, reading), row in zip(pictures, rows, strict=True)
        ]
