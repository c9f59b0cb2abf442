"""PyTorch's loops: from the tutorial's own to the fastest that its documentation knows."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any, Literal

import torch
from torch import nn, optim
from torch.func import functional_call, grad, grad_and_value, stack_module_state, vmap
from torch.utils.data import DataLoader

from benchmarks import torch_reference as reference
from benchmarks.program import Program, Settings, UnavailableError, Weights
from flax_mnist.data.dataset import Dataset, Split


def choose_device(settings: Settings) -> torch.device:
    """PyTorch's name for the run's device."""
    if settings.device == "cpu":
        return torch.device("cpu")
    if settings.device != "gpu":
        raise UnavailableError(f"this PyTorch has no {settings.device}")
    if not torch.cuda.is_available():
        raise UnavailableError("this PyTorch finds no GPU")
    return torch.device("cuda")


class _PyTorch(Program):
    def __init__(self, dataset: Dataset, settings: Settings, tf32: bool = False) -> None:
        self.place = choose_device(settings)
        if tf32 and self.place.type != "cuda":
            raise UnavailableError("a CPU has no TF32: it would be P3")
        # What PyTorch does anyway; said here because the rows are compared on it.
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        self.device = torch.cuda.get_device_name() if self.place.type == "cuda" else "cpu"
        self.config = settings.config
        torch.manual_seed(self.config.seed)
        # Seeded apart from the weights, so that the order of the batches is known from outside.
        self.generator = torch.Generator(self.generator_place()).manual_seed(self.config.seed)
        self.model = reference.build_model(self.config.hidden_sizes).to(self.place)
        self.criterion = nn.NLLLoss()
        self.prepare(dataset, settings)

    def prepare(self, dataset: Dataset, settings: Settings) -> None:
        raise NotImplementedError

    def generator_place(self) -> torch.device:
        return self.place

    def make_optimizer(self, **options: Any) -> optim.Optimizer:
        rate, momentum = self.config.learning_rate, self.config.momentum
        return optim.SGD(self.model.parameters(), lr=rate, momentum=momentum, **options)

    def wait(self) -> None:
        if self.place.type == "cuda":
            torch.cuda.synchronize()

    def weights(self) -> list[Weights]:
        state = self.model.state_dict()
        return [{name: tensor.cpu().numpy().copy() for name, tensor in state.items()}]

    def device_memory(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.place.type == "cuda" else None


# ---- a DataLoader of single images ----------------------------------------------------------


class _OnDevice:
    """A loader whose batches are moved to the device as they come."""

    def __init__(self, loader: DataLoader[reference.Sample], place: torch.device) -> None:
        self.loader, self.place = loader, place

    def __len__(self) -> int:
        return len(self.loader)

    def __iter__(self) -> Iterator[list[torch.Tensor]]:
        for images, labels in self.loader:
            yield [images.to(self.place, non_blocking=True), labels.to(self.place)]


class Tutorial(_PyTorch):
    """The tutorial's loop word for word, `DataLoader` and `.item()` included."""

    def prepare(self, dataset: Dataset, settings: Settings) -> None:
        loader = reference.tutorial_loader(*dataset.train, self.config.batch_size, self.generator)
        # The tutorial itself runs on the CPU only; a GPU takes this one addition.
        self.loader: Any = loader if self.place.type == "cpu" else _OnDevice(loader, self.place)
        self.optimizer = self.make_optimizer()

    def generator_place(self) -> torch.device:
        return torch.device("cpu")

    def epoch(self) -> None:
        self.loss = reference.train_epoch(self.model, self.criterion, self.optimizer, self.loader)


class TunedLoader(Tutorial):
    """The same images through worker processes, and one synchronisation an epoch."""

    def __init__(self, dataset: Dataset, settings: Settings, workers: int) -> None:
        self.workers = workers
        super().__init__(dataset, settings)

    def prepare(self, dataset: Dataset, settings: Settings) -> None:
        loader = DataLoader(
            reference.MNIST(*dataset.train),
            batch_size=self.config.batch_size,
            shuffle=True,
            generator=self.generator,
            num_workers=self.workers,
            persistent_workers=self.workers > 0,
            pin_memory=self.place.type == "cuda",
        )
        self.loader = _OnDevice(loader, self.place)
        self.optimizer = self.make_optimizer()

    def epoch(self) -> None:
        total = torch.zeros((), device=self.place)
        for images, labels in self.loader:
            loss = self.criterion(self.model(images.view(images.shape[0], -1)), labels)
            self.optimizer.zero_grad()
            loss.backward()
            self.optimizer.step()
            total += loss.detach()
        self.loss = total.item() / len(self.loader)


# ---- all data in one tensor -----------------------------------------------------------------


class Eager(_PyTorch):
    """All images normalised beforehand in one tensor on the device, gathered batch by batch."""

    def __init__(
        self,
        dataset: Dataset,
        settings: Settings,
        optimizer: Literal["default", "fused", "foreach"] = "default",
        tf32: bool = False,
    ) -> None:
        self.optimizer_options = {} if optimizer == "default" else {optimizer: True}
        super().__init__(dataset, settings, tf32)

    def prepare(self, dataset: Dataset, settings: Settings) -> None:
        self.inputs, self.labels = self.upload(dataset.train)
        self.optimizer = self.make_optimizer(**self.optimizer_options)

    def upload(self, split: Split) -> tuple[torch.Tensor, torch.Tensor]:
        inputs = reference.normalize(split.images).to(self.place)
        return inputs, torch.tensor(split.labels).long().to(self.place)

    def order(self) -> torch.Tensor:
        return torch.randperm(len(self.labels), generator=self.generator, device=self.place)

    def epoch(self) -> None:
        indices = torch.split(self.order(), self.config.batch_size)
        total = torch.zeros((), device=self.place)
        for index in indices:
            total += self.step(index)
        self.loss = total.item() / len(indices)

    def step(self, index: torch.Tensor) -> torch.Tensor:
        # On a CPU three times as fast as `inputs[index]`.
        inputs, labels = (array.index_select(0, index) for array in (self.inputs, self.labels))
        loss: torch.Tensor = self.criterion(self.model(inputs), labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()


class Compiled(Eager):
    """The whole step, gather and update included, as one function under `torch.compile`.

    Options:
        mode: of `torch.compile`.
    """

    def __init__(self, dataset: Dataset, settings: Settings, mode: str = "default") -> None:
        self.mode = mode
        super().__init__(dataset, settings)

    def prepare(self, dataset: Dataset, settings: Settings) -> None:
        super().prepare(dataset, settings)
        if self.config.momentum:
            raise UnavailableError("the compiled step is plain SGD")
        model, criterion, rate = self.model, self.criterion, self.config.learning_rate
        inputs, labels = self.inputs, self.labels
        self.params = {name: value.detach() for name, value in model.named_parameters()}
        for tensor in (*self.params.values(), inputs, labels):
            # Without this promise no CUDA graph is made of a function that changes what it is
            # given. https://docs.pytorch.org/docs/stable/torch.compiler_cudagraph_trees.html
            torch._dynamo.mark_static_address(tensor)

        def step(params: dict[str, torch.Tensor], index: torch.Tensor) -> torch.Tensor:
            def loss_of(params: dict[str, torch.Tensor]) -> torch.Tensor:
                output = functional_call(model, params, (inputs[index],))
                loss: torch.Tensor = criterion(output, labels[index])
                return loss

            loss: torch.Tensor
            gradients, loss = grad_and_value(loss_of)(params)
            for name, value in params.items():
                value.sub_(gradients[name], alpha=rate)
            return loss

        # Two batch sizes are two programs: a symbolic size would slow both.
        self.run = torch.compile(step, mode=self.mode, fullgraph=True, dynamic=False)

    def step(self, index: torch.Tensor) -> torch.Tensor:
        loss: torch.Tensor = self.run(self.params, index)
        return loss


class CudaGraph(Eager):
    """The eager step recorded by hand as a CUDA graph, and replayed."""

    def prepare(self, dataset: Dataset, settings: Settings) -> None:
        if self.place.type != "cuda":
            raise UnavailableError("CUDA graphs need an NVIDIA GPU")
        super().prepare(dataset, settings)
        self.graphs: dict[int, tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]] = {}
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        n, size = len(self.labels), self.config.batch_size
        for batch in {min(size, n), n % size} - {0}:
            self.graphs[batch] = self.record(batch)
        self.model.load_state_dict(before)  # recording takes a few real steps

    def record(self, batch: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
        index = torch.zeros(batch, dtype=torch.int64, device=self.place)
        side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
        side.wait_stream(torch.cuda.current_stream())
        with torch.cuda.stream(side):
            for _ in range(3):
                super().step(index)
        torch.cuda.current_stream().wait_stream(side)
        graph = torch.cuda.CUDAGraph()
        with torch.cuda.graph(graph):
            loss = super().step(index)
        return graph, index, loss

    def step(self, index: torch.Tensor) -> torch.Tensor:
        graph, static_index, loss = self.graphs[len(index)]
        static_index.copy_(index)
        graph.replay()
        return loss


class ManyModels(_PyTorch):
    """`torch.func` and `vmap` over the models: each with its own weights and its own order."""

    def prepare(self, dataset: Dataset, settings: Settings) -> None:
        if self.config.momentum:
            raise UnavailableError("the step over many models is plain SGD")
        self.models = settings.models
        self.inputs = reference.normalize(dataset.train.images).to(self.place)
        self.labels = torch.tensor(dataset.train.labels).long().to(self.place)
        sizes, more = self.config.hidden_sizes, range(1, self.models)
        networks = [self.model, *(reference.build_model(sizes).to(self.place) for _ in more)]
        stacked, _ = stack_module_state(networks)
        self.params = {name: value.detach() for name, value in stacked.items()}

        def loss_of(
            params: dict[str, torch.Tensor], inputs: torch.Tensor, labels: torch.Tensor
        ) -> tuple[torch.Tensor, torch.Tensor]:
            loss = self.criterion(functional_call(self.model, params, (inputs,)), labels)
            return loss, loss

        self.gradients: Callable[..., Any] = vmap(grad(loss_of, has_aux=True))

    def order(self) -> torch.Tensor:
        n, place = len(self.labels), self.place
        rows: Sequence[torch.Tensor] = [
            torch.randperm(n, generator=self.generator, device=place) for _ in range(self.models)
        ]
        return torch.stack(list(rows))

    @torch.no_grad()
    def epoch(self) -> None:
        indices = torch.split(self.order(), self.config.batch_size, dim=1)
        total = torch.zeros(self.models, device=self.place)
        for index in indices:
            inputs, labels = (
                array.index_select(0, index.flatten()).reshape(*index.shape, *array.shape[1:])
                for array in (self.inputs, self.labels)
            )
            gradients, loss = self.gradients(self.params, inputs, labels)
            for name, value in self.params.items():
                value.sub_(gradients[name], alpha=self.config.learning_rate)
            total += loss
        self.losses = (total / len(indices)).tolist()

    def weights(self) -> list[Weights]:
        stacked = {name: value.cpu().numpy().copy() for name, value in self.params.items()}
        return [{name: v[i] for name, v in stacked.items()} for i in range(self.models)]
