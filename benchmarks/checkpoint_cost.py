"""What a checkpoint an epoch costs: `python -m benchmarks.checkpoint_cost`.

One run trains on, by turns without and with a checkpoint after each epoch, and otherwise as
`flax-mnist train` does: metrics and weights are written, the test images scored.
"""

import statistics
import sys
import tempfile
import time
from pathlib import Path

from benchmarks import entry
from benchmarks.entry import require_at_least
from benchmarks.tables.statistics import estimate
from flax_mnist.config import CheckpointPolicy, Config
from flax_mnist.data import default_dir
from flax_mnist.data.dataset import Dataset, load_dataset
from flax_mnist.runs.observers import Observer
from flax_mnist.runs.training import train
from flax_mnist.store.checkpoint import Progress
from flax_mnist.store.metrics import Metrics

POLICIES = {"without": CheckpointPolicy("0"), "with": CheckpointPolicy("1")}


class Clock(Observer):
    """Notes when each epoch has ended; what is saved after it belongs to the next one."""

    def __init__(self) -> None:
        self.ends: list[float] = []

    def advance(self, step: int, progress: Progress, metrics: Metrics | None) -> None:
        if metrics:
            self.ends.append(time.perf_counter())


def turn(policy: CheckpointPolicy, dataset: Dataset, folder: Path, epochs: int) -> float:
    """Seconds an epoch of a run that goes on, or begins, until it has so many."""
    clock, config, resume = Clock(), Config(epochs=epochs), folder.exists()
    train(config, dataset, folder, resume=resume, checkpoints=policy, observers=[clock])
    # The first epoch, before which programs are loaded, is left out.
    return (clock.ends[-1] - clock.ends[0]) / (len(clock.ends) - 1)


def main(rounds: int = 20, epochs: int = 5, data_dir: Path | None = None) -> None:
    """Measures what a checkpoint an epoch costs.

    Args:
        rounds: turns of each kind.
        epochs: timed epochs a turn.
        data_dir: MNIST; without it, and without FLAX_MNIST_DATA_DIR, drawn digits.
    """
    require_at_least(1, "rounds", rounds)
    require_at_least(1, "epochs", epochs)
    data_dir = data_dir or default_dir.named()
    dataset = load_dataset("mnist" if data_dir else "synthetic", data_dir)
    seconds: dict[str, list[float]] = {kind: [] for kind in POLICIES}
    with tempfile.TemporaryDirectory() as name:
        trained = 0
        for number in range(rounds):
            # ABBA: a machine that slows down favours neither.
            for kind in list(POLICIES)[:: 1 if number % 2 == 0 else -1]:
                trained += epochs + 1
                seconds[kind].append(turn(POLICIES[kind], dataset, Path(name) / "run", trained))
    without, with_ = seconds.values()
    ratio = estimate([b / a for a, b in zip(without, with_, strict=True)])
    percent = [f"{100 * (value - 1):+.1f}" for value in ratio]
    print(
        f"an epoch: {statistics.median(without):.4f} s without, {statistics.median(with_):.4f} s "
        f"with a checkpoint; {percent[0]} % (95 % {percent[1]} to {percent[2]} %, "
        f"{rounds} pairs of {epochs} epochs)"
    )


if __name__ == "__main__":
    sys.exit(entry.run(main, "python -m benchmarks.checkpoint_cost"))
