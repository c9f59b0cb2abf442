"""SIGINT, SIGTERM, SIGHUP: the first ends a training in good order, any other ends at once."""

import contextlib
import os
import signal
import socket
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

from flax_mnist.errors import last_words

_WORDS = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}
if hasattr(signal, "SIGHUP"):  # not on Windows
    _WORDS[signal.SIGHUP] = "hung up"
_received: int | None = None
_is_listening = False  # Whether someone will look at `_received` soon.


def watch() -> None:
    """From now on a signal ends the process, whatever its threads do: every file is whole always.

    A thread hears of it by a socket, since a handler runs only when the main thread comes back to
    Python, which may take as long as a compilation. An exception could be swallowed, by a garbage
    collector's callback for one. A signal that is ignored already stays so.
    """
    ear, mouth = socket.socketpair()
    mouth.setblocking(False)
    signal.set_wakeup_fd(mouth.fileno(), warn_on_full_buffer=False)
    for signum in _WORDS:
        # `nohup`, or a shell that starts a job in the background, wants it to be of no effect.
        if signal.getsignal(signum) != signal.SIG_IGN:
            signal.signal(signum, lambda *_: None)
    threading.Thread(target=_listen, args=(ear, mouth), daemon=True).start()


def _listen(ear: socket.socket, _mouth: socket.socket) -> None:
    global _received
    while True:
        for signum in ear.recv(16):
            if signum not in _WORDS:
                continue
            if _is_listening and _received is None:
                _received = signum
            else:
                last_words(word(signum))
                os._exit(128 + signum)


def word(signum: int) -> str:
    """What a signal does to a run."""
    return _WORDS[signal.Signals(signum)]


#: What a training enters with its first step: what it is given tells after each of its chunks the
#: number of the signal for which it shall end, or None.
Listening = Callable[[], AbstractContextManager[Callable[[], int | None]]]


@contextlib.contextmanager
def deaf() -> Iterator[Callable[[], int | None]]:
    """No signal is heard."""
    yield lambda: None


@contextlib.contextmanager
def listening() -> Iterator[Callable[[], int | None]]:
    """Within, the first signal is only noted: the yielded function returns it, or None."""
    global _is_listening
    _is_listening = True
    try:
        yield lambda: _received
    finally:
        _is_listening = False
