"""What the commands print: tables, and of trainings the header and a line for each epoch."""

from __future__ import annotations

import math
import re
from collections.abc import Sequence
from typing import TYPE_CHECKING

from flax_mnist.config import CLASSES, PIXELS, WEIGHT_DECAY

if TYPE_CHECKING:  # `flax-mnist --help` need not wait for NumPy and JAX
    import jax

    from flax_mnist.config import Config
    from flax_mnist.data.dataset import Dataset
    from flax_mnist.devices.memory import Plan
    from flax_mnist.store.metrics import Metrics
    from flax_mnist.store.outcomes import Setting

Rows = Sequence[Sequence[str]]  #: Of a table, cell by cell.

SWEEP_LEGEND = """
Means over the seeds, and their standard deviations. correct: of the test
images. ensemble: correct by the mean of the seeds' probabilities. The best has
the lowest test loss; since it is chosen by the test images, its own results on
them flatter it a little."""

_NUMBER = re.compile(r"[-+±]?\d")


def images(dataset: Dataset) -> str:
    """How many images a dataset has, and where they are from."""
    n_train, n_test = dataset.counts
    held = f", {len(dataset.validation.labels):,} validation" if dataset.validation else ""
    counts = f"{n_train:,} training{held} and {n_test:,} test images"
    return f"{dataset.name}: {counts} from {dataset.source}"


def network(config: Config) -> str:
    """Kind and sizes of a network, from its input to its output: `784-128-64-10 MLP`."""
    return f"{'-'.join(map(str, (PIXELS, *config.hidden_sizes, CLASSES)))} MLP"


def header(config: Config, dataset: Dataset, device: jax.Device) -> str:
    """What a run trains, on what, and where."""
    count = config.weights + sum(config.hidden_sizes) + CLASSES
    kind = "" if device.device_kind == device.platform else f" ({device.device_kind})"
    momentum = f", momentum {config.momentum:g}" if config.momentum else ""
    return (
        f"{images(dataset)}\n"
        f"{network(config)}, {count:,} parameters, {config.init} initialisation, "
        f"{config.precision}, seed {config.seed}\n"
        f"{_optimizer(config)}, learning rate {config.learning_rate:g}{momentum}, "
        f"batches of {config.batch_size}, on {device.platform}{kind}{_schedule(config)}"
    )


def loss(value: float) -> str:
    """A loss in nats, as precise as it is worth in eight characters."""
    return f"{value:.4f}" if abs(value) < 1000 else f"{value:.3g}"


def seconds(value: float) -> str:
    """A time with three figures or so: `0.11 s`, `12.3 s`, `1,234 s`."""
    digits = 2 if value < 10 else 1 if value < 100 else 0
    return f"{value:,.{digits}f} s"


def rate(images_per_second: float) -> str:
    """How fast it goes: `850 images/s`, `219k images/s`, `1.23M images/s`."""
    if images_per_second < 10_000:
        return f"{images_per_second:,.0f} images/s"
    if images_per_second < 999_500:
        return f"{images_per_second / 1e3:.0f}k images/s"
    return f"{images_per_second / 1e6:.2f}M images/s"


def _optimizer(config: Config) -> str:
    if config.optimizer == "adamw":
        decay = WEIGHT_DECAY if config.weight_decay is None else config.weight_decay
        return f"AdamW, weight decay {decay:g}"
    return {"sgd": "SGD", "adam": "Adam"}[config.optimizer]


def _schedule(config: Config) -> str:
    if config.schedule == "constant" and not config.warmup:
        return ""
    rise = f" after a warm-up of {config.warmup:g} epochs" if config.warmup else ""
    return f"\nSchedule: {config.schedule}{rise}"


def epoch_line(metrics: Metrics, epochs: int) -> str:
    """An epoch's metrics, in 80 columns; the tutorial's `Training loss: ...` among them.

    Behind `test` stand loss and accuracy on the test images.
    """
    return (
        f"Epoch {metrics.epoch}/{epochs}  Training loss: {loss(metrics.train_loss)}  "
        f"test {loss(metrics.test_loss)}, {metrics.test_accuracy:.2%}  "
        f"{seconds(metrics.seconds)}  {rate(metrics.images_per_second)}{_validation(metrics)}"
    )


def _validation(metrics: Metrics) -> str:
    if metrics.validation_loss is None or metrics.validation_accuracy is None:
        return ""
    return f"\n  validation {loss(metrics.validation_loss)}, {metrics.validation_accuracy:.2%}"


def score(dataset: Dataset, test_loss: float, accuracy: float) -> str:
    """Test loss and accuracy, and of which images they are."""
    n = len(dataset.test.labels)
    return (
        f"{dataset.name}: {n:,} test images from {dataset.source}\n"
        f"test loss {loss(test_loss)}  test accuracy {accuracy:.2%}"
    )


def sweep_header(dataset: Dataset, plan: Plan) -> str:
    """What a sweep trains, on what, and where; the seeds of each setting are in their order."""
    members = [config for group in plan.groups for config in group]
    config, devices = members[0], plan.mesh.devices
    rates = dict.fromkeys(f"{member.learning_rate:g}" for member in members)
    momenta = dict.fromkeys(f"{member.momentum:g}" for member in members)
    momentum = f", momentum {', '.join(momenta)}" if config.optimizer == "sgd" else ""
    together = f"in {len(plan.groups)} groups" if len(plan.groups) > 1 else "at once"
    return (
        f"{images(dataset)}\n"
        f"{network(config)}, {config.init} initialisation, {config.precision}, "
        f"seeds {config.seed} to {members[-1].seed}\n"
        f"{_optimizer(config)}, learning rates {', '.join(rates)}{momentum}, "
        f"batches of {config.batch_size}{_schedule(config)}\n"
        f"{len(members)} members {together} on {devices.size} x {devices[0].device_kind}, "
        f"in about {plan.bytes / 1e6:,.0f} MB"
    )


def sweep_line(group: int, groups: int, epochs: int, metrics: Sequence[Metrics]) -> str:
    """An epoch of a group, which is counted from 0: the range of its members' test losses.

    The seconds in a member's metrics are its share of the group's.
    """
    where = f"Group {group + 1}/{groups}  " if groups > 1 else ""
    losses = [m.test_loss for m in metrics if not math.isnan(m.test_loss)]
    diverged = len(metrics) - len(losses)
    parts = [f"{where}Epoch {metrics[0].epoch}/{epochs}"]
    parts += [f"test {loss(min(losses))} to {loss(max(losses))}"] if losses else []
    parts += [f"{diverged} diverged"] if diverged else []
    together = seconds(metrics[0].seconds * len(metrics))
    return "  ".join([*parts, together, rate(metrics[0].images_per_second)])


def sweep_table(settings: Sequence[Setting]) -> str:
    """A line for each setting, with mean and spread over its seeds."""
    rows: list[tuple[str, ...]] = [
        ("learning rate", "momentum", "test loss", "sd", "correct", "sd", "ensemble", "")
    ]
    for setting in settings:
        marks = ["best"] if setting.best else []
        if setting.diverged:
            marks.append(f"{setting.diverged} of {setting.members} diverged")
        losses = (setting.test_loss, setting.test_loss_sd)
        shares = (setting.test_accuracy, setting.test_accuracy_sd, setting.ensemble_accuracy)
        cells = (
            f"{setting.learning_rate:g}",
            f"{setting.momentum:g}",
            *("-" if value is None else loss(value) for value in losses),
            *("-" if value is None else f"{value:.2%}" for value in shares),
            ", ".join(marks),
        )
        rows.append(cells)
    return f"{table(rows, '>>>>>>><')}\n{SWEEP_LEGEND}"


def table(rows: Rows, sides: Sequence[str] | None = None) -> str:
    """Columns two spaces apart, as a terminal shows them; the first row is the header.

    `sides` says of each column whether its cells are moved to the left, `<`, or to the right, `>`.
    Where it is not given, numbers go right, and names, as those in the first column, left.

    Raises:
        ValueError: rows, or a row and the sides, are not of the same length.
    """
    sides = sides or _sides(rows)
    return "\n".join("  ".join(row).rstrip() for row in _aligned(rows, sides, narrowest=0))


def markdown(rows: Rows, sides: Sequence[str] | None = None) -> str:
    """A table of Markdown that is as easy to read unrendered; arguments and errors as `table`."""
    sides = sides or _sides(rows)
    # No cell is shorter than the shortest rule that every reader of Markdown knows: `--:`.
    header, *body = _aligned(rows, sides, narrowest=3)
    dashes = (
        "-" * (len(cell) + 1) + (":" if side == ">" else "-")
        for cell, side in zip(header, sides, strict=True)
    )
    lines = [f"| {' | '.join(row)} |" for row in (header, *body)]
    return "\n".join([lines[0], f"|{'|'.join(dashes)}|", *lines[1:]])


def _sides(rows: Rows) -> list[str]:
    """To the right where any cell under the header begins with a number."""
    _, *columns = zip(*rows, strict=True)
    return ["<", *(">" if any(map(_NUMBER.match, column[1:])) else "<" for column in columns)]


def _aligned(rows: Rows, sides: Sequence[str], narrowest: int) -> list[list[str]]:
    """The cells, each filled up to the width of its column."""
    widths = [max(narrowest, *map(len, column)) for column in zip(*rows, strict=True)]
    return [
        [f"{cell:{side}{width}}" for cell, side, width in zip(row, sides, widths, strict=True)]
        for row in rows
    ]
