"""What a checkpoint an epoch costs: `python -m benchmarks.checkpoint_cost`.

One run trains on, by turns without and with a checkpoint after each epoch, and otherwise as
`flax-mnist train` does: metrics and weights are written, the test images scored.
"""

import argparse
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.tables.statistics import estimate
from flax_mnist.config import CheckpointPolicy, Config
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


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint_cost")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each kind")
    parser.add_argument("--epochs", type=int, default=5, help="timed epochs a turn")
    parser.add_argument("--data-dir", default=os.environ.get("FLAX_MNIST_DATA_DIR"))
    arguments = parser.parse_args(argv)
    dataset = load_dataset("mnist" if arguments.data_dir else "synthetic", arguments.data_dir)
    seconds: dict[str, list[float]] = {kind: [] for kind in POLICIES}
    with tempfile.TemporaryDirectory() as name:
        epochs = 0
        for number in range(arguments.rounds):
            # ABBA: a machine that slows down favours neither.
            for kind in list(POLICIES)[:: 1 if number % 2 == 0 else -1]:
                epochs += arguments.epochs + 1
                seconds[kind].append(turn(POLICIES[kind], dataset, Path(name) / "run", epochs))
    without, with_ = seconds.values()
    ratio = estimate([b / a for a, b in zip(without, with_, strict=True)])
    percent = [f"{100 * (value - 1):+.1f}" for value in ratio]
    print(
        f"an epoch: {statistics.median(without):.4f} s without, {statistics.median(with_):.4f} s "
        f"with a checkpoint; {percent[0]} % (95 % {percent[1]} to {percent[2]} %, "
        f"{arguments.rounds} pairs of {arguments.epochs} epochs)"
    )


if __name__ == "__main__":
    main()
