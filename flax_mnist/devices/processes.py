"""Several processes, on one machine or many, that train one network together.

Process 0 prints and writes; all of them read the images and compute. A process that is lost ends
the others: at once, where it was killed, after a time limit where it only answers no more.
"""

import atexit
import contextlib
import os
import re
import socket
import sys
import threading
import time
import warnings
from collections.abc import Callable, Iterator
from typing import NoReturn

import jax

from flax_mnist.devices.peers import Peers
from flax_mnist.errors import FlaxMnistError, FlaxMnistWarning, RequestError, last_words

#: Seconds that JAX may wait longer than we do: it ends a process with a page of C++ names.
MARGIN = 5
# What errors of communication are about, whatever their class.
_LOST = re.compile("gloo|nccl|coordination|socket|connection|unavailable|deadline", re.IGNORECASE)
_timeout: int | None = None  # Of the peers that this process has joined; None while it is alone.


@contextlib.contextmanager
def joined(peers: Peers | None) -> Iterator[None]:
    """Within, the processes train together; nothing where there are none, or they have met before.

    Must come before JAX's first use. A process that fails within ends without waiting for the
    others, which may be gone.

    Raises:
        RequestError: there is nothing to ask who they are, or process 0 cannot listen.
        FlaxMnistError: another process is gone.
    """
    if peers is None or _timeout is not None:
        yield
        return
    _join(peers)
    try:
        yield
        jax.distributed.shutdown()
    except Exception as error:
        # The handlers registered before, JAX's among them, would wait for the others.
        atexit.register(_leave, getattr(error, "exit_code", 1))
        if not isinstance(error, FlaxMnistError) and _LOST.search(str(error)):
            reason = str(error).splitlines()[0]
            raise FlaxMnistError(
                f"process {jax.process_index()}: another process is gone ({reason}). "
                "Go on with --resume, with any number of processes."
            ) from error
        raise


def _join(peers: Peers) -> None:
    global _timeout
    # It would take SIGTERM from whoever watches for it.
    jax.config.update("jax_enable_preemption_service", False)
    patience = 2 * peers.timeout
    where = peers.coordinator or "the coordinator"
    missing = (
        f"not all processes came to {where} within {patience} s. Each needs the same --coordinator "
        "and --num-processes and a --process-id of its own."
    )
    # By itself process 0 listens on all interfaces. Behind NAT its own address is another one.
    elsewhere = os.environ.get("JAX_COORDINATOR_BIND_ADDRESS")
    listens = elsewhere or peers.coordinator
    if listens and peers.coordinator and peers.process_id == 0:
        what = "JAX_COORDINATOR_BIND_ADDRESS" if elsewhere else "--coordinator"
        _require_can_listen(what, listens)
    with watch(patience, missing), _no_proxy():
        try:
            jax.distributed.initialize(
                peers.coordinator,
                peers.num_processes,
                peers.process_id,
                initialization_timeout=patience + MARGIN,
                # A beat is half of it: a process is missed between one half and the whole.
                heartbeat_timeout_seconds=patience + MARGIN,
                shutdown_timeout_seconds=patience + MARGIN,
                coordinator_bind_address=listens,
                # A cluster that is not asked shall not say either which devices are this one's.
                cluster_detection_method="deactivate" if peers.coordinator else None,
            )
        except ValueError as error:
            raise RequestError(
                "--distributed auto: found neither Slurm, Open MPI, Kubernetes nor Cloud TPU. "
                "Give --coordinator, --num-processes and --process-id."
            ) from error
        except RuntimeError as error:
            raise RequestError(f"--coordinator {where}: cannot listen there ({error}).") from error
    _timeout = peers.timeout


@contextlib.contextmanager
def _no_proxy() -> Iterator[None]:
    """Within, gRPC goes straight to the coordinator: a proxy for the Web leads to no process."""
    names = ("http_proxy", "https_proxy")
    before = {name: os.environ.pop(name) for name in names if name in os.environ}
    try:
        yield
    finally:
        os.environ.update(before)


def _require_can_listen(what: str, address: str) -> None:
    """Tries it: where gRPC cannot, it ends the process with a segmentation fault."""
    host, _, port = address.rpartition(":")
    try:
        found = socket.getaddrinfo(host.strip("[]"), int(port), type=socket.SOCK_STREAM)
        family, kind, protocol, _, place = found[0]
        with socket.socket(family, kind, protocol) as trial:
            trial.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            trial.bind(place)
    except (OSError, OverflowError, ValueError) as error:
        reason = getattr(error, "strerror", None) or error
        raise RequestError(f"{what} {address}: cannot listen there ({reason}).") from error


def is_first() -> bool:
    """Whether this process prints and writes: the only one, or process 0."""
    return _timeout is None or jax.process_index() == 0


def are_many() -> bool:
    """Whether several processes train together."""
    return _timeout is not None and bool(jax.process_count() > 1)


def _leave(code: int) -> NoReturn:
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    if is_first():
        time.sleep(1)  # When process 0 is gone, JAX aborts the others: they may speak first.
    os._exit(code)


@contextlib.contextmanager
def watch(limit: float, complaint: str) -> Iterator[Callable[[], None]]:
    """Ends the process with exit code 1 if the block takes longer than `limit` seconds.

    The complaint says what is wrong then, and the remedy. The yielded function sets the clock back
    to zero.
    """
    renewed, ended = threading.Event(), False

    def wait() -> None:
        while renewed.wait(limit):
            renewed.clear()  # before the look: an end in between sets it again
            if ended:
                return
        last_words(complaint)
        _leave(1)

    threading.Thread(target=wait, daemon=True).start()
    try:
        yield renewed.set
    finally:
        ended = True
        renewed.set()


@contextlib.contextmanager
def watch_others(times: int = 1) -> Iterator[Callable[[], None]]:
    """`watch`, for so many times the peers' time-out, where there are others to wait for."""
    if _timeout is None or jax.process_count() == 1:
        yield lambda: None
        return
    limit = times * _timeout
    complaint = (
        f"process {jax.process_index()}: another process did not answer for {limit} s. "
        "Go on with --resume, with any number of processes."
    )
    with watch(limit, complaint) as renew:
        yield renew


def require_alike() -> None:
    """Refuses processes with different numbers of devices: they could not even speak about it.

    Raises:
        RequestError: in each process whose number is not the average.
    """
    mine, all_devices = jax.local_device_count(), jax.device_count()
    if mine * jax.process_count() != all_devices:
        raise RequestError(
            f"process {jax.process_index()}: has {mine} devices, of {all_devices} in "
            f"{jax.process_count()} processes; each needs as many. Check --num-devices."
        )


@contextlib.contextmanager
def only_first_warns() -> Iterator[None]:
    """Within, no process but the first warns: all of them would say the same."""
    with warnings.catch_warnings():
        if not is_first():
            warnings.simplefilter("ignore", FlaxMnistWarning)
        yield
