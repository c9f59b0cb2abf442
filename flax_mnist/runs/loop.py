"""The loop around the steps: some hundred or thousand in one go, metrics after each epoch."""

import itertools
import math
import time
from collections.abc import Callable, Iterable, Iterator

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh
from jax.stages import Lowered
from jax.typing import ArrayLike
from numpy.typing import NDArray

from flax_mnist.config import Config
from flax_mnist.data.dataset import Dataset, Split
from flax_mnist.data.order import epoch_order, steps_per_epoch
from flax_mnist.devices import sharding
from flax_mnist.devices.runtime import compiler_options
from flax_mnist.errors import FlaxMnistError
from flax_mnist.evaluation import evaluate
from flax_mnist.model import make_model
from flax_mnist.store.checkpoint import Progress
from flax_mnist.store.metrics import Metrics
from flax_mnist.train import (
    Losses,
    State,
    block_length,
    init_state,
    make_optimizer,
    no_losses,
    state_shapes,
    train_steps,
)

#: `train_steps` of one model and optimizer: state, losses, images, labels and order.
RunChunk = Callable[[State, Losses, ArrayLike, ArrayLike, NDArray[np.int32]], tuple[State, Losses]]

CHUNK_STEPS = 20_000
#: About a second's work: for so long a run may have no ear for a signal.
CHUNK_FLOPS = {"cpu": 5e10, "gpu": 1e13, "tpu": 1e13}
#: Devices that share one process's threads may lock each other out after some hundred steps.
MANY_CPUS_STEPS = 32


def begin(config: Config, optimizer: optax.GradientTransformation | None = None) -> Progress:
    """Before the first step; for the optimizer see `init_state`."""
    return Progress(init_state(config, optimizer), no_losses(make_model(config)))


def shapes(config: Config, optimizer: optax.GradientTransformation | None = None) -> Progress:
    """What `begin` returns, for a process that is told the numbers; see `state_shapes`."""
    return Progress(state_shapes(config, optimizer), no_losses(make_model(config)))


def chunk_steps(
    config: Config,
    n: int,
    at_most: float = math.inf,
    mesh: Mesh | None = None,
    networks: int = 1,
) -> int:
    """How many steps of an epoch of `n` images run in one go: `at_most`, or what takes a second.

    `mesh` is that over which batches are spread, `networks` how many a device trains in a call.
    """
    # A product with each weight in the forward pass, two in the backward pass.
    flops = 6 * config.batch_size * config.weights * networks
    backend = jax.default_backend()
    a_second = CHUNK_FLOPS[backend] / flops
    if backend == "cpu" and mesh:
        at_most = min(at_most, MANY_CPUS_STEPS)
    return max(1, int(min(a_second, CHUNK_STEPS, steps_per_epoch(config, n), at_most)))


def _cuts(config: Config, n: int, chunk: int, first_step: int) -> list[slice]:
    """Where an epoch's order is cut, from a step on."""
    size = chunk * config.batch_size
    starts = range(first_step * config.batch_size, n, size)
    return [slice(start, min(start + size, n)) for start in starts]


def chunk_lengths(config: Config, n: int, chunk: int, first_step: int = 0) -> set[int]:
    """Of how many images the chunks are, if the first epoch is gone on with at a step."""
    all_cuts = _cuts(config, n, chunk, first_step) + _cuts(config, n, chunk, 0)
    return {cut.stop - cut.start for cut in all_cuts}


def rest_of_epoch(
    config: Config,
    progress: Progress,
    order: NDArray[np.int32],
    run: Callable[[State, Losses, NDArray[np.int32]], tuple[State, Losses]],
    chunk: int,
) -> Iterator[Progress]:
    """Trains chunk by chunk what is left of the epoch in which `progress` stands.

    Args:
        progress: of one network, or of many, each leaf `[networks, ...]`; its state is donated.
        order: the epoch's, `[n]` or `[networks, n]`.
        run: trains on the part of it that it is given.

    Yields:
        The progress after each chunk, good until the next one; at the end of the epoch all its
        steps are done, and it is not the next epoch's yet.
    """
    for cut in _cuts(config, order.shape[-1], chunk, progress.step):
        start = time.perf_counter()
        state, losses = run(progress.state, progress.losses, order[..., cut])
        jax.block_until_ready(losses)
        seconds = progress.seconds + time.perf_counter() - start
        done = math.ceil(cut.stop / config.batch_size)
        progress = Progress(state, losses, progress.epoch, done, seconds)
        yield progress


def lower_chunk(
    config: Config,
    progress: Progress,
    train: Split,
    rows: int,
    mesh: Mesh | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> Lowered:
    """`train_steps` for a chunk of so many images, before it is compiled.

    Of the progress and the images only shapes, dtypes and devices count.
    """
    n = len(train.labels)
    place = sharding.replicated(mesh)
    images_and_labels = [
        # On the device wide labels are JAX's own integers.
        jax.ShapeDtypeStruct(
            array.shape, jax.dtypes.canonicalize_dtype(array.dtype), sharding=place
        )
        for array in train
    ]
    return train_steps.lower(
        progress.state,
        progress.losses,
        *images_and_labels,
        jax.ShapeDtypeStruct((rows,), jnp.int32, sharding=place),
        model=make_model(config),
        optimizer=optimizer or make_optimizer(config, steps_per_epoch(config, n)),
        batch_size=config.batch_size,
        batch_sharding=sharding.shard_batch(mesh),
    )


def compile_chunks(
    config: Config,
    progress: Progress,
    train: Split,
    chunk: int,
    mesh: Mesh | None = None,
    optimizer: optax.GradientTransformation | None = None,
) -> RunChunk:
    """`train_steps` for chunks of so many steps, compiled before it is first called.

    So the first epoch takes as long as any other, and the compilation can be timed on its own. The
    optimizer is the one for which the progress has begun, by default the config's.
    """
    n = len(train.labels)
    options = compiler_options(config.deterministic)
    chunks = _parts_of_chunks(config, n, chunk, progress.step, mesh)
    programs = {
        rows: lower_chunk(config, progress, train, rows, mesh, optimizer).compile(options)
        for rows in set(itertools.chain(*chunks))
    }
    # At a process's first product the device's library prepares its kernels, for some ten ms.
    square = np.zeros((256, 256), np.float32)
    jax.jit(lambda x: x.T @ x)(square).block_until_ready()

    def run(
        state: State, losses: Losses, images: ArrayLike, labels: ArrayLike, order: NDArray[np.int32]
    ) -> tuple[State, Losses]:
        for rows in np.split(order, np.cumsum(_parts(config, len(order), mesh))[:-1]):
            state, losses = programs[len(rows)](state, losses, images, labels, rows)
        return state, losses

    return run


def _parts(config: Config, rows: int, mesh: Mesh | None) -> list[int]:
    """Of how many images the programs are that train on a chunk.

    On a CPU whole blocks have one, and what is left over, a few steps, another: `_try_out` says
    why. Chunks of which devices share the batches are short as they are.
    """
    left = rows % (block_length(config.batch_size) * config.batch_size)
    is_split = jax.default_backend() == "cpu" and mesh is None and 0 < left < rows
    return [rows - left, left] if is_split else [rows]


def _parts_of_chunks(
    config: Config, n: int, chunk: int, first_step: int, mesh: Mesh | None
) -> list[list[int]]:
    return [_parts(config, rows, mesh) for rows in chunk_lengths(config, n, chunk, first_step)]


def fit(
    config: Config,
    dataset: Dataset,
    progress: Progress,
    run_chunk: RunChunk,
    chunk: int,
    mesh: Mesh | None = None,
) -> Iterator[tuple[Progress, Metrics | None]]:
    """Trains chunk by chunk until `config.epochs` epochs are finished.

    Args:
        progress: from `begin`, or any that this function yielded; its state is donated.
        run_chunk: from `compile_chunks`, for chunks of `chunk` steps on the same mesh.

    Yields:
        After each chunk the progress, good until the next one; with metrics where an epoch ended.

    Raises:
        FlaxMnistError: a loss is not finite.
    """
    splits = (dataset.train, dataset.test, dataset.validation)
    train, test, validation = sharding.replicate(splits, mesh)
    images, labels = jax.block_until_ready(train)  # else the first epoch would wait for them
    options = compiler_options(config.deterministic)
    score = jax.jit(evaluate, static_argnames="model", compiler_options=options)
    n = len(dataset.train.labels)
    steps = steps_per_epoch(config, n)
    model = make_model(config)

    def run(state: State, losses: Losses, part: NDArray[np.int32]) -> tuple[State, Losses]:
        return run_chunk(state, losses, images, labels, part)

    chunks = _parts_of_chunks(config, n, chunk, progress.step, mesh)
    _try_out(run, progress, {left for _, *rest in chunks for left in rest})
    while progress.epoch < config.epochs:
        order = epoch_order(config.seed, progress.epoch, n)
        rest = rest_of_epoch(config, progress, order, run, chunk)
        for progress in rest:
            _require_finite(config, progress, steps)
            if progress.step < steps:
                yield progress, None
        scores, seconds = [float(progress.losses.total) / steps], progress.seconds
        progress = Progress(progress.state, no_losses(model), progress.epoch + 1)
        for split in (test, validation):
            if split is not None:
                scores += map(float, score(progress.state.params, *split, model=model))
        if not all(map(math.isfinite, scores)):
            raise _not_finite(f"the test after epoch {progress.epoch}", config)
        yield progress, metrics_of(config, n, progress.epoch, seconds, scores)


def _try_out(
    run: Callable[[State, Losses, NDArray[np.int32]], tuple[State, Losses]],
    progress: Progress,
    lengths: Iterable[int],
) -> None:
    """Runs programs once, for nothing, that train on so few images that it takes no time.

    At the first run of each loop a CPU's library prepares its products, for some ten ms: the first
    epoch would wait for it.
    """
    for rows in lengths:
        copy = jax.tree.map(np.array, progress.state)  # its memory is used again
        jax.block_until_ready(run(copy, progress.losses, np.zeros(rows, np.int32)))


def metrics_of(
    config: Config, n: int, epoch: int, seconds: float, scores: Iterable[float]
) -> Metrics:
    """What is said of an epoch of `n` images.

    `scores` are training loss, test loss and accuracy, and of a validation loss and accuracy.
    """
    train_loss, test_loss, test_accuracy, *validation = scores
    validation_loss, validation_accuracy = validation or (None, None)
    return Metrics(
        epoch=epoch,
        step=epoch * steps_per_epoch(config, n),
        train_loss=train_loss,
        test_loss=test_loss,
        test_accuracy=round(test_accuracy, 6),
        seconds=round(seconds, 6),
        images_per_second=round(n / seconds, 1),
        validation_loss=validation_loss,
        validation_accuracy=validation_accuracy and round(validation_accuracy, 6),
    )


def _require_finite(config: Config, progress: Progress, steps: int) -> None:
    finite = int(progress.losses.finite)
    if finite < progress.step:
        step = progress.epoch * steps + finite + 1
        raise _not_finite(f"step {step:,}", config)


def _not_finite(where: str, config: Config) -> FlaxMnistError:
    return FlaxMnistError(
        f"The loss is not finite in {where}: the steps are too large. "
        f"Try a --learning-rate below {config.learning_rate:g}."
    )
