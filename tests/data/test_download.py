"""Downloads from a server on this machine that does what servers do."""

from __future__ import annotations

import hashlib
import io
import os
import signal
import socket
import subprocess
import sys
import threading
import time
from pathlib import Path

import pytest

from flax_mnist.data import download
from flax_mnist.data.download import DownloadError, Source, fetch
from tests.helpers.command_line import environment
from tests.helpers.file_server import Request, fails, in_turn, sends

FILES = {"a.gz": bytes(range(256)) * 1000, "b.gz": b"b"}
REMEDY = r"Give --data-dir a folder with its four IDX files, or --dataset synthetic\.$"


@pytest.fixture(autouse=True)
def pauses(monkeypatch) -> list[float]:
    """The pauses before a file is asked for again; they are not made."""
    pauses: list[float] = []
    monkeypatch.setattr(time, "sleep", pauses.append)
    return pauses


@pytest.fixture
def sources(server) -> list[Source]:
    """The two files, which the server sends as it should."""
    server.answers = {name: sends(content) for name, content in FILES.items()}
    return [
        Source(f"{server.address}/of/{name}", len(content), hashlib.sha256(content).hexdigest())
        for name, content in FILES.items()
    ]


def files_in(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in folder.iterdir()}


def running_transfer() -> threading.Thread:
    (transfer,) = (t for t in threading.enumerate() if type(t).__name__ == "_Transfer")
    return transfer


def refused(says: str) -> pytest.RaisesExc:
    """One line that names dataset, reason and remedy."""
    return pytest.raises(
        DownloadError, match=rf"^digits is not on disk and not to be had: {says}.*\. {REMEDY}"
    )


def test_files_come_whole_and_are_not_asked_for_again(server, sources, tmp_path, capsys):
    fetch("digits", sources, tmp_path / "new" / "digits")
    assert files_in(tmp_path / "new" / "digits") == FILES
    fetch("digits", sources, tmp_path / "new" / "digits")
    assert server.asked == ["a.gz", "b.gz"]
    assert capsys.readouterr() == ("", "")  # this is no terminal


def test_the_proxy_is_asked_that_the_environment_names(server, sources, tmp_path, monkeypatch):
    monkeypatch.setenv("http_proxy", server.address)
    elsewhere = [source._replace(url="http://no.where/a.gz") for source in sources[:1]]
    fetch("digits", elsewhere, tmp_path)
    assert files_in(tmp_path)["a.gz"] == FILES["a.gz"]


@pytest.mark.parametrize("is_over_at_once", [False, True])
def test_a_bar_on_a_terminal_tells_what_and_how_much(
    is_over_at_once, sources, tmp_path, monkeypatch
):
    if is_over_at_once:  # before anyone looks
        start = "flax_mnist.data.download._Transfer.start"
        monkeypatch.setattr(start, lambda transfer: transfer.run())

    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "100")
    fetch("digits", sources, tmp_path)
    drawn = terminal.getvalue()
    assert "Downloading digits" in drawn
    assert "256.0/256.0 kB" in drawn
    assert "\n".join(drawn.splitlines()[-1:]).endswith("\x1b[2K")  # nothing of it stays


@pytest.mark.skipif(os.name != "posix", reason="Windows has other permissions")
def test_others_may_read_what_one_has_downloaded(sources, tmp_path):
    fetch("digits", sources, tmp_path)
    (tmp_path / "anything").write_text("")
    assert (tmp_path / "a.gz").stat().st_mode == (tmp_path / "anything").stat().st_mode


def test_wrong_bytes_are_asked_for_again_and_not_kept(server, sources, tmp_path, pauses):
    server.answers["a.gz"] = sends(FILES["a.gz"][:-1] + b"!")
    with refused(r"SHA256 hash of downloaded file \(a\.gz\) does not match"):
        fetch("digits", sources, tmp_path)
    assert server.asked == ["a.gz"] * download.ATTEMPTS
    assert len(pauses) == download.ATTEMPTS - 1
    assert files_in(tmp_path) == {}


@pytest.mark.parametrize("code", [404, 500, 503])
def test_a_server_that_answers_with_an_error(server, sources, tmp_path, code):
    server.answers["b.gz"] = fails(code)
    with refused(f"{code} "):
        fetch("digits", sources, tmp_path)
    assert server.asked == ["a.gz"] + ["b.gz"] * download.ATTEMPTS
    assert files_in(tmp_path) == {"a.gz": FILES["a.gz"]}  # what has come is kept


def test_what_fails_once_is_asked_for_again(server, sources, tmp_path):
    broken = server.half(FILES["a.gz"], lambda request: None)  # ends too early
    server.answers["a.gz"] = in_turn(fails(503), broken, sends(FILES["a.gz"]))
    fetch("digits", sources, tmp_path)
    assert server.asked == ["a.gz", "a.gz", "a.gz", "b.gz"]
    assert files_in(tmp_path) == FILES


def test_a_server_that_stalls_within_a_file(server, sources, tmp_path, monkeypatch):
    monkeypatch.setattr(download, "READ_TIMEOUT", 0.1)
    server.answers["a.gz"] = server.half(FILES["a.gz"], server.silent)
    with refused(".*Read timed out"):
        fetch("digits", sources, tmp_path)
    assert server.asked == ["a.gz"] * download.ATTEMPTS
    assert files_in(tmp_path) == {}


def test_a_server_that_stalls_before_it_answers(server, sources, tmp_path, monkeypatch, pauses):
    assert download.ANSWER_TIMEOUT < 4  # of the five seconds, imports take the rest
    monkeypatch.setattr(download, "ANSWER_TIMEOUT", 0.2)
    go_on = threading.Event()
    server.answers["a.gz"] = lambda request: go_on.wait() and sends(FILES["a.gz"])(request)
    with refused("no answer within 0.2 s"):
        fetch("digits", sources, tmp_path)
    assert server.asked == ["a.gz"]
    # An answer that comes after all is not for a program that goes on without it.
    late = running_transfer()
    go_on.set()
    late.join()
    assert files_in(tmp_path) == {}
    assert (server.asked, pauses) == (["a.gz"], [])


def test_a_name_server_that_does_not_answer(tmp_path, sources, monkeypatch):
    never = threading.Event()
    asked = []

    def getaddrinfo(host: str, *_: object, **__: object) -> list[object]:
        asked.append(host)
        never.wait()
        raise socket.gaierror

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    monkeypatch.setattr(download, "ANSWER_TIMEOUT", 0.2)
    try:
        with refused("no answer within 0.2 s"):
            fetch("digits", [sources[0]._replace(url="http://no.where/a.gz")], tmp_path)
    finally:
        transfer = running_transfer()
        never.set()
        transfer.join()
    assert asked == ["no.where"]


def test_a_server_that_is_not_there_is_asked_once(tmp_path, sources, pauses, server):
    server.server_close()  # its port is free now
    with refused(r"no network \(ConnectionError\)"):
        fetch("digits", sources, tmp_path)
    assert pauses == []


@pytest.mark.usefixtures("_no_network")
def test_a_proxy_that_is_not_there_is_asked_once(tmp_path, sources, pauses, server):
    with refused(r"no network \(ProxyError\)"):
        fetch("digits", sources, tmp_path)
    assert (pauses, server.asked) == ([], [])


@pytest.mark.usefixtures("_no_proxy")
@pytest.mark.parametrize(
    "proxy", ["http://", "http://[::1", "socks9://x", "http://a..b", "http://ü..x"]
)
def test_a_proxy_that_is_none_is_no_network(monkeypatch, proxy, tmp_path):
    monkeypatch.setenv("http_proxy", proxy)
    with refused(r"no network \("):
        fetch("digits", [Source("http://127.0.0.1:9/a.gz", 1, "0" * 64)], tmp_path)


def test_a_folder_that_cannot_be_made_is_named(tmp_path, sources, server):
    (tmp_path / "file").write_text("")
    with refused(f".*Not a directory.*{tmp_path / 'file'}"):
        fetch("digits", sources, tmp_path / "file" / "digits")
    assert server.asked == []


PATIENT = 60
"""Seconds: where an answer waits for another process, which takes long on a busy machine."""


def as_a_process(sources: list[Source], folder: Path) -> subprocess.Popen[str]:
    script = (
        "import pathlib\nfrom flax_mnist.data import download\n"
        "from flax_mnist.data.download import Source, fetch\n"
        f"download.ANSWER_TIMEOUT = {PATIENT}\n"
        f"fetch('digits', {sources!r}, pathlib.Path({str(folder)!r}))"
    )
    return subprocess.Popen([sys.executable, "-c", script], env=environment(), text=True)


def test_a_killed_download_leaves_nothing(server, sources, tmp_path):
    has_half = threading.Event()

    def wait(request: Request) -> None:
        has_half.set()
        server.silent(request)

    server.answers["a.gz"] = in_turn(server.half(FILES["a.gz"], wait), sends(FILES["a.gz"]))
    process = as_a_process(sources, tmp_path)
    try:
        assert has_half.wait(60)
    finally:
        process.kill()
        process.wait()
    assert files_in(tmp_path) == {}
    fetch("digits", sources, tmp_path)
    assert files_in(tmp_path) == FILES


def test_a_part_of_a_file_is_replaced(server, sources, tmp_path):
    (tmp_path / "a.gz").write_bytes(FILES["a.gz"][:1000])  # as another program may leave it
    fetch("digits", sources, tmp_path)
    assert files_in(tmp_path) == FILES


def test_two_processes_at_once(server, sources, tmp_path):
    both = threading.Barrier(2)

    def with_the_other(request: Request) -> None:
        both.wait(60)
        sends(FILES["a.gz"])(request)

    server.answers["a.gz"] = with_the_other
    processes = [as_a_process(sources, tmp_path) for _ in range(2)]
    assert [process.wait(60) for process in processes] == [0, 0]
    assert files_in(tmp_path) == FILES
    assert server.asked.count("a.gz") == 2


@pytest.mark.skipif(os.name != "posix", reason="Windows has no such signals")
def test_an_interrupted_download_goes_no_further_than_its_file(server, sources, tmp_path):
    transfers = []

    def interrupt(request: Request) -> None:
        transfers.append(running_transfer())
        os.kill(os.getpid(), signal.SIGINT)
        while not transfers[0].is_given_up:
            server.is_over.wait(0.001)
        request.wfile.write(FILES["a.gz"])

    server.answers["a.gz"] = server.half(FILES["a.gz"], interrupt)
    with pytest.raises(KeyboardInterrupt):
        fetch("digits", sources, tmp_path)
    # Python 3.11 takes a thread for ended if a signal has interrupted `join`.
    while transfers[0] in threading.enumerate():
        server.is_over.wait(0.001)
    assert set(files_in(tmp_path)) <= {"a.gz"}
