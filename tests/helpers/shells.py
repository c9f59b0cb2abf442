"""Shells at a terminal, in which somebody types."""

from __future__ import annotations

import contextlib
import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

START = {
    "bash": ("bash", "--norc", "--noprofile", "-i"),
    "zsh": ("zsh", "-f", "-i"),
}
SETTINGS = {
    # A list comes with the first Tab, whole, and without a question.
    "bash": """
        bind 'set show-all-if-ambiguous on'
        bind 'set page-completions off'
        bind 'set completion-query-items 0'
        bind 'set enable-bracketed-paste off'
        flax-mnist() { printf 'word <%s>\\n' "$@"; }
        """,
    "zsh": """
        unsetopt list_beep prompt_cr bracketed_paste 2>/dev/null
        flax-mnist() { printf 'word <%s>\\n' "$@"; }
        autoload -U compinit && compinit -u -D
        """,
}


class Shell:
    """A shell that is told what `flax-mnist completion` prints, and has no other program."""

    def __init__(self, terminal: int) -> None:
        self.terminal = terminal
        self.lines = 0

    def type(self, keys: str) -> str:
        """What is shown from the keys on, to the end of the command that they are the line of."""
        self.lines += 1
        end = f"end-{self.lines}"
        # Its echo has another word than what it prints.
        os.write(self.terminal, f"{keys}\necho e''nd-{self.lines}\n".encode())
        seen = ""
        while end not in seen:
            seen += os.read(self.terminal, 4096).decode()
        return seen

    def words(self, keys: str) -> list[str]:
        """The words of the command that the keys, Tab among them, have made."""
        seen = self.type(keys)
        return [line[6:-1] for line in seen.split("\r\n") if line.startswith("word <")]


@contextlib.contextmanager
def at_terminal(name: str, script: Path, cwd: Path) -> Iterator[Shell]:
    """A shell, in a folder, that has sourced the script."""
    import pty  # not on Windows

    ours, theirs = pty.openpty()
    process = subprocess.Popen(
        START[name], cwd=cwd, stdin=theirs, stdout=theirs, stderr=theirs, start_new_session=True,
        env={"PATH": "/usr/bin:/bin", "HOME": str(cwd), "TERM": "dumb", "COLUMNS": "200"},
    )  # fmt: skip
    os.close(theirs)
    try:
        shell = Shell(ours)
        for line in [*SETTINGS[name].strip().splitlines(), f"source '{script}'"]:
            shell.type(line.strip())
        yield shell
    finally:
        process.kill()
        process.wait()
        os.close(ours)
