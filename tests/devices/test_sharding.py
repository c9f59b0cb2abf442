"""One batch over several devices: the same training, whatever their number.

A process has as many CPU devices as it was started with. So all that needs several happens in one
process, `python -m tests.devices.test_sharding FOLDER [--long]`, which prints what it saw as JSON.
"""

from __future__ import annotations

import dataclasses
import json
import subprocess
import sys
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.stages import Compiled
from safetensors.numpy import load_file

from flax_mnist import Config, Dataset, load_dataset, train
from flax_mnist.cli.main import main
from flax_mnist.data import synthetic
from flax_mnist.data.dataset import Split
from flax_mnist.devices import runtime, sharding
from flax_mnist.errors import RequestError
from flax_mnist.programs.hlo import program_of
from flax_mnist.programs.operations import loops_of
from flax_mnist.runs import loop
from flax_mnist.store import run_folder
from tests.helpers.accelerators import collectives
from tests.helpers.datasets import dataset_of
from tests.helpers.idx_files import write_idx_dir

COUNTS = (1, 2, 4, 8)
CASES = {63: (1000, COUNTS), 64: (1000, (1, 8)), 10: (303, (1, 8)), 1: (30, (1, 8))}
"""Batch size, of how many images an epoch has at most 32 batches, and on how many devices."""


def after_training(config: Config, dataset: Dataset, count: int) -> list[np.ndarray]:
    """The parameters, and the metrics that do not depend on time, after training on devices."""
    mesh = sharding.make_mesh(jax.devices()[:count])
    first = loop.begin(config)
    chunk = loop.chunk_steps(config, len(dataset.train.labels), mesh=mesh)
    run_chunk = loop.compile_chunks(config, first, dataset.train, chunk, mesh)
    numbers = []
    for progress, metrics in loop.fit(config, dataset, first, run_chunk, chunk, mesh):
        params = progress.state.params
        if metrics:
            # Not the accuracy: a single image on the edge of two classes is 1e-4 of it.
            numbers.append([metrics.train_loss, metrics.test_loss])
    return [*map(np.asarray, jax.tree.leaves(params)), np.array(numbers)]


def difference(a: list[np.ndarray], b: list[np.ndarray]) -> float:
    return max(float(np.abs(x - y).max()) for x, y in zip(a, b, strict=True))


def compiled_steps(count: int, config: Config) -> Compiled:
    """The program of two steps, as XLA runs it on each of the devices."""
    n = 2 * config.batch_size
    data = Split(np.zeros((n, 28, 28), np.uint8), np.zeros(n, np.int32))
    mesh = sharding.make_mesh(jax.devices()[:count])
    progress = loop.begin(config)
    lowered = train.train_steps.lower(
        progress.state,
        progress.losses,
        *sharding.replicate(data, mesh),
        jax.ShapeDtypeStruct((n,), jnp.int32, sharding=sharding.replicated(mesh)),
        model=train.make_model(config),
        optimizer=train.make_optimizer(config),
        batch_size=config.batch_size,
        batch_sharding=sharding.shard_batch(mesh),
    )
    return lowered.compile()


def observe(folder: Path, long: bool) -> dict:
    """What is seen with eight devices."""
    runtime.start_devices("cpu", cpu_devices=max(COUNTS))
    if long:
        jax.config.update("jax_enable_x64", True)
        return {
            "deterministic": agreement(
                Config(deterministic=True), load_dataset("synthetic"), (1, 8)
            )
        }
    arrays = synthetic.generate(seed=1, n_train=1000, n_test=200)
    float32 = agreement(Config(learning_rate=0.01, momentum=0.5), dataset_of(arrays, 1000), COUNTS)
    text = compiled_steps(8, Config()).as_text()
    resumed = elastic(folder, arrays)
    jax.config.update("jax_enable_x64", True)
    float64 = {
        batch_size: agreement(
            Config(batch_size=batch_size, learning_rate=0.01, momentum=0.5, precision="float64"),
            dataset_of(arrays, n),
            counts,
        )
        for batch_size, (n, counts) in CASES.items()
    }
    deterministic = Config(learning_rate=0.01, momentum=0.5, deterministic=True)
    in_tens = dataclasses.replace(deterministic, batch_size=10)
    return {
        "float32": float32,
        "float64": float64,
        "deterministic": agreement(deterministic, dataset_of(arrays, 1000), COUNTS),
        "resumed": resumed,
        "sums": text.count(" all-reduce("),
        "sums of two types": sums_of(compiled_steps(8, deterministic)),
        "cut": [losses_of_a_cut_epoch(in_tens, arrays, cut) for cut in (0, 5, 33, 71)],
        "has a share": "[8,784]" in text,
        "has all": "[64,784]" in text,
    }


def sums_of(compiled: Compiled) -> dict[int, int]:
    """How often devices add something up, by its bytes."""
    found = collectives(loops_of(program_of(compiled)))
    assert {kind for kind, _ in found} == {"all-reduce"}
    return {nbytes: times for (_, nbytes), times in found.items()}


def losses_of_a_cut_epoch(
    config: Config, arrays: dict[str, np.ndarray], cut: int
) -> tuple[float, int]:
    """Their sum and how many were finite, on four devices, in two calls where it is cut."""
    mesh, split = sharding.make_mesh(jax.devices()[:4]), dataset_of(arrays).train
    progress, rows = loop.begin(config), np.arange(len(split.labels), dtype=np.int32)
    state, losses = sharding.replicate((progress.state, progress.losses), mesh)
    for part in np.split(rows, [config.batch_size * cut]):
        if part.size:
            state, losses = train.train_steps(
                state, losses, *sharding.replicate(split, mesh), sharding.replicate(part, mesh),
                model=train.make_model(config), optimizer=train.make_optimizer(config),
                batch_size=config.batch_size, batch_sharding=sharding.shard_batch(mesh),
            )  # fmt: skip
    return float(losses.total), int(losses.finite)


def agreement(
    config: Config, dataset: Dataset, counts: tuple[int, ...]
) -> dict[int, tuple[float, float]]:
    """By how much parameters and metrics differ from those of a single device, at most."""
    *params, metrics = after_training(config, dataset, 1)
    found = {}
    for count in counts[1:]:
        *params_there, metrics_there = after_training(config, dataset, count)
        found[count] = difference(params_there, params), difference([metrics_there], [metrics])
    return found


def elastic(folder: Path, arrays: dict[str, np.ndarray]) -> dict[str, float]:
    """Runs that go on with another number of devices, against one that had a single one."""
    data = str(write_idx_dir(folder / "idx", arrays))

    def weights(*counts: int) -> list[np.ndarray]:
        path = folder / "-".join(map(str, counts))
        for epochs, count in enumerate(counts, start=1):
            flags = ["--epochs", str(epochs), "--num-devices", str(count), "--run-dir", str(path)]
            more = ["--resume"] if epochs > 1 else ["--data-dir", data, "--momentum", "0.5"]
            assert main(["train", "--quiet", *flags, *more]) == 0
        said = json.loads((path / run_folder.CONFIG).read_text())["topology"]
        assert said == {"processes": 1, "devices": count, "devices_per_process": count}
        return list(load_file(path / run_folder.WEIGHTS).values())

    alone = weights(1, 1)
    return {
        "4-1": difference(weights(4, 1), alone),
        "1-4": difference(weights(1, 4), alone),
    }


def seen_elsewhere(folder: Path, *more: str) -> dict:
    done = subprocess.run(
        [sys.executable, "-m", "tests.devices.test_sharding", str(folder), *more],
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


@pytest.fixture(scope="module")
def seen(tmp_path_factory) -> dict:
    return seen_elsewhere(tmp_path_factory.mktemp("devices"))


@pytest.mark.long
@pytest.mark.parametrize("batch_size", CASES)
def test_the_number_of_devices_changes_nothing_but_rounding(seen, batch_size):
    """Five epochs, with batches that the devices divide and others; a batch of one among them."""
    differences = seen["float64"][str(batch_size)]
    assert sorted(differences) == [str(count) for count in CASES[batch_size][1][1:]]
    assert max(map(max, differences.values())) <= 1e-12


@pytest.mark.long
def test_in_float32_too(seen):
    assert max(map(max, seen["float32"].values())) <= 1e-5


@pytest.mark.long
def test_deterministic_float32_weights_have_the_same_bits_on_any_number_of_devices(seen):
    params, metrics = zip(*seen["deterministic"].values(), strict=True)
    assert (len(params), max(params)) == (3, 0)
    assert max(metrics) <= 1e-6


@pytest.mark.long
def test_each_device_has_its_share_and_there_is_one_sum_a_step(seen):
    assert (seen["sums"], seen["has a share"], seen["has all"]) == (1, True, False)


@pytest.mark.long
def test_losses_of_another_type_than_the_gradients_are_added_up_when_all_steps_are_done(seen):
    gradients, two_losses = 8 * 109_386, 4 * 2
    assert seen["sums of two types"] == {str(gradients): 2, str(two_losses): 1}
    whole, *cut = seen["cut"]
    assert cut == [whole] * 3  # to the bit
    assert whole[1] == 100


@pytest.mark.long
def test_a_run_goes_on_with_another_number_of_devices(seen):
    assert max(seen["resumed"].values()) <= 1e-6


@pytest.mark.long
def test_sixty_thousand_images_on_eight_devices(tmp_path):
    """4,690 steps, which amplify the smallest rounding a thousand times."""
    ((params, metrics),) = seen_elsewhere(tmp_path, "--long")["deterministic"].values()
    assert params == 0
    assert metrics <= 1e-6


def test_more_devices_than_there_are_is_refused():
    with pytest.raises(RequestError, match=r"--num-devices 3: .* has 1 \(cpu\)"):
        sharding.choose_devices(jax.devices()[0], 3)
    assert sharding.choose_devices(jax.devices()[0], None) == jax.devices()


def test_no_devices_are_refused(tmp_path, capsys):
    assert main(["train", "--num-devices", "0", "--run-dir", str(tmp_path)]) == 2
    assert "num-devices is 0" in capsys.readouterr().err


if __name__ == "__main__":
    print(json.dumps(observe(Path(sys.argv[1]), "--long" in sys.argv)))
