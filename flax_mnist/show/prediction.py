"""An image and what the network makes of it, as a chart in a terminal and as JSON."""

import json
from collections.abc import Sequence
from typing import NamedTuple

import numpy as np
from jaxtyping import UInt8
from PIL import Image

from flax_mnist.pictures.reading import Reading
from flax_mnist.show import terminal

LONGEST_BAR = 40
WIDE_ENOUGH_FOR_IMAGE = 60  #: Columns of a terminal.
WIDE_ENOUGH_FOR_PICTURE = 100
PICTURE_ROWS, PICTURE_COLUMNS = 28, 38  #: Half a character, and one.
HALF_BLOCKS = " ▄▀█"
SHADES = " .:-=+*#%@"


class Prediction(NamedTuple):
    """Everything that is shown of one prediction."""

    title: str  #: Which image it is.
    image: UInt8[np.ndarray, "28 28"]
    label: str | None  #: The name of its class, where that is known.
    names: Sequence[str]  #: Of the ten classes.
    probabilities: Sequence[float]  #: Of the classes, in the same order.
    reading: Reading | None = None  #: The picture it was found on, where there is one.

    @property
    def likeliest(self) -> str:
        """The name of the likeliest class."""
        return self.names[int(np.argmax(self.probabilities))]

    @property
    def is_wrong(self) -> bool:
        """Whether that is known not to be its class."""
        return self.label not in (None, self.likeliest)

    @property
    def confidence(self) -> float:
        """The probability of the likeliest class."""
        return max(self.probabilities)


def prediction_chart(prediction: Prediction) -> str:
    """The likeliest class, and a bar for each; beside them the image, on a terminal with room.

    With more room, also the picture on which the image was found.
    """
    has_blocks = (terminal.out.encoding or "").lower().startswith("utf")
    truth = "" if prediction.label is None else f" (label: {prediction.label})"
    title = f"{prediction.title}: {prediction.likeliest}{truth}"
    if not terminal.out.file.isatty():
        return "\n".join([title, *_bars(prediction, has_blocks, LONGEST_BAR)])
    has_room = terminal.out.width >= WIDE_ENOUGH_FOR_IMAGE
    image = _image(prediction.image, has_blocks) if has_room else []
    if prediction.reading and terminal.out.width >= WIDE_ENOUGH_FOR_PICTURE:
        picture = _image(_outlook(prediction.reading), has_blocks)
        image = [f"{left}  {right}" for left, right in zip(picture, image, strict=True)]
    beside = len(image[0]) + 2 if image else 0
    # All that is in a bar's line but the bar.
    text = beside + max(map(len, prediction.names)) + len("    100.00%  ")
    bars = _bars(prediction, has_blocks, min(LONGEST_BAR, max(0, terminal.out.width - text)))
    if image:
        above = (len(image) - len(bars)) // 2
        bars = [""] * above + bars + [""] * (len(image) - len(bars) - above)
        bars = [f"{row}  {bar}".rstrip() for row, bar in zip(image, bars, strict=True)]
    return "\n".join([title, *bars])


def _bars(prediction: Prediction, has_blocks: bool, longest: int) -> list[str]:
    bar = "█" if has_blocks else "#"
    width = max(map(len, prediction.names))
    return [
        f"  {name:>{width}}  {p:7.2%}  {bar * round(longest * p)}".rstrip()
        for name, p in zip(prediction.names, prediction.probabilities, strict=True)
    ]


def _outlook(reading: Reading) -> UInt8[np.ndarray, "28 width"]:
    """The picture as ink on black, small."""
    grey = reading.picture.mean(axis=-1)
    away = np.abs(grey - np.median(grey))
    scale = min(PICTURE_ROWS / grey.shape[0], PICTURE_COLUMNS / grey.shape[1])
    height, width = (max(1, round(scale * side)) for side in grey.shape)
    ink = Image.fromarray((away * (255 / max(away.max(), 1))).astype(np.uint8))
    frame = Image.new("L", (width, PICTURE_ROWS))
    frame.paste(
        ink.resize((width, height), Image.Resampling.BOX), (0, (PICTURE_ROWS - height) // 2)
    )
    return np.asarray(frame)


def _image(image: UInt8[np.ndarray, "28 width"], has_blocks: bool) -> list[str]:
    """The pixels as 14 rows of characters: half blocks, or shades where there are none."""
    pairs = image.astype(int).reshape(14, 2, -1)
    if has_blocks:
        # A third: lower, and the holes of digits close; higher, and dark clothes vanish.
        ink = 3 * pairs > image.max()
        codes, characters = 2 * ink[:, 0] + ink[:, 1], HALF_BLOCKS
    else:
        codes, characters = pairs.sum(axis=1) * len(SHADES) // 511, SHADES
    return ["".join(characters[code] for code in row) for row in codes]


def prediction_json(prediction: Prediction) -> str:
    """The title, the classes by name and their probabilities as one JSON object.

    Of a picture also what makes it doubtful: `doubts`, a list of sentences.
    """
    content: dict[str, object] = {
        "image": prediction.title,
        "prediction": prediction.likeliest,
        "label": prediction.label,
        "probabilities": dict(zip(prediction.names, prediction.probabilities, strict=True)),
    }
    if prediction.reading:
        content["doubts"] = list(prediction.reading.doubts)
    return json.dumps(content)
