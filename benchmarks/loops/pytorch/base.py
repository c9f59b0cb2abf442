"""What PyTorch's loops have in common: the tutorial's network, its weights, the device."""

from typing import Any

import torch
from torch import nn, optim

from benchmarks.equivalence import torch_reference as reference
from benchmarks.harness.program import Program, Settings, UnavailableError, Weights
from flax_mnist.data.dataset import Dataset


def choose_device(settings: Settings) -> torch.device:
    """PyTorch's name for the run's device."""
    if settings.device == "cpu":
        return torch.device("cpu")
    if settings.device != "gpu":
        raise UnavailableError(f"this PyTorch has no {settings.device}")
    if not torch.cuda.is_available():
        raise UnavailableError("this PyTorch finds no GPU")
    return torch.device("cuda")


class OnTorch(Program):
    """A program on PyTorch's device."""

    def __init__(self, settings: Settings) -> None:
        self.place = choose_device(settings)
        self.device = torch.cuda.get_device_name() if self.place.type == "cuda" else "cpu"

    def wait(self) -> None:
        if self.place.type == "cuda":
            torch.cuda.synchronize()

    def device_memory(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.place.type == "cuda" else None


class PyTorchLoop(OnTorch):
    """One network, trained by plain SGD."""

    shuffles_on_cpu = False
    optimizer: optim.Optimizer

    def __init__(self, dataset: Dataset, settings: Settings, tf32: bool = False) -> None:
        super().__init__(settings)
        if tf32 and self.place.type != "cuda":
            raise UnavailableError("a CPU has no TF32: it would be P3")
        # What PyTorch does anyway; said here because the rows are compared on it.
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        self.config = settings.config
        torch.manual_seed(self.config.seed)
        # Seeded apart from the weights, so that the order of the batches is known from outside.
        place = "cpu" if self.shuffles_on_cpu else self.place
        self.generator = torch.Generator(place).manual_seed(self.config.seed)
        self.model = reference.build_model(self.config.hidden_sizes).to(self.place)
        self.criterion = nn.NLLLoss()
        self.prepare(dataset, settings)

    def prepare(self, dataset: Dataset, settings: Settings) -> None:
        raise NotImplementedError

    def make_optimizer(self, **options: Any) -> optim.Optimizer:
        rate, momentum = self.config.learning_rate, self.config.momentum
        return optim.SGD(self.model.parameters(), lr=rate, momentum=momentum, **options)

    def train(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """A step on a batch; its loss, for which nothing waits."""
        loss: torch.Tensor = self.criterion(self.model(inputs), labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def weights(self) -> list[Weights]:
        state = self.model.state_dict()
        return [{name: tensor.cpu().numpy().copy() for name, tensor in state.items()}]
