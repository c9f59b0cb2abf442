"""The reference: the tutorial's program in PyTorch, kept as close to its text as can be.

The tutorial is "Part 3 - Training Neural Networks" of Udacity's introduction to deep learning with
PyTorch. Its lines stand here unchanged, cut into functions that tests and benchmarks can import.
torchvision's dataset and transforms are written out, since it has no build for every PyTorch (its
own are used where they can be imported; a test shows that they make the same, and
`python -m benchmarks.stand_in` how fast ours are beside them), and
any run can be handed its batches, since two programs compare only on the same ones. The tutorial is

    trainloader = tutorial_loader(images, labels)
    train_tutorial(build_model(), trainloader)
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from itertools import pairwise
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import torch
from torch import nn, optim
from torch.utils.data import DataLoader, Dataset

if TYPE_CHECKING:
    from PIL import Image

Images = npt.NDArray[np.uint8]
Labels = npt.NDArray[np.integer[Any]]
Sample = tuple[torch.Tensor, int]
Batches = DataLoader[Any] | Sequence[tuple[torch.Tensor, torch.Tensor]]


def log_use(name: str) -> None:
    """Tells PyTorch's log of what is used, as every function of torchvision's does."""
    torch._C._log_api_usage_once(f"{__name__}.{name}")  # noqa: SLF001  -- torchvision's way


def to_tensor(image: Image.Image) -> torch.Tensor:
    """``ToTensor()``: a copy of the pixels, channels first, bytes from 0 to 1."""
    log_use(to_tensor.__name__)
    if not hasattr(image, "getbands"):
        raise TypeError(f"{type(image)} is no picture.")
    kind = {"I": np.int32, "F": np.float32}.get(image.mode, np.uint8)
    pixels = torch.from_numpy(np.array(image, kind, copy=True))
    pixels = pixels.view(image.size[1], image.size[0], len(image.getbands()))
    pixels = pixels.permute((2, 0, 1)).contiguous()
    if not isinstance(pixels, torch.ByteTensor):
        return pixels
    return pixels.to(dtype=torch.get_default_dtype()).div(255)


def normalized(image: torch.Tensor, means: Sequence[float], stds: Sequence[float]) -> torch.Tensor:
    """A copy of an image, with these means taken away, over these standard deviations."""
    log_use(normalized.__name__)
    if not isinstance(image, torch.Tensor) or not image.is_floating_point() or image.ndim < 3:
        raise TypeError(f"{type(image)} is no image in floats.")
    image = image.clone()
    mean = torch.as_tensor(means, dtype=image.dtype, device=image.device)
    std = torch.as_tensor(stds, dtype=image.dtype, device=image.device)
    if (std == 0).any():
        raise ValueError("A standard deviation is 0.")
    return image.sub_(mean.view(-1, 1, 1)).div_(std.view(-1, 1, 1))


class Normalize(nn.Module):
    """``Normalize(means, stds)``, whose numbers become tensors anew for every image."""

    def __init__(self, means: Sequence[float], stds: Sequence[float]) -> None:
        super().__init__()
        self.means, self.stds = means, stds

    def forward(self, image: torch.Tensor) -> torch.Tensor:
        """The image, normalized."""
        return normalized(image, self.means, self.stds)


STEPS: tuple[Callable[[Any], Any], ...] = (to_tensor, Normalize((0.5,), (0.5,)))


def transform(image: Image.Image) -> torch.Tensor:
    """``Compose([ToTensor(), Normalize((0.5,), (0.5,))])``: grey image -> float32 [1, 28, 28].

    By the operations that torchvision's take, its checks among them, so that it takes as long.
    """
    made: Any = image
    for step in STEPS:
        made = step(made)
    return made  # type: ignore[no-any-return]


def torchvision_transform() -> Any:
    """The tutorial's own, by torchvision, where it can be imported; otherwise `transform`."""
    try:
        from torchvision import transforms
    except (ImportError, RuntimeError):  # RuntimeError: it was built for another PyTorch
        return transform
    return transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])


class MNIST(Dataset[Sample]):
    """``datasets.MNIST`` over arrays: uint8 images [n, 28, 28], integer labels [n]."""

    def __init__(self, images: Images, labels: Labels) -> None:
        from PIL import Image  # the rest of this file does without it

        self.images, self.labels = torch.tensor(images), torch.tensor(labels)
        self.transform = torchvision_transform()
        self.to_picture = Image.fromarray

    def __len__(self) -> int:
        return len(self.images)

    def __getitem__(self, index: int) -> Sample:
        image, label = self.images[index], int(self.labels[index])
        return self.transform(self.to_picture(image.numpy())), label


def tutorial_dataset(images: Images, labels: Labels) -> Dataset[Sample]:
    """``datasets.MNIST`` over arrays: torchvision's where it can be imported, otherwise ours."""
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError):  # RuntimeError: it was built for another PyTorch
        return MNIST(images, labels)

    class OverArrays(datasets.MNIST):  # type: ignore[misc]
        def __init__(self) -> None:
            # Not MNIST's own, which looks for files.
            datasets.VisionDataset.__init__(self, "", transform=torchvision_transform())
            self.data, self.targets = torch.tensor(images), torch.tensor(labels)

    samples: Dataset[Sample] = OverArrays()
    return samples


def tutorial_loader(
    images: Images,
    labels: Labels,
    batch_size: int = 64,
    generator: torch.Generator | None = None,
    **options: Any,
) -> DataLoader[Sample]:
    """The tutorial's ``trainloader``: shuffled, and the short last batch is kept."""
    trainset = tutorial_dataset(images, labels)
    return DataLoader(trainset, batch_size, shuffle=True, generator=generator, **options)


def build_model(
    hidden_sizes: Sequence[int] = (128, 64), dtype: torch.dtype = torch.float32
) -> nn.Sequential:
    """The tutorial's model, in the given dtype; its weights come from torch's global generator.

    nn.Sequential(nn.Linear(784, 128), nn.ReLU(), nn.Linear(128, 64), nn.ReLU(),
                  nn.Linear(64, 10), nn.LogSoftmax(dim=1))
    """
    layers: list[nn.Module] = []
    for fan_in, fan_out in pairwise((784, *hidden_sizes, 10)):
        layers += [nn.Linear(fan_in, fan_out), nn.ReLU()]
    layers[-1] = nn.LogSoftmax(dim=1)
    # Drawn in float32 and converted, so that a seed means the same weights in every dtype.
    return nn.Sequential(*layers).to(dtype)


def train_epoch(
    model: nn.Module, criterion: nn.Module, optimizer: optim.Optimizer, trainloader: Batches
) -> float:
    """One pass over ``trainloader``, the tutorial's inner loop; the mean of the batches' losses."""
    running_loss = 0.0
    for images, labels in trainloader:
        # Flatten MNIST images into a 784 long vector
        images = images.view(images.shape[0], -1)

        optimizer.zero_grad()

        output = model(images)
        loss = criterion(output, labels)
        loss.backward()
        optimizer.step()

        running_loss += loss.item()
    return running_loss / len(trainloader)


def train_tutorial(
    model: nn.Module,
    trainloader: Batches,
    epochs: int = 5,
    lr: float = 0.003,
    momentum: float = 0.0,
    say: Callable[[str], object] = print,
) -> list[float]:
    """The tutorial's training: changes ``model``, says and returns each epoch's loss."""
    criterion = nn.NLLLoss()
    optimizer = optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    losses = []
    for _ in range(epochs):
        losses.append(train_epoch(model, criterion, optimizer, trainloader))
        say(f"Training loss: {losses[-1]}")
    return losses


def train_in_order(
    model: nn.Module,
    inputs: torch.Tensor,
    labels: torch.Tensor,
    orders: Iterable[Labels],
    batch_size: int = 64,
    lr: float = 0.003,
    momentum: float = 0.0,
    optimizer: optim.Optimizer | None = None,
) -> list[float]:
    """The same loop with all data in one tensor and an integer order [n] for every epoch.

    ``inputs`` [n, 784] has the dtype of ``model``, which is changed; ``labels`` [n] is int64.
    ``optimizer`` is one of the model's parameters; None is the tutorial's, ``lr`` and ``momentum``.
    Returns each epoch's loss: the mean over its batches, the short last one included.
    """
    criterion = nn.NLLLoss()
    optimizer = optimizer or optim.SGD(model.parameters(), lr=lr, momentum=momentum)
    losses = []
    for order in orders:
        batches = [
            (inputs.index_select(0, rows), labels.index_select(0, rows))
            for rows in torch.split(torch.as_tensor(order), batch_size)
        ]
        losses.append(train_epoch(model, criterion, optimizer, batches))
    return losses


def normalize(images: Images, dtype: torch.dtype = torch.float32) -> torch.Tensor:
    """What ``transform`` makes of every image, flattened: uint8 [n, 28, 28] -> dtype [n, 784]."""
    pixels = torch.tensor(images).view(len(images), -1)
    return pixels.to(dtype).div(255).sub_(0.5).div_(0.5)


def dataloader_order(n: int, generator: torch.Generator) -> npt.NDArray[np.int32]:
    """The order int32 [n] of the next epoch of ``DataLoader(shuffle=True, generator=generator)``.

    Advances ``generator`` exactly as that epoch, run to its end, would.
    """
    # The loader draws a seed for workers, needed or not.
    torch.empty((), dtype=torch.int64).random_(generator=generator)
    order = torch.randperm(n, generator=generator)
    # RandomSampler ends with a second permutation, of which it takes the first n % n = 0 entries.
    torch.randperm(n, generator=generator)
    return order.numpy().astype(np.int32)


def evaluate(model: nn.Module, inputs: torch.Tensor, labels: torch.Tensor) -> tuple[float, float]:
    """Mean loss in nats and accuracy in [0, 1] over ``inputs`` [n, 784] and ``labels`` [n]."""
    with torch.no_grad():
        output = model(inputs)
        loss = nn.NLLLoss()(output, labels).item()
        accuracy = (output.argmax(dim=1) == labels).double().mean().item()
    return loss, accuracy
