"""PyTorch Lightning: a `LightningModule` and its `Trainer`, without what reports and saves."""

import logging
import warnings
from typing import Any, Literal

import lightning
import torch
from torch import nn, optim
from torch.utils.data import BatchSampler, DataLoader, RandomSampler, TensorDataset

from benchmarks.equivalence import torch_reference as reference
from benchmarks.harness.program import Settings, Weights, require
from benchmarks.loops.pytorch import OnTorch
from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset


class Classifier(lightning.LightningModule):  # type: ignore[misc]
    """The tutorial's network, loss and optimizer."""

    def __init__(self, config: Config) -> None:
        super().__init__()
        self.config = config
        self.network = reference.build_model(config.hidden_sizes)
        self.criterion = nn.NLLLoss()

    def training_step(self, batch: list[torch.Tensor], _index: int) -> Any:
        images, labels = batch
        return self.criterion(self.network(images), labels)

    def configure_optimizers(self) -> optim.Optimizer:
        return optim.SGD(self.parameters(), self.config.learning_rate, self.config.momentum)


class Fit(OnTorch):
    """All images normalised beforehand; a loader that collates samples, or takes whole batches."""

    def __init__(
        self, dataset: Dataset, settings: Settings, batches: Literal["collated", "whole"]
    ) -> None:
        super().__init__(settings)
        config = settings.config
        require(config.precision == "float32", "it is float32")
        require(config.momentum == 0, "each call of fit begins with an optimizer of its own")
        logging.getLogger("lightning.pytorch").setLevel(logging.ERROR)
        warnings.simplefilter("ignore")  # of few loader workers, of a trainer that saves nothing
        torch.manual_seed(config.seed)
        generator = torch.Generator().manual_seed(config.seed)
        labels = torch.tensor(dataset.train.labels).long()
        data = TensorDataset(reference.normalize(dataset.train.images), labels)
        if batches == "collated":
            self.loader: Any = DataLoader(
                data, config.batch_size, shuffle=True, generator=generator
            )
        else:
            sampler = RandomSampler(data, generator=generator)
            whole = BatchSampler(sampler, config.batch_size, drop_last=False)
            self.loader = DataLoader(data, batch_size=None, sampler=whole)
        self.module = Classifier(config)
        self.trainer = lightning.Trainer(
            accelerator="gpu" if self.place.type == "cuda" else "cpu",
            devices=1,
            max_epochs=0,
            barebones=True,
        )

    def epoch(self) -> None:
        self.trainer.fit_loop.max_epochs += 1
        self.trainer.fit(self.module, self.loader)

    def weights(self) -> list[Weights]:
        state = self.module.network.state_dict()
        return [{name: tensor.cpu().numpy().copy() for name, tensor in state.items()}]
