"""What is kept of a sweep that has come to its end: the best member as a run, and pictures."""

from pathlib import Path

import jax
import numpy as np
from jaxtyping import Float64

from flax_mnist.devices.environment import describe
from flax_mnist.runs.observers import draw_curves
from flax_mnist.show import figures, text
from flax_mnist.store import run_folder, sweep_folder
from flax_mnist.store.metrics import append_metrics
from flax_mnist.store.record import Record, write_config
from flax_mnist.store.sweep_folder import DIFFERENT, Setting
from flax_mnist.store.weights import save_weights
from flax_mnist.sweeps.plan import Plan
from flax_mnist.sweeps.tally import MANY_SEEDS, HostParams, Tally

MOST_SETTINGS = 9  #: In a picture: the best ones.


def write_best(sweep_dir: Path, record: Record, device: jax.Device, params: HostParams) -> None:
    """Keeps a member as `train` keeps a run, but for its checkpoints.

    Raises:
        FlaxMnistError: a file cannot be written.
    """
    path = run_folder.create(sweep_dir / run_folder.BEST, record.dataset, resume=True)
    path.mkdir(exist_ok=True)
    write_config(path, record, describe(device, record.config))
    (path / run_folder.METRICS).unlink(missing_ok=True)  # of a process that was killed here
    own = {name: getattr(record.config, name) for name in DIFFERENT}
    for what, metrics in sweep_folder.read_rows(sweep_dir):
        if what == own:
            append_metrics(path, metrics, record.dataset)
    save_weights(path / run_folder.WEIGHTS, jax.device_put(params))
    draw_curves(path)


def draw(sweep_dir: Path, plan: Plan, tally: Tally, settings: list[Setting]) -> None:
    """Draws the curves of the best settings, and where seeds are many how accurate they are."""
    best = sorted(range(len(settings)), key=lambda i: settings[i].rank)[:MOST_SETTINGS]
    best.sort()
    labels = {i: text.setting_name(settings[i], settings) for i in best}
    losses = _losses(sweep_dir, plan)
    of_setting = losses.reshape(len(settings), tally.seeds, *losses.shape[1:])
    curves = {labels[i]: of_setting[i] for i in best}
    figures.save(figures.draw_sweep(curves), sweep_dir / run_folder.CURVES)
    if tally.seeds >= MANY_SEEDS:
        accuracies = tally.results[:, 1].reshape(len(settings), tally.seeds)
        figure = figures.draw_histogram({labels[i]: accuracies[i] for i in best})
        figures.save(figure, sweep_dir / run_folder.HISTOGRAM)


def _losses(sweep_dir: Path, plan: Plan) -> Float64[np.ndarray, "members epochs 2"]:
    """Training and test loss of each member after each epoch."""
    numbers = {
        tuple(getattr(config, name) for name in DIFFERENT): i
        for i, config in enumerate(plan.members)
    }
    losses = np.full((len(numbers), plan.groups[0].template.epochs, 2), np.nan)
    for what, metrics in sweep_folder.read_rows(sweep_dir):
        number = numbers[tuple(what[name] for name in DIFFERENT)]
        losses[number, metrics.epoch - 1] = metrics.train_loss, metrics.test_loss
    return losses
