"""What the commands print: tables, and of trainings the header and a line for each epoch."""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Iterable, Sequence
from typing import TYPE_CHECKING

from flax_mnist.config import CLASSES, PIXELS, WEIGHT_DECAY
from flax_mnist.store.run_folder import OUTCOMES
from flax_mnist.store.sweep_folder import QUANTILES

if TYPE_CHECKING:  # `flax-mnist --help` need not wait for NumPy and JAX
    import jax

    from flax_mnist.config import Config
    from flax_mnist.data.dataset import Dataset
    from flax_mnist.store.metrics import Metrics
    from flax_mnist.store.sweep_folder import Setting

Rows = Sequence[Sequence[str]]  #: Of a table, cell by cell.

SWEEP_LEGEND = """
Means over the seeds, and their standard deviations. correct: of the test
images. ensemble: correct by the mean of the seeds' probabilities."""
FLATTERED = """ The best has
the lowest test loss; since it is chosen by the test images, its own results on
them flatter it a little."""
VALIDATED = """ The best has
the lowest loss on the images that each seed holds out, by which the best epoch
of each member is chosen too: the test images have decided nothing."""

MOST_SETTINGS = 20  #: In a table: of more only the best.

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


def sweep_header(
    dataset: Dataset,
    members: Sequence[Config],
    groups: int,
    devices: Sequence[jax.Device],
    needed: float,
) -> str:
    """What a sweep trains, on what, and where, in so many bytes; each setting has its seeds."""
    config = members[0]
    rates = dict.fromkeys(f"{member.learning_rate:g}" for member in members)
    momenta = dict.fromkeys(f"{member.momentum:g}" for member in members)
    sizes = dict.fromkeys(f"{member.batch_size}" for member in members)
    networks = dict.fromkeys(map(network, members))
    momentum = f", momentum {_some(momenta)}" if config.optimizer == "sgd" else ""
    together = f"in {groups} groups" if groups > 1 else "at once"
    held = f", {config.validation:,} images held out by each seed" if config.validation else ""
    return (
        f"{images(dataset)}{held}\n"
        f"{_some(networks)}, {config.init} initialisation, {config.precision}, "
        f"seeds {config.seed} to {members[-1].seed}\n"
        f"{_optimizer(config)}, learning rates {_some(rates)}{momentum}, "
        f"batches of {_some(sizes)}{_schedule(config)}\n"
        f"{len(members):,} members {together} on {len(devices)} x {devices[0].device_kind}, "
        f"in about {needed / 1e6:,.0f} MB of memory"
    )


def _some(names: Iterable[str]) -> str:
    """All of them where they are few."""
    first, *others = names
    if len(others) < MOST_SETTINGS:
        return ", ".join([first, *others])
    return f"{first}, {others[0]}, ... {others[-1]} ({1 + len(others)} of them)"


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
    """A line for each setting, with mean and spread over its seeds; of many for the best."""
    shown = sorted(settings, key=lambda s: s.rank)[:MOST_SETTINGS]
    if len(settings) <= MOST_SETTINGS:
        shown = list(settings)
    by_validation = any(setting.validation_loss is not None for setting in settings)
    names = setting_columns(settings)
    held = ("held out",) if by_validation else ()
    results = ("test loss", "sd", "correct", "sd", "ensemble", "")
    rows: list[tuple[str, ...]] = [(*names, *held, *results)]
    for setting in shown:
        marks = ["best"] if setting.best else []
        if setting.diverged:
            marks.append(f"{setting.diverged} of {setting.members} diverged")
        held_out = [setting.validation_loss] if by_validation else []
        losses = (*held_out, setting.test_loss, setting.test_loss_sd)
        shares = (setting.test_accuracy, setting.test_accuracy_sd, setting.ensemble_accuracy)
        cells = (
            *(value_of(setting) for value_of in names.values()),
            *("-" if value is None else loss(value) for value in losses),
            *("-" if value is None else f"{value:.2%}" for value in shares),
            ", ".join(marks),
        )
        rows.append(cells)
    sides = ">" * (len(rows[0]) - 1) + "<"
    more = len(settings) - len(shown)
    rest = f"\nand {more:,} more, in {OUTCOMES}" if more else ""
    legend = SWEEP_LEGEND + (VALIDATED if by_validation else FLATTERED)
    return f"{table(rows, sides)}{rest}{_quantiles(settings)}\n{legend}"


def setting_columns(settings: Sequence[Setting]) -> dict[str, Callable[[Setting], str]]:
    """What settings are told apart by, and how each of it is written."""
    columns: dict[str, Callable[[Setting], str]] = {
        "network": lambda s: "-".join(map(str, s.hidden_sizes)),
        "batch": lambda s: str(s.batch_size),
        "learning rate": lambda s: f"{s.learning_rate:g}",
        "momentum": lambda s: f"{s.momentum:g}",
    }
    always = ("learning rate", "momentum")
    return {
        name: value_of
        for name, value_of in columns.items()
        if name in always or len({value_of(setting) for setting in settings}) > 1
    }


def setting_name(setting: Setting, settings: Sequence[Setting]) -> str:
    """A setting by what tells it apart from the others: its learning rate first."""
    columns = setting_columns(settings)
    rate, momentum = columns.pop("learning rate"), columns.pop("momentum")
    besides = [f"{name} {value_of(setting)}" for name, value_of in columns.items()]
    if setting.momentum:
        besides = [f"momentum {momentum(setting)}", *besides]
    return ", ".join([rate(setting), *besides])


def _quantiles(settings: Sequence[Setting]) -> str:
    """Of the best setting, where its seeds are many."""
    best = next((setting for setting in settings if setting.best), None)
    if not best or not best.test_accuracy_quantiles or not best.test_loss_quantiles:
        return ""
    rows = [
        ("of the best", *(f"{q:.0%}" for q in QUANTILES)),
        ("test loss", *map(loss, best.test_loss_quantiles)),
        ("correct", *(f"{share:.2%}" for share in best.test_accuracy_quantiles)),
    ]
    return f"\n\n{table(rows)}"


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
