"""What a checkpoint an epoch costs: `python -m benchmarks.checkpoint_cost`.

One process trains on, by turns without and with a checkpoint after each epoch, and otherwise as
`flax-mnist train` does: metrics and weights are written, the test images scored.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import tempfile
import time
from pathlib import Path

from benchmarks.statistics import estimate
from flax_mnist.config import Config
from flax_mnist.data.dataset import load_dataset
from flax_mnist.data.order import steps_per_epoch
from flax_mnist.runs import loop, observers
from flax_mnist.store import checkpoint


def main(argv: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.checkpoint_cost")
    parser.add_argument("--rounds", type=int, default=20, help="turns of each kind")
    parser.add_argument("--epochs", type=int, default=5, help="epochs a turn")
    parser.add_argument("--data-dir", default=os.environ.get("FLAX_MNIST_DATA_DIR"))
    arguments = parser.parse_args(argv)
    dataset = load_dataset("mnist" if arguments.data_dir else "synthetic", arguments.data_dir)
    n, turn = len(dataset.train.labels), arguments.epochs
    # One turn more than is counted: the first one of each kind warms up.
    config = Config(epochs=2 * turn * (arguments.rounds + 1))
    steps = steps_per_epoch(config, n)
    progress = loop.begin(config)
    run_chunk = loop.compile_chunks(config, progress, dataset.train, steps)
    identity = checkpoint.identity(config, dataset)
    seconds: dict[bool, list[float]] = {False: [], True: []}
    with tempfile.TemporaryDirectory() as name, contextlib.ExitStack() as stack:
        keep = observers.folder(Path(name), dataset.name)
        start = time.perf_counter()
        for now, metrics in loop.fit(config, dataset, progress, run_chunk, steps):
            if metrics is None:
                continue
            keep(now, metrics)
            saves = (now.epoch - 1) // turn % 2 == 1
            if saves:
                if (now.epoch - 1) % turn == 0:
                    saving = checkpoint.saving(Path(name), identity, keep=3)
                    save = stack.enter_context(saving)
                save(metrics.step, now)
            if now.epoch % turn == 0:
                stack.close()  # the last one belongs to this turn
                end = time.perf_counter()
                seconds[saves].append((end - start) / turn)
                start = end
    without, with_ = (times[1:] for times in (seconds[False], seconds[True]))
    ratio = estimate([b / a for a, b in zip(without, with_, strict=True)])
    a, b = statistics.median(without), statistics.median(with_)
    percent = [f"{100 * (value - 1):+.1f}" for value in ratio]
    print(
        f"an epoch: {a:.4f} s without, {b:.4f} s with a checkpoint; {percent[0]} % (95 % "
        f"{percent[1]} to {percent[2]} %, {arguments.rounds} pairs of {turn} epochs)"
    )


if __name__ == "__main__":
    main()
