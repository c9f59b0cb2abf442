"""PyTorch's side of the comparison of independent runs: the tutorial, trained from many seeds.

    python -m benchmarks.torch_seeds --data-dir DIR
    python -m benchmarks.torch_seeds --dataset synthetic

write `benchmarks/results/torch_seeds.json`, one run a line. It is stored since 64 runs one after
the other take five minutes.
"""

from __future__ import annotations

import json
import platform
import re
from pathlib import Path
from typing import Any

import torch
import tyro

from benchmarks import torch_reference as reference
from flax_mnist.config import Config, DatasetName
from flax_mnist.data.dataset import Dataset, load_dataset

RESULTS = Path(__file__).parent / "results" / "torch_seeds.json"


def torch_seeds(dataset: Dataset, seeds: int) -> dict[str, Any]:
    """Trains the tutorial's network from seeds 0, 1, ..., each deciding its weights and order."""
    config = Config()
    inputs = reference.normalize(dataset.train.images)
    targets = torch.tensor(dataset.train.labels).long()
    test_inputs = reference.normalize(dataset.test.images)
    test_targets = torch.tensor(dataset.test.labels).long()
    runs = []
    for seed in range(seeds):
        torch.manual_seed(seed)
        model = reference.build_model(config.hidden_sizes)
        generator = torch.Generator().manual_seed(seed)
        losses = reference.train_in_order(
            model,
            inputs,
            targets,
            [reference.dataloader_order(len(targets), generator) for _ in range(config.epochs)],
            config.batch_size,
            config.learning_rate,
            config.momentum,
        )
        test_loss, accuracy = reference.evaluate(model, test_inputs, test_targets)
        print(f"seed {seed}: test loss {test_loss:.4f}, test accuracy {accuracy:.2%}", flush=True)
        runs.append(
            {
                "seed": seed,
                "train_losses": [round(loss, 6) for loss in losses],
                "test_loss": round(test_loss, 6),
                "test_accuracy": round(accuracy, 6),
            }
        )
    fields = ("epochs", "batch_size", "learning_rate", "momentum", "hidden_sizes")
    return {
        "data": dataset.digest(),
        "config": {name: getattr(config, name) for name in fields},
        "versions": {
            "torch": torch.__version__,
            "python": platform.python_version(),
            "machine": platform.machine(),
        },
        "runs": runs,
    }


def load(dataset: Dataset) -> list[dict[str, Any]]:
    """The stored runs on this dataset.

    Raises:
        LookupError: there are none on these very images and labels.
    """
    stored = _stored().get(dataset.name)
    if stored is None or stored["data"] != dataset.digest():
        raise LookupError(
            f"{RESULTS.name} holds no runs on this {dataset.name}: "
            f"python -m benchmarks.torch_seeds --dataset {dataset.name} adds them."
        )
    runs: list[dict[str, Any]] = stored["runs"]
    return runs


def _stored() -> dict[str, Any]:
    stored: dict[str, Any] = json.loads(RESULTS.read_text()) if RESULTS.exists() else {}
    return stored


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
    torch.set_num_threads(threads)
    data = load_dataset(dataset, data_dir)
    results = _stored() | {data.name: torch_seeds(data, seeds)}
    RESULTS.parent.mkdir(exist_ok=True)
    RESULTS.write_text(dump(results))


if __name__ == "__main__":
    tyro.cli(main)
