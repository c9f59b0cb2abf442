"""A dataset's files from the network: verified, whole or not at all, given up if none answers."""

import contextlib
import io
import logging
import sys
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from flax_mnist.errors import FlaxMnistError

ANSWER_TIMEOUT = 3.0  #: Seconds; a network from which by then nothing has come is out of reach.
READ_TIMEOUT = 10.0  #: Seconds for a server that has answered to connect again or to send more.
ATTEMPTS = 3  #: How often a file is asked for that a server fails to send rightly.


class DownloadError(FlaxMnistError):
    """The dataset is not on disk and could not be fetched. Exit code 1."""


class Source(NamedTuple):
    """A file that can be had from the network."""

    url: str
    size: int  #: Bytes.
    sha256: str

    @property
    def file_name(self) -> str:
        """What it is called on disk."""
        return self.url.rsplit("/", 1)[-1]


def fetch(name: str, sources: Sequence[Source], folder: Path) -> None:
    """Downloads the sources of the dataset `name` into `folder`, which is made.

    A file that is there with the right sum is not asked for again. One that is not, say the half of
    it, is replaced in one step, once the new one has come and been verified. The proxies that the
    environment names are used. On a terminal a bar shows what has come.

    Raises:
        DownloadError: nothing answers within `ANSWER_TIMEOUT`; or a server has sent an error, the
            wrong bytes, or nothing for `READ_TIMEOUT`, `ATTEMPTS` times over; or the folder cannot
            be written.
    """
    transfer = _Transfer(sources, folder)
    end = time.monotonic() + ANSWER_TIMEOUT
    problem: object = None
    try:
        transfer.start()
        with _bar(name, sum(source.size for source in sources)) as show:
            while transfer.is_alive() and problem is None:
                transfer.join(0.1)
                show(transfer.received)
                if time.monotonic() > end and not transfer.is_answered:
                    problem = f"no answer within {ANSWER_TIMEOUT:g} s"
            show(transfer.received)  # all of it, where it came faster than was looked
    finally:
        transfer.is_given_up = True
    problem = transfer.error or problem
    if problem is not None:
        reason = (str(problem) or type(problem).__name__).splitlines()[0].rstrip(".")
        raise DownloadError(
            f"{name} is not on disk and not to be had: {reason}. "
            "Give --data-dir a folder with its four IDX files, or --dataset synthetic."
        ) from transfer.error


class _Transfer(threading.Thread):
    """Fetches one source after the other.

    A thread, since looking up a host's name heeds no time-out: whoever waits can give up. As a
    daemon it keeps no process from ending.
    """

    def __init__(self, sources: Sequence[Source], folder: Path) -> None:
        super().__init__(daemon=True)
        self._sources, self._folder = sources, folder
        self._before, self._content = 0, io.BytesIO()
        self.is_answered = self.is_given_up = False
        self.error: Exception | None = None

    @property
    def received(self) -> int:
        """Bytes that have come."""
        return self._before + self._content.tell()

    def run(self) -> None:
        try:
            import pooch

            pooch.get_logger().setLevel(logging.WARNING)  # else it tells each file on stderr
            sums = {source.file_name: source.sha256 for source in self._sources}
            urls = {source.file_name: source.url for source in self._sources}
            store = pooch.create(
                self._folder, base_url="", registry=sums, urls=urls, retry_if_failed=ATTEMPTS - 1
            )
            for source in self._sources:
                store.fetch(source.file_name, downloader=self._ask)
                self._before, self._content = self._before + source.size, io.BytesIO()
        except Exception as error:  # whatever pooch, requests and the disk raise
            self.error = error

    def _ask(self, url: str, file: str, store: Any) -> None:
        import pooch

        # pooch has made the file, for this user alone. Made anew once all has come, it is there for
        # those whom the umask allows, and no download that is broken off leaves a part.
        Path(file).unlink()
        self._content = io.BytesIO()
        ask = pooch.HTTPDownloader(
            chunk_size=2**16, timeout=READ_TIMEOUT, hooks={"response": self._on_response}
        )
        try:
            ask(url, self._content, store)
        except Exception as error:  # requests' own, or of what it calls where a proxy's name is odd
            if self.is_answered:
                raise
            # pooch does not ask again after an error that is not requests' own.
            raise ConnectionError(f"no network ({type(error).__name__})") from error
        Path(file).write_bytes(self._content.getbuffer())

    def _on_response(self, *_: Any, **__: Any) -> None:
        if self.is_given_up:
            raise TimeoutError("it comes too late")
        self.is_answered = True


@contextlib.contextmanager
def _bar(name: str, size: int) -> Iterator[Callable[[int], None]]:
    """A bar on standard error, nothing in a pipe; the yielded function tells it the bytes."""
    from rich.console import Console
    from rich.progress import BarColumn, DownloadColumn, Progress, TransferSpeedColumn

    columns = (f"Downloading {name}", BarColumn(20), DownloadColumn(), TransferSpeedColumn())
    err, is_off = Console(stderr=True), not sys.stderr.isatty()
    with Progress(*columns, console=err, transient=True, disable=is_off) as progress:
        task = progress.add_task("", total=size)
        yield lambda received: progress.update(task, completed=received)
