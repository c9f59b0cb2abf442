"""What came of each setting of a sweep: the lines of `outcomes.jsonl`."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import NamedTuple

from flax_mnist.errors import DataError, RequestError
from flax_mnist.files import read, write_atomically
from flax_mnist.store.run_folder import OUTCOMES, SWEEP


class Setting(NamedTuple):
    """A setting of a sweep, and what its seeds came to; None is what they are too few for."""

    learning_rate: float
    momentum: float
    test_loss: float | None  #: Mean over the seeds that did not diverge, nats.
    test_loss_sd: float | None
    test_accuracy: float | None  #: Mean of the shares, 0 to 1.
    test_accuracy_sd: float | None
    ensemble_accuracy: float | None  #: By the mean of the seeds' probabilities.
    members: int  #: Seeds.
    diverged: int  #: Of them.
    best: bool  #: Whether its mean test loss is the lowest.


def outcome_line(setting: Setting) -> str:
    """A setting as it stands in `outcomes.jsonl`."""
    return json.dumps(setting._asdict())


def write_outcomes(path: Path, settings: Sequence[Setting]) -> None:
    """Writes `outcomes.jsonl` into the folder of a sweep.

    Raises:
        FlaxMnistError: it cannot be written.
    """
    lines = "".join(f"{outcome_line(setting)}\n" for setting in settings)
    write_atomically(path / OUTCOMES, lines.encode())


def read_outcomes(path: Path) -> list[Setting]:
    """The settings of the sweep in a folder, in the order of their training.

    Raises:
        RequestError: the folder holds no sweep, or one that did not come to its end.
        DataError: a line is damaged.
    """
    file = path / OUTCOMES
    try:
        rows = [json.loads(line) for line in read(file).splitlines()]
        return [Setting(**row) for row in rows]
    except FileNotFoundError as error:
        is_sweep = (path / SWEEP).exists()
        unfinished = f"a sweep that did not come to its end, or one of before {OUTCOMES}"
        wrong = unfinished if is_sweep else "holds no sweep"
        raise RequestError(f"{path}: {wrong}.") from error
    except (ValueError, TypeError, RecursionError) as error:
        raise DataError(f"{file}: damaged ({error!r}).") from error
