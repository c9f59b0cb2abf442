"""Commands as real processes that run beside the test, one or several that train together."""

from __future__ import annotations

import contextlib
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

from tests.helpers.command_line import COMMAND, environment

BOUND = 60
"""Seconds within which all must have ended after something happened to one of them."""


@contextlib.contextmanager
def running(
    *commands: list[str], variables: tuple[dict[str, str], ...] = ()
) -> Iterator[list[subprocess.Popen]]:
    """Processes, in this environment or one each; killed if they still run."""
    started = [
        subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=own
        )
        for command, own in zip(commands, variables or [environment()] * len(commands), strict=True)
    ]
    try:
        yield started
    finally:
        for process in started:
            process.kill()
            process.communicate()


@contextlib.contextmanager
def together(
    *arguments: list[str], count: int | None = None, programs: dict[int, list[str]] | None = None
) -> Iterator[list[subprocess.Popen]]:
    """Processes that train together, one for each list of arguments, of `count` that are expected.

    Some may run another program than `flax-mnist`, with the arguments of a command line.
    """
    size = str(count or len(arguments))
    met = ["--coordinator", f"127.0.0.1:{free_port()}", "--num-processes", size]
    commands = [
        [*(programs or {}).get(i, COMMAND), *own, *met, "--process-id", str(i)]
        for i, own in enumerate(arguments)
    ]
    with running(*commands) as started:
        yield started


def end(process: subprocess.Popen, timeout: float = BOUND) -> tuple[int, str, str]:
    """Exit code, and what was said on stdout and stderr."""
    out, err = process.communicate(timeout=timeout)
    return process.returncode, out, err


def wait_for(process: subprocess.Popen, line: str) -> None:
    """Reads what it says, to a line that begins so."""
    while not process.stdout.readline().startswith(line):
        assert process.poll() is None, process.stderr.read()


def free_port() -> int:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        return int(free.getsockname()[1])


def listening(port: int) -> set[str]:
    """The addresses, as Linux writes them, at which something listens to a port."""
    rows = [
        row.split()
        for table in ("/proc/net/tcp", "/proc/net/tcp6")
        for row in Path(table).read_text().splitlines()[1:]
    ]
    sockets = [(*row[1].split(":"), row[3]) for row in rows]
    return {address for address, p, state in sockets if int(p, 16) == port and state == "0A"}
