"""Loops that take their batches from a DataLoader of single images."""

from collections.abc import Iterator
from typing import Any

import torch
from torch.utils.data import DataLoader

from benchmarks.equivalence import torch_reference as reference
from benchmarks.harness.program import Settings
from benchmarks.loops.pytorch.base import PyTorchLoop
from flax_mnist.data.dataset import Dataset


class _OnDevice:
    """A loader whose batches are moved to the device as they come."""

    def __init__(self, loader: DataLoader[reference.Sample], place: torch.device) -> None:
        self.loader, self.place = loader, place

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        for images, labels in self.loader:
            yield [images.to(self.place, non_blocking=True), labels.to(self.place)]


class Tutorial(PyTorchLoop):
    """The tutorial's loop word for word, `DataLoader` and `.item()` included."""

    shuffles_on_cpu = True

    def prepare(self, dataset: Dataset, settings: Settings) -> None:
        loader = reference.tutorial_loader(*dataset.train, self.config.batch_size, self.generator)
        # The tutorial itself runs on the CPU only; a GPU takes this one addition.
        self.loader: Any = loader if self.place.type == "cpu" else _OnDevice(loader, self.place)
        self.optimizer = self.make_optimizer()

    def epoch(self) -> None:
        self.loss = reference.train_epoch(self.model, self.criterion, self.optimizer, self.loader)


class TunedLoader(Tutorial):
    """The same images through worker processes, and one synchronisation an epoch."""

    def __init__(self, dataset: Dataset, settings: Settings, workers: int) -> None:
        self.workers = workers
        super().__init__(dataset, settings)

    def prepare(self, dataset: Dataset, settings: Settings) -> None:
        loader = reference.tutorial_loader(
            *dataset.train,
            self.config.batch_size,
            self.generator,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.place.type == "cuda",
        )
        self.loader = _OnDevice(loader, self.place)
        self.optimizer = self.make_optimizer()

    def epoch(self) -> None:
        total = torch.zeros((), device=self.place)
        for images, labels in self.loader:
            total += self.train(images.view(images.shape[0], -1), labels)
        self.loss = total.item() / len(self.loader)
