"""The PyTorch reference is the tutorial's program, and its fast forms are the same program."""

import numpy as np
import pytest

pytest.importorskip("torch")

import torch
from PIL import Image
from torch import nn
from torch.utils.data import DataLoader, TensorDataset

from benchmarks.equivalence import torch_reference as reference


def random_data(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    images = rng.integers(0, 256, (n, 28, 28), dtype=np.uint8)
    return images, rng.integers(0, 10, n).astype(np.uint8)


def every_pixel_value() -> np.ndarray:
    images = np.zeros((28, 28), np.uint8)
    images.flat[:256] = np.arange(256)
    return images


def fresh_model(dtype: torch.dtype = torch.float32) -> nn.Sequential:
    torch.manual_seed(0)
    return reference.build_model(dtype=dtype)


def assert_same_weights(a: nn.Module, b: nn.Module) -> None:
    for name, weight in a.state_dict().items():
        assert torch.equal(weight, b.state_dict()[name]), name


def test_model_is_the_tutorials() -> None:
    torch.manual_seed(0)
    tutorial = nn.Sequential(
        nn.Linear(784, 128),
        nn.ReLU(),
        nn.Linear(128, 64),
        nn.ReLU(),
        nn.Linear(64, 10),
        nn.LogSoftmax(dim=1),
    )
    model = fresh_model()
    assert str(model) == str(tutorial)
    assert_same_weights(model, tutorial)


def test_a_seed_means_the_same_weights_in_every_dtype() -> None:
    assert_same_weights(fresh_model(torch.float64), fresh_model(torch.float32).double())


def test_transform_is_bit_equal_to_float32_numpy() -> None:
    image = every_pixel_value()
    tensor = reference.transform(Image.fromarray(image))
    expected = (image.astype(np.float32) / np.float32(255) - np.float32(0.5)) / np.float32(0.5)
    assert tensor.shape == (1, 28, 28)
    assert tensor.dtype == torch.float32
    np.testing.assert_array_equal(tensor.numpy()[0], expected)


def test_the_dataset_is_torchvisions() -> None:
    try:
        from torchvision import datasets
    except (ImportError, RuntimeError) as error:
        pytest.skip(f"torchvision cannot be imported: {error}")
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (5, 28, 28), dtype=np.uint8)
    labels = rng.integers(0, 10, 5)
    theirs, ours = reference.tutorial_dataset(images, labels), reference.MNIST(images, labels)
    assert isinstance(theirs, datasets.MNIST)
    assert len(theirs) == len(ours) == 5
    for index in range(5):
        (image, label), (expected, expected_label) = theirs[index], ours[index]
        assert torch.equal(image, expected)
        assert label == expected_label


def test_transform_is_torchvisions() -> None:
    try:
        from torchvision import transforms
    except (ImportError, RuntimeError) as error:  # RuntimeError: it was built for another torch.
        pytest.skip(f"torchvision cannot be imported: {error}")
    theirs = transforms.Compose([transforms.ToTensor(), transforms.Normalize((0.5,), (0.5,))])
    image = Image.fromarray(every_pixel_value())
    assert torch.equal(reference.transform(image), theirs(image))


def test_dataset_gives_what_datasets_mnist_gives() -> None:
    images, labels = random_data(3)
    dataset = reference.MNIST(images, labels)
    tensor, label = dataset[2]
    assert len(dataset) == 3
    assert torch.equal(tensor, reference.transform(Image.fromarray(images[2])))
    assert type(label) is int
    assert label == labels[2]


def test_normalize_is_transform_on_every_image() -> None:
    images, labels = random_data(5)
    images[0] = every_pixel_value()
    singly = torch.cat([tensor for tensor, _ in reference.MNIST(images, labels)])
    assert torch.equal(reference.normalize(images), singly.view(5, 784))


def test_normalize_in_float64_is_not_rounded_to_float32() -> None:
    images, _ = random_data(5)
    inputs = reference.normalize(images, torch.float64)
    np.testing.assert_array_equal(inputs.numpy(), (images.reshape(5, 784) / 255 - 0.5) / 0.5)


@pytest.mark.parametrize("n", [100, 128], ids=["short last batch", "full batches"])
def test_order_is_the_dataloaders(n: int) -> None:
    ours, theirs = torch.Generator().manual_seed(3), torch.Generator().manual_seed(3)
    rows = TensorDataset(torch.arange(n))
    loader = DataLoader(rows, batch_size=64, shuffle=True, generator=theirs)
    for _ in range(3):
        order = reference.dataloader_order(n, ours)
        assert order.dtype == np.int32
        np.testing.assert_array_equal(order, torch.cat([batch for (batch,) in loader]))
        assert torch.equal(ours.get_state(), theirs.get_state())


@pytest.mark.parametrize("momentum", [0.0, 0.9])
def test_all_in_one_tensor_is_bit_identical_to_the_tutorial(momentum: float) -> None:
    images, labels = random_data(150)  # 150 = 2 * 64 + 22
    tutorial, in_order = fresh_model(), fresh_model()

    lines: list[str] = []
    loader = reference.tutorial_loader(images, labels, generator=torch.Generator().manual_seed(1))
    expected = reference.train_tutorial(
        tutorial, loader, epochs=3, momentum=momentum, say=lines.append
    )

    generator = torch.Generator().manual_seed(1)
    losses = reference.train_in_order(
        in_order,
        reference.normalize(images),
        torch.tensor(labels, dtype=torch.int64),
        [reference.dataloader_order(150, generator) for _ in range(3)],
        momentum=momentum,
    )

    assert losses == expected
    assert lines == [f"Training loss: {loss}" for loss in expected]
    assert_same_weights(in_order, tutorial)


def test_training_is_the_tutorials_loop_written_out() -> None:
    images, labels = random_data(100)
    inputs, targets = reference.normalize(images), torch.tensor(labels, dtype=torch.int64)
    order = np.random.default_rng(1).permutation(100).astype(np.int32)
    trained, model = fresh_model(), fresh_model()
    losses = reference.train_in_order(trained, inputs, targets, [order, order])

    expected = []
    for _ in range(2):
        batch_losses = []
        for rows in (order[:64], order[64:]):
            loss = nn.functional.nll_loss(model(inputs[rows]), targets[rows])
            gradients = torch.autograd.grad(loss, list(model.parameters()))
            with torch.no_grad():
                for weight, gradient in zip(model.parameters(), gradients, strict=True):
                    weight -= 0.003 * gradient
            batch_losses.append(loss.item())
        expected.append(sum(batch_losses) / 2)

    # The mean over batches gives the 36 rows of the short one the weight of 64.
    assert losses == pytest.approx(expected, rel=1e-6)
    for ours, theirs in zip(trained.parameters(), model.parameters(), strict=True):
        torch.testing.assert_close(ours, theirs, rtol=0, atol=1e-7)


def test_float64_weights_from_a_float32_state_dict() -> None:
    images, labels = random_data(70)
    model = reference.build_model(dtype=torch.float64)
    model.load_state_dict(fresh_model().state_dict())
    assert_same_weights(model, fresh_model(torch.float64))
    inputs = reference.normalize(images, torch.float64)
    targets = torch.tensor(labels, dtype=torch.int64)
    reference.train_in_order(model, inputs, targets, [np.arange(70)])
    assert all(weight.dtype == torch.float64 for weight in model.parameters())


def test_evaluate_is_mean_loss_and_share_of_right_answers() -> None:
    log_probs = torch.log(torch.tensor([[0.7, 0.2, 0.1], [0.3, 0.6, 0.1], [0.5, 0.4, 0.1]]))
    loss, accuracy = reference.evaluate(nn.Identity(), log_probs, torch.tensor([0, 1, 2]))
    assert loss == pytest.approx(-np.log(0.7 * 0.6 * 0.1) / 3)
    assert accuracy == pytest.approx(2 / 3)
