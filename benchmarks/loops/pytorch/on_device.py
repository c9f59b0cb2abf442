"""Loops with all data in one tensor on the device."""

from collections.abc import Callable
from typing import Any, Literal

import torch
from torch.func import functional_call, grad, grad_and_value, stack_module_state, vmap

from benchmarks.equivalence import torch_reference as reference
from benchmarks.harness.program import Settings, UnavailableError, Weights
from benchmarks.loops.pytorch.base import PyTorchLoop
from flax_mnist.data.dataset import Dataset, Split


def _upload(split: Split, place: torch.device) -> tuple[torch.Tensor, torch.Tensor]:
    """Inputs float32 [n, 784] and labels int64 [n] on the device."""
    inputs = reference.normalize(split.images).to(place)
    return inputs, torch.tensor(split.labels).long().to(place)


class Eager(PyTorchLoop):
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
        self.inputs, self.labels = _upload(dataset.train, self.place)
        self.optimizer = self.make_optimizer(**self.optimizer_options)

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
            torch._dynamo.mark_static_address(tensor)  # noqa: SLF001  -- PyTorch's advice

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


class VmapModels(PyTorchLoop):
    """`torch.func` and `vmap` over the models: each with its own weights and its own order."""

    def prepare(self, dataset: Dataset, settings: Settings) -> None:
        if self.config.momentum:
            raise UnavailableError("the step over many models is plain SGD")
        self.models = settings.models
        self.inputs, self.labels = _upload(dataset.train, self.place)
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
        return torch.stack(
            [torch.randperm(n, generator=self.generator, device=place) for _ in range(self.models)]
        )

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
