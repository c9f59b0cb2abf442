"""PyTorch's side of the comparison of independent runs: the tutorial, trained from many seeds.

    python -m benchmarks.torch_seeds --data-dir DIR
    python -m benchmarks.torch_seeds --dataset synthetic

write `benchmarks/results/torch_seeds.json`, one run a line. It is stored since 64 runs one after
the other take five minutes.
"""

import json
import platform
import re
import sys
from pathlib import Path
from typing import Any

import torch

from benchmarks import entry
from benchmarks.entry import require_at_least
from benchmarks.equivalence import stored_runs
from benchmarks.equivalence.sides import torch_weights
from benchmarks.equivalence.torch_reference import dataloader_order
from benchmarks.equivalence.trainings import torch_run
from flax_mnist.config import Config, DatasetName
from flax_mnist.data.dataset import Dataset, load_dataset


def torch_seeds(dataset: Dataset, seeds: int) -> dict[str, Any]:
    """Trains the tutorial's network from seeds 0, 1, ..., each deciding its weights and order."""
    config, n = Config(), len(dataset.train.labels)
    runs = []
    for seed in range(seeds):
        weights, generator = torch_weights(seed, config), torch.Generator().manual_seed(seed)
        orders = [dataloader_order(n, generator) for _ in range(config.epochs)]
        losses, _, test_loss, accuracy = torch_run(weights, dataset, orders, config)
        print(f"seed {seed}: test loss {test_loss:.4f}, test accuracy {accuracy:.2%}", flush=True)
        run = {
            "seed": seed,
            "train_losses": [round(loss, 6) for loss in losses],
            "test_loss": round(test_loss, 6),
            "test_accuracy": round(accuracy, 6),
        }
        runs.append(run)
    fields = ("epochs", "batch_size", "learning_rate", "momentum", "hidden_sizes")
    python, machine = platform.python_version(), platform.machine()
    return {
        "data": dataset.digest(),
        "config": {name: getattr(config, name) for name in fields},
        "versions": {"torch": torch.__version__, "python": python, "machine": machine},
        "runs": runs,
    }


def dump(results: dict[str, Any]) -> str:
    """JSON with one run a line, so that a difference between two versions can be read."""
    deeper_than_a_run = re.compile(r"\n {4,}|\n {3}(?=[}\]])")
    return deeper_than_a_run.sub(" ", json.dumps(results, indent=1)) + "\n"


def main(
    data_dir: Path | None = None, dataset: DatasetName = "mnist", seeds: int = 64, threads: int = 1
) -> None:
    """Trains the PyTorch tutorial from many seeds and stores the results.

    Args:
        data_dir: a folder with the dataset's four IDX files.
        dataset: what to train on.
        seeds: how many runs.
        threads: PyTorch's; a step is too small to gain from more than one.
    """
    require_at_least(1, "threads", threads)
    require_at_least(1, "seeds", seeds)
    torch.set_num_threads(threads)
    data = load_dataset(dataset, data_dir)
    results = stored_runs.read() | {data.name: torch_seeds(data, seeds)}
    stored_runs.FILE.write_text(dump(results))


if __name__ == "__main__":
    sys.exit(entry.run(main, "python -m benchmarks.torch_seeds"))
