"""Strictness for every test, and the data that several need."""

from __future__ import annotations

import gc
import importlib
import os
import shutil
import signal
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

# The tests compare bits and tolerances that hold on a CPU; subprocesses inherit it.
os.environ["JAX_PLATFORMS"] = "cpu"
# What a library will do away with fails in them, too, as `filterwarnings` has it here.
os.environ["PYTHONWARNINGS"] = "error::DeprecationWarning,error::PendingDeprecationWarning"
# As in a command: what is traced and imported stays, and is hardly looked through for garbage.
gc.set_threshold(100_000)
# It names the real digits for the tests that want them; commands would take them always.
MNIST = os.environ.get("FLAX_MNIST_DATA_DIR")

import jax
import numpy as np
import pytest
from jaxtyping import install_import_hook

PACKAGE = Path(__file__).parents[1] / "flax_mnist"
WITH_SHAPES = [
    ".".join(path.relative_to(PACKAGE.parent).with_suffix("").parts)
    for path in PACKAGE.rglob("*.py")
    if "from jaxtyping import" in path.read_text(encoding="utf-8")
]
# In every test each call of these modules' functions is held against its signature. Other modules
# are given values of wrong types on purpose, and say so themselves.
install_import_hook(WITH_SHAPES, "beartype.beartype")

from flax_mnist import Config, init_state
from flax_mnist.data import synthetic
from flax_mnist.data.dataset import Dataset, load_dataset
from flax_mnist.store.weights import save_weights
from tests.helpers.datasets import dataset_of
from tests.helpers.idx_files import write_idx_dir

# An array that is silently broadcast to another rank is a bug in a program of fixed shapes.
jax.config.update("jax_numpy_rank_promotion", "raise")
# As is a dtype that two others are silently turned into.
jax.config.update("jax_numpy_dtype_promotion", "strict")


@pytest.fixture(scope="session")
def kept(pytestconfig: pytest.Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What was compiled and drawn is kept here, in pytest's own cache.

    Compilers take a third of the tests' time, and what one worker, Python or environment has
    compiled is the next one's, too.
    """
    pytests = getattr(pytestconfig, "cache", None)  # none with `-p no:cacheprovider`
    return pytests.mkdir("kept") if pytests else tmp_path_factory.mktemp("kept")


@pytest.fixture(autouse=True, scope="session")
def _own_cache(kept: Path, tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """What is the user's is neither read nor written, by subprocesses neither."""
    jax.config.update("jax_compilation_cache_dir", str(kept / "programs"))
    jax.config.update("jax_persistent_cache_min_compile_time_secs", 0.0)
    jax.config.update("jax_persistent_cache_min_entry_size_bytes", -1)
    # JAX asks at a process's first program whether to keep any; a benchmark's says no.
    jax.block_until_ready(jax.jit(abs)(1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("XDG_CACHE_HOME", str(kept))
        patch.setenv("TORCHINDUCTOR_CACHE_DIR", str(kept / "torchinductor"))
        patch.delenv("FLAX_MNIST_DATA_DIR", raising=False)
        patch.setenv("TFDS_DATA_DIR", str(tmp_path_factory.mktemp("tfds")))
        yield


@pytest.fixture(autouse=True, scope="session")
def _signals_are_heard() -> None:
    """Tests that run in the background, or by nohup, would have processes ignore what they send."""
    signal.signal(signal.SIGINT, signal.default_int_handler)
    if hasattr(signal, "SIGHUP"):  # not on Windows
        signal.signal(signal.SIGHUP, signal.SIG_DFL)


@pytest.fixture(scope="session")
def digits() -> dict[str, np.ndarray]:
    """A small set of drawn digits: 1,000 for training, 200 for testing."""
    return synthetic.generate(seed=1, n_train=1000, n_test=200)


@pytest.fixture(scope="session")
def dataset(digits: dict[str, np.ndarray]) -> Dataset:
    """The small set as it is trained on: in batches of 64 the last one is ragged."""
    return dataset_of(digits)


@pytest.fixture(scope="session")
def data(tmp_path_factory: pytest.TempPathFactory, digits: dict[str, np.ndarray]) -> Path:
    """The small set as four gzipped IDX files, for all that only read them."""
    return write_idx_dir(tmp_path_factory.mktemp("data") / "idx", digits)


@pytest.fixture
def idx_dir(tmp_path: Path, data: Path) -> Path:
    """A copy of those files, for a test that damages them."""
    return shutil.copytree(data, tmp_path / "idx")


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    """Untrained weights in a file, for a test's own."""
    save_weights(tmp_path / "weights.safetensors", init_state(Config()).params)
    return tmp_path / "weights.safetensors"


@pytest.fixture(scope="session")
def torch() -> ModuleType:
    """PyTorch, for a test that needs it; the extra `dev` does without.

    On one thread: several wait for each other where other tests run beside these.
    """
    module: ModuleType = pytest.importorskip("torch")
    module.set_num_threads(1)
    return module


@pytest.fixture(scope="session")
def tutorial(torch: ModuleType) -> ModuleType:
    """The tutorial in PyTorch."""
    return importlib.import_module("benchmarks.equivalence.torch_reference")


@pytest.fixture(scope="session")
def mnist_dir() -> Path:
    """The folder with the original MNIST files."""
    if not MNIST:
        pytest.skip("FLAX_MNIST_DATA_DIR names no folder with MNIST's four files")
    return Path(MNIST).resolve()


@pytest.fixture(scope="session")
def full_dataset() -> Dataset:
    """Real MNIST where it is at hand, otherwise the built-in digits: 60,000 and 10,000."""
    return load_dataset("mnist", MNIST) if MNIST else load_dataset("synthetic")
