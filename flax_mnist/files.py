"""Reading and writing files, and where the program keeps what it can make again."""

import contextlib
import os
from pathlib import Path

from flax_mnist.errors import DataError, FlaxMnistError, RequestError


def read(path: Path, start: int = 0, most: int | None = None) -> bytes:
    """The content of an ordinary file, from `start` and of at most so many bytes.

    A pipe is not waited for.

    Raises:
        DataError: it is none, or cannot be read.
        FileNotFoundError: there is nothing.
    """
    try:
        if path.exists() and not path.is_file():
            raise DataError(f"{path}: is no ordinary file.")
        with path.open("rb") as file:
            file.seek(start)
            # Memory is taken for what there is, whatever is asked for.
            left = os.fstat(file.fileno()).st_size - start
            return file.read() if most is None else file.read(max(0, min(most, left)))
    except FileNotFoundError:
        raise
    except OSError as error:
        raise DataError(f"{path}: cannot be read ({error.strerror}).") from error


def write_atomically(path: Path, content: bytes) -> None:
    """Writes a file, all of it or nothing: whoever reads `path` meets the old or the new content.

    Raises:
        RequestError: its folder does not exist, or `path` is a folder, a device or the like.
        FlaxMnistError: it cannot be written.
    """
    if not path.parent.is_dir():
        raise RequestError(f"{path}: there is no folder {path.parent}.")
    if path.exists() and not path.is_file():
        raise RequestError(f"{path}: is no ordinary file.")
    partial = path.with_name(f"{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        os.replace(partial, path)
    except OSError as error:
        raise FlaxMnistError(f"{path}: cannot be written ({error.strerror}).") from error
    finally:
        partial.unlink(missing_ok=True)


def cache_dir() -> Path | None:
    """The user's cache folder for this program; it may not exist yet.

    None where no home is known: in a container, a user may have none.
    """
    import platformdirs

    with contextlib.suppress(RuntimeError):
        folder = Path(platformdirs.user_cache_dir("flax-mnist"))
        # Versions of platformdirs before 4.11 take a HOME that is not absolute for one.
        if folder.is_absolute():
            return folder
    return None
