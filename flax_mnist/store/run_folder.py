"""The folder of a run: `config.json`, `metrics.jsonl`, `weights.safetensors`."""

import contextlib
import errno
import os
import time
import warnings
from collections.abc import Iterator
from contextlib import AbstractContextManager
from pathlib import Path

from flax_mnist.errors import FlaxMnistError, FlaxMnistWarning, RequestError

CONFIG, METRICS, WEIGHTS = "config.json", "metrics.jsonl", "weights.safetensors"
CURVES, LOCK = "loss.png", "lock"
#: What stands in the folder of a sweep besides its pictures; the last one is a run folder.
SWEEP_CONFIG, SWEEP, OUTCOMES, BEST = "sweep.json", "sweep.jsonl", "outcomes.jsonl", "best"
HISTOGRAM = "histogram.png"
#: What stands in a folder where something has been trained.
OF_A_RUN = (CONFIG, METRICS, WEIGHTS, "checkpoints", SWEEP_CONFIG, SWEEP)
# What a file system says that knows no locks: some of NFS's, and some in a user's own programs.
_NO_LOCKS = (errno.ENOLCK, errno.EOPNOTSUPP, errno.ENOTSUP, errno.ENOSYS)


def create(run_dir: Path | str | None, dataset_name: str, resume: bool = False) -> Path:
    """Makes the folder, unless it is there to be resumed; `None` is `runs/<dataset>-<timestamp>`.

    Raises:
        RequestError: it holds a run already, or a file stands in its place.
        FlaxMnistError: it cannot be made.
    """
    if run_dir is not None:
        path = Path(os.path.expanduser(run_dir))  # a home that nobody has is a name
        return path if resume else _make(path)
    stem = f"{dataset_name}-{time.strftime('%Y%m%d-%H%M%S')}"
    names = [stem] + [f"{stem}-{i}" for i in range(2, 1000)]  # several runs within one second
    for name in names:
        with contextlib.suppress(FileExistsError):
            return _make(Path("runs") / name, exist_ok=False)
    raise FlaxMnistError(f"runs/{stem}: a thousand runs in one second.")


def best_of_sweep(path: Path) -> Path | None:
    """The run of the best member, where the folder is that of a sweep.

    Raises:
        RequestError: that sweep has none.
    """
    if not (path / SWEEP).exists():
        return None
    if not (path / BEST / CONFIG).exists():
        raise RequestError(
            f"{path}: is a sweep without a best member: it was stopped, or every member diverged."
        )
    return path / BEST


def _make(path: Path, exist_ok: bool = True) -> Path:
    try:
        path.mkdir(parents=True, exist_ok=exist_ok)
    except FileExistsError as error:
        if not exist_ok:
            raise
        raise RequestError(f"{path}: is a file, and cannot be the run folder.") from error
    except OSError as error:
        raise FlaxMnistError(f"{path}: cannot be made ({error.strerror}).") from error
    require_no_run(path)
    return path


def require_no_run(path: Path) -> None:
    """Refuses with a `RequestError` a folder that holds a run, what is left of one, or a sweep."""
    if any((path / name).exists() for name in OF_A_RUN):
        raise RequestError(
            f"{path}: holds a run already, or what is left of one. Give another --run-dir, or "
            "--resume to train a run further."
        )


@contextlib.contextmanager
def taken(run_dir: Path | str | None, dataset_name: str, resume: bool = False) -> Iterator[Path]:
    """The folder that `create` makes; within, no other process trains there.

    The operating system frees the lock when the process dies, however it dies.

    A file system that knows no locks keeps nobody out: it is gone on, with a warning.

    Raises:
        RequestError: another process does; or see `create`.
        FlaxMnistError: the folder cannot be made, or not be written to.
    """
    import filelock  # brings asyncio, for which `flax-mnist --help` need not wait

    path = create(run_dir, dataset_name, resume)
    try:
        held: AbstractContextManager[object] = filelock.FileLock(path / LOCK).acquire(
            blocking=False
        )
    except filelock.Timeout as error:
        raise RequestError(
            f"{path}: another process is training there. Where that was on a machine that has "
            f"died since, remove {path / LOCK}."
        ) from error
    except OSError as error:
        if error.errno not in _NO_LOCKS:
            raise FlaxMnistError(f"{path}: cannot be written to ({error.strerror}).") from error
        held = contextlib.nullcontext()
        warnings.warn(
            f"{path}: its file system has no locks ({error.strerror}). Train there once at a time.",
            FlaxMnistWarning,
            stacklevel=2,
        )
    with held:
        if not resume:
            require_no_run(path)  # now that nobody else can make one
        yield path
