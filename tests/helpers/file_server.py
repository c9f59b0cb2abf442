"""A server of files on this machine that answers as a test wants it to."""

from __future__ import annotations

import http.server
import threading
from collections.abc import Callable

Request = http.server.BaseHTTPRequestHandler
Answer = Callable[[Request], None]


class _Handler(Request):
    server: FileServer

    def do_GET(self) -> None:  # noqa: N802
        name = self.path.rsplit("/", 1)[-1]
        self.server.asked.append(name)
        self.server.answers[name](self)

    def log_message(self, *_: object) -> None:
        pass


class FileServer(http.server.ThreadingHTTPServer):
    """Answers each request by the file's name, as a server or as a proxy; notes what was asked."""

    def __init__(self) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.asked: list[str] = []
        self.answers: dict[str, Answer] = {}
        self.is_over = threading.Event()
        """Set when the test is: nothing waits longer."""

    @property
    def address(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"

    def silent(self, request: Request) -> None:
        """Answers nothing."""
        self.is_over.wait()

    def half(self, content: bytes, then: Answer) -> Answer:
        """Sends the first half of a file, and then does something else."""

        def answer(request: Request) -> None:
            _begin(request, len(content))
            request.wfile.write(content[: len(content) // 2])
            then(request)

        return answer


def sends(content: bytes) -> Answer:
    """All of it."""

    def answer(request: Request) -> None:
        _begin(request, len(content))
        request.wfile.write(content)

    return answer


def fails(code: int) -> Answer:
    """With an error."""
    return lambda request: request.send_error(code)


def in_turn(*answers: Answer) -> Answer:
    """One answer after the other."""
    remaining = iter(answers)

    def answer(request: Request) -> None:
        next(remaining)(request)

    return answer


def _begin(request: Request, size: int) -> None:
    request.send_response(200)
    request.send_header("Content-Length", str(size))
    request.end_headers()
