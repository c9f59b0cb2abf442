"""Nonsense is refused by the name of the argument, before it becomes something like a result.

As a user has it, in a process of its own: in this one the shapes of all signatures are checked.
"""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

from tests.helpers.command_line import environment, keeps_programs

PROGRAM = """
import functools, json
import jax, numpy as np
from flax_mnist import (
    MLP, Config, epoch_order, evaluate, init_state, load_dataset, make_model, make_optimizer,
    predict, train_epoch, train_step,
)
from flax_mnist.errors import FlaxMnistError

rng, config = np.random.default_rng(0), Config()
images = rng.integers(0, 256, (1000, 28, 28), dtype=np.uint8)
labels, floats = rng.integers(0, 10, 1000, dtype=np.int32), (images / 255).astype(np.float32)
model, optimizer = make_model(config), make_optimizer(config)
params = init_state(config).params
static = {"model": model, "optimizer": optimizer}

def epoch(images=images, labels=labels, order=epoch_order(0, 0, n=1000), batch_size=64):
    return train_epoch(init_state(config), images, labels, order, batch_size=batch_size, **static)

def of_shapes(images, labels):
    # No values at all: what is refused here was refused while tracing.
    epoch = functools.partial(train_epoch, batch_size=64, **static)
    return jax.eval_shape(epoch, init_state(config), images, labels, labels)

ints = functools.partial(jax.ShapeDtypeStruct, dtype=np.int32)
cases = {
    "floats": lambda: epoch(images=floats),
    "floats, traced": lambda: of_shapes(jax.ShapeDtypeStruct((9, 28, 28), np.float32), ints((9,))),
    "few labels": lambda: epoch(labels=labels[:100]),
    "few, traced": lambda: of_shapes(jax.ShapeDtypeStruct((9, 28, 28), np.uint8), ints((7,))),
    "order beyond": lambda: epoch(order=epoch_order(0, 0, n=60_000)),
    "order below": lambda: epoch(order=np.array([3, -1])),
    "order of floats": lambda: epoch(order=np.arange(1000.0)),
    "order of a mask": lambda: epoch(order=labels > 3),
    "no order": lambda: epoch(order=np.array([], np.int32)),
    "no batch": lambda: epoch(batch_size=0),
    "eleven classes": lambda: epoch(labels=labels + 1),
    "one-hot": lambda: epoch(labels=np.eye(10, dtype=np.int32)[labels]),
    "step": lambda: train_step(init_state(config), floats, labels, **static),
    "step, few": lambda: train_step(init_state(config), images, labels[:9], **static),
    "no images": lambda: train_step(init_state(config), images[:0], labels[:0], **static),
    "evaluate, none": lambda: evaluate(params, images[:0], labels[:0], model=model),
    "evaluate": lambda: evaluate(params, floats, labels, model=model),
    "evaluate, few": lambda: evaluate(params, images, labels[:9], model=model),
    "evaluate, classes": lambda: evaluate(params, images, labels - 1, model=model),
    "one image": lambda: predict(params, images[0], model=model),
    "one flat image": lambda: predict(params, images[0].ravel(), model=model),
    "a list": lambda: predict(params, images[:9].tolist(), model=model),
    "minst": lambda: load_dataset("minst"),
    "cifar": lambda: load_dataset("cifar"),
    "float64": lambda: init_state(Config(precision="float64")),
    "deterministic": lambda: predict(
        params, images, model=make_model(Config(deterministic=True))
    ),
    "bytes as labels, int64 order": lambda: epoch(
        labels=labels.astype(np.uint8), order=rng.permutation(1000)
    ),
    "on the device": lambda: epoch(*map(jax.device_put, (images, labels))),
    "sizes in a list": lambda: predict(params, images, model=MLP(hidden_sizes=[128, 64])),
}
said = {}
for name, case in cases.items():
    try:
        case()
        said[name] = "fine"
    except (FlaxMnistError, ValueError) as error:
        said[name] = f"{type(error).__name__} {error}"
    except Exception as error:
        said[name] = f"escaped: {type(error).__name__}"
print(json.dumps(said))
"""

NOT_BYTES = "not uint8 [n, 28, 28], which are bytes, 0 to 255. A single image is image[None]."
NOT_A_ROW = "not one row of whole numbers."
NO_IMAGES = "ArgumentError images: there is none, of which there would be a mean."
FLOAT64 = "need float64 in JAX: first jax.config.update('jax_enable_x64', True)."
EXPECTED = {
    "floats": f"ArgumentError images: float32 [1000, 28, 28], {NOT_BYTES}",
    "floats, traced": f"ArgumentError images: float32 [9, 28, 28], {NOT_BYTES}",
    "few labels": "ArgumentError labels: 100 for 1,000 images.",
    "few, traced": "ArgumentError labels: 7 for 9 images.",
    "order beyond": "ArgumentError order: 59,999 is among them, and they are 0 to 999.",
    "order below": "ArgumentError order: -1 is among them, and they are 0 to 999.",
    "order of floats": f"ArgumentError order: float32 [1000], {NOT_A_ROW}",
    "order of a mask": f"ArgumentError order: bool [1000], {NOT_A_ROW}",
    "no order": "ArgumentError order: is empty, and an epoch visits at least one image.",
    "no batch": "ArgumentError batch_size: 0, not at least 1.",
    "eleven classes": "ArgumentError labels: 10 is among them, and they are 0 to 9.",
    "one-hot": f"ArgumentError labels: int32 [1000, 10], {NOT_A_ROW}",
    "step": f"ArgumentError images: float32 [1000, 28, 28], {NOT_BYTES}",
    "step, few": "ArgumentError labels: 9 for 1,000 images.",
    "no images": NO_IMAGES,
    "evaluate, none": NO_IMAGES,
    "evaluate": f"ArgumentError images: float32 [1000, 28, 28], {NOT_BYTES}",
    "evaluate, few": "ArgumentError labels: 9 for 1,000 images.",
    "evaluate, classes": "ArgumentError labels: -1 is among them, and they are 0 to 9.",
    "one image": f"ArgumentError images: uint8 [28, 28], {NOT_BYTES}",
    "one flat image": f"ArgumentError images: uint8 [784], {NOT_BYTES}",
    "a list": f"ArgumentError images: a list, {NOT_BYTES}",
    "minst": "RequestError minst: did you mean mnist? There are auto, mnist, fashion_mnist, "
    "kmnist, synthetic.",
    "cifar": "RequestError cifar: there are auto, mnist, fashion_mnist, kmnist, synthetic.",
    "float64": f"RequestError float64 and deterministic networks {FLOAT64}",
    "deterministic": f"RequestError float64 and deterministic networks {FLOAT64}",
    "bytes as labels, int64 order": "fine",
    "on the device": "fine",
    "sizes in a list": "fine",
}


@pytest.fixture(scope="module")
def said() -> dict[str, str]:
    run = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=environment(**keeps_programs()),
        capture_output=True,
        text=True,
        check=False,
    )
    assert run.returncode == 0, run.stderr
    return json.loads(run.stdout)


@pytest.mark.parametrize("case", EXPECTED)
def test_it_is_refused_by_name_or_taken(said, case):
    assert said[case] == EXPECTED[case]


def test_every_case_is_looked_at(said):
    assert said.keys() == EXPECTED.keys()
