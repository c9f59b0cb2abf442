"""PyTorch's loops: from the tutorial's own to the fastest that its documentation knows."""

import functools
from collections.abc import Callable, Iterator
from typing import Any, Literal, TypeVar

import torch
from torch import nn, optim
from torch.func import functional_call, grad, grad_and_value, stack_module_state, vmap
from torch.utils.data import DataLoader

from benchmarks.equivalence import torch_reference as reference
from benchmarks.harness.program import Program, Settings, Weights, batch_sizes, require
from flax_mnist.data.dataset import Dataset

T = TypeVar("T")
Tensors = dict[str, torch.Tensor]
Sgd = Literal["default", "fused", "foreach"]
NO_AUTOCAST = "it is float32 or float64"


class OnTorch(Program):
    def __init__(self, settings: Settings) -> None:
        require(settings.device != "tpu", "this PyTorch has no tpu")
        wants_gpu = settings.device == "gpu"
        require(not wants_gpu or torch.cuda.is_available(), "this PyTorch finds no GPU")
        self.place = torch.device("cuda" if wants_gpu else "cpu")
        self.device = torch.cuda.get_device_name() if self.place.type == "cuda" else "cpu"

    def wait(self) -> None:
        if self.place.type == "cuda":
            torch.cuda.synchronize()

    def device_memory(self) -> int | None:
        return torch.cuda.max_memory_allocated() if self.place.type == "cuda" else None


class PyTorchLoop(OnTorch):
    """One network, trained by plain SGD."""

    shuffles_on_cpu = False

    def __init__(self, settings: Settings, tf32: bool = False, **sgd_options: bool) -> None:
        super().__init__(settings)
        require(not tf32 or self.place.type == "cuda", "a CPU has no TF32: it would be P3")
        # What PyTorch does anyway; said here because the rows are compared on it.
        torch.set_float32_matmul_precision("high" if tf32 else "highest")
        self.config = settings.config
        self.dtype = torch.float64 if self.config.precision == "float64" else torch.float32
        torch.manual_seed(self.config.seed)
        # Seeded apart from the weights, so that the order of the batches is known from outside.
        place = "cpu" if self.shuffles_on_cpu else self.place
        self.generator = torch.Generator(place).manual_seed(self.config.seed)
        self.model = self.build_model()
        self.forward = self.model
        if self.config.precision == "bfloat16":
            # The forward pass alone, as its documentation has it.
            self.forward = torch.autocast(self.place.type, torch.bfloat16)(self.model)
        self.criterion = nn.NLLLoss()
        rate, momentum = self.config.learning_rate, self.config.momentum
        self.optimizer = optim.SGD(self.model.parameters(), rate, momentum, **sgd_options)

    def build_model(self) -> nn.Sequential:
        return reference.build_model(self.config.hidden_sizes, self.dtype).to(self.place)

    def train(self, inputs: torch.Tensor, labels: torch.Tensor) -> torch.Tensor:
        """A step on a batch; its loss, for which nothing waits."""
        loss: torch.Tensor = self.criterion(self.forward(inputs), labels)
        self.optimizer.zero_grad()
        loss.backward()  # type: ignore[no-untyped-call]
        self.optimizer.step()
        return loss.detach()

    def weights(self) -> list[Weights]:
        state = self.model.state_dict()
        return [{name: tensor.cpu().numpy().copy() for name, tensor in state.items()}]


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

    def __init__(self, dataset: Dataset, settings: Settings, **loader_options: Any) -> None:
        super().__init__(settings)
        require(self.config.precision == "float32", "the tutorial is float32")
        size = self.config.batch_size
        loader = reference.tutorial_loader(*dataset.train, size, self.generator, **loader_options)
        # The tutorial itself runs on the CPU only; a GPU takes this one addition.
        self.loader: Any = loader if self.place.type == "cpu" else _OnDevice(loader, self.place)

    def epoch(self) -> None:
        self.loss = reference.train_epoch(self.model, self.criterion, self.optimizer, self.loader)


class TunedLoader(Tutorial):
    """The same images through worker processes, and one synchronisation an epoch."""

    def __init__(self, dataset: Dataset, settings: Settings, workers: int) -> None:
        processes = {"num_workers": workers, "persistent_workers": workers > 0}
        super().__init__(dataset, settings, **processes, pin_memory=settings.device == "gpu")

    def epoch(self) -> None:
        total = torch.zeros((), device=self.place)
        for images, labels in self.loader:
            total += self.train(images.view(images.shape[0], -1), labels)
        self.loss = total.item() / len(self.loader)


class Eager(PyTorchLoop):
    """All images normalised beforehand in one tensor on the device, gathered batch by batch."""

    def __init__(
        self, dataset: Dataset, settings: Settings, optimizer: Sgd = "default", tf32: bool = False
    ) -> None:
        super().__init__(settings, tf32, **({} if optimizer == "default" else {optimizer: True}))
        self.inputs = reference.normalize(dataset.train.images, self.dtype).to(self.place)
        self.labels = torch.tensor(dataset.train.labels).long().to(self.place)

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
        return self.train(self.inputs.index_select(0, index), self.labels.index_select(0, index))


def plain_step(model: nn.Module, criterion: nn.Module, rate: float) -> Callable[..., Any]:
    """A step of plain SGD as a function that changes the parameters; it returns the loss."""

    def step(
        params: Tensors, inputs: torch.Tensor, labels: torch.Tensor, index: torch.Tensor
    ) -> Any:
        def loss_of(params: Tensors) -> Any:
            output = functional_call(model, params, (inputs[index],))
            return criterion(output, labels[index])

        gradients, loss = grad_and_value(loss_of)(params)
        for name, value in params.items():
            value.sub_(gradients[name], alpha=rate)
        return loss

    return step


class Compiled(Eager):
    """The whole step, gather and update included, as one function under `torch.compile`."""

    def __init__(self, dataset: Dataset, settings: Settings, mode: str) -> None:
        super().__init__(dataset, settings)
        require(self.config.momentum == 0, "it is plain SGD")
        require(self.config.precision != "bfloat16", NO_AUTOCAST)
        inputs, labels = self.inputs, self.labels
        plain = plain_step(self.model, self.criterion, self.config.learning_rate)
        self.params = {name: value.detach() for name, value in self.model.named_parameters()}
        for tensor in (*self.params.values(), inputs, labels):
            # Without this promise no CUDA graph is made of a function that changes what it is
            # given. https://docs.pytorch.org/docs/stable/torch.compiler_cudagraph_trees.html
            torch._dynamo.mark_static_address(tensor)  # noqa: SLF001  -- PyTorch's advice

        def step(params: Tensors, index: torch.Tensor) -> Any:
            return plain(params, inputs, labels, index)

        # Two batch sizes are two programs: a symbolic size would slow both.
        self.run = torch.compile(step, mode=mode, fullgraph=True, dynamic=False)

    def step(self, index: torch.Tensor) -> Any:
        return self.run(self.params, index)


def record(work: Callable[[], T]) -> tuple[torch.cuda.CUDAGraph, T]:
    """A CUDA graph of some work, and what it returned: where each replay leaves its results.

    The work is done three times before, on a stream of its own, as PyTorch asks for.
    https://docs.pytorch.org/docs/stable/notes/cuda.html#whole-network-capture
    """
    side = torch.cuda.Stream()  # type: ignore[no-untyped-call]
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        for _ in range(3):
            work()
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        results = work()
    return graph, results


class CudaGraph(Eager):
    """The eager step recorded by hand as a CUDA graph, and replayed."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        require(settings.device != "cpu", "CUDA graphs need an NVIDIA GPU")
        require(settings.config.precision != "bfloat16", NO_AUTOCAST)
        super().__init__(dataset, settings)
        require(self.config.momentum == 0, "recording would leave a velocity")
        before = {name: value.clone() for name, value in self.model.state_dict().items()}
        self.graphs = {n: self.record(n) for n in batch_sizes(self.config, len(self.labels))}
        self.model.load_state_dict(before)  # recording takes a few real steps

    def record(self, batch: int) -> tuple[torch.cuda.CUDAGraph, torch.Tensor, torch.Tensor]:
        index = torch.zeros(batch, dtype=torch.int64, device=self.place)
        graph, loss = record(functools.partial(super().step, index))
        return graph, index, loss

    def step(self, index: torch.Tensor) -> torch.Tensor:
        graph, static_index, loss = self.graphs[len(index)]
        static_index.copy_(index)
        graph.replay()
        return loss


class VmapModels(Eager):
    """`torch.func` and `vmap` over the models: each with its own weights and its own order."""

    def __init__(self, dataset: Dataset, settings: Settings) -> None:
        super().__init__(dataset, settings)
        require(self.config.momentum == 0, "it is plain SGD")
        require(self.config.precision != "bfloat16", NO_AUTOCAST)
        self.models = settings.models
        networks = [self.model, *(self.build_model() for _ in range(1, self.models))]
        stacked, _ = stack_module_state(networks)
        self.params = {name: value.detach() for name, value in stacked.items()}

        def loss_of(params: Tensors, inputs: torch.Tensor, labels: torch.Tensor) -> Any:
            loss = self.criterion(functional_call(self.model, params, (inputs,)), labels)
            return loss, loss

        self.gradients = vmap(grad(loss_of, has_aux=True))

    def order(self) -> torch.Tensor:
        return torch.stack([super(VmapModels, self).order() for _ in range(self.models)])

    @torch.no_grad()
    def epoch(self) -> None:
        indices = torch.split(self.order(), self.config.batch_size, dim=1)
        total = torch.zeros(self.models, device=self.place)
        for index in indices:
            rows = index.flatten()
            inputs = self.inputs.index_select(0, rows).reshape(*index.shape, -1)
            labels = self.labels.index_select(0, rows).reshape(index.shape)
            gradients, loss = self.gradients(self.params, inputs, labels)
            for name, value in self.params.items():
                value.sub_(gradients[name], alpha=self.config.learning_rate)
            total += loss
        self.losses = (total / len(indices)).tolist()

    def weights(self) -> list[Weights]:
        stacked = {name: value.cpu().numpy().copy() for name, value in self.params.items()}
        return [{name: v[i] for name, v in stacked.items()} for i in range(self.models)]
