"""Ways to run a command: as the process that a user starts, or in this one."""

from __future__ import annotations

import contextlib
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import jax
import pytest

from flax_mnist.cli.main import main
from flax_mnist.devices import runtime

COMMAND = [sys.executable, "-m", "flax_mnist"]

OFFLINE = {
    "http_proxy": "http://127.0.0.1:9",  # nobody is there
    "https_proxy": "http://127.0.0.1:9",
    "no_proxy": "",
}
"""Variables by which nothing is to be had from a network."""

# Of the panel; where the terminal has no UTF-8 there are rules of dashes alone.
FRAME = str.maketrans(dict.fromkeys("╭╮╰╯│─", " "))


def flags(**given: object) -> list[str]:
    """As words: `batch_size=64, quiet=True` is `--batch-size 64 --quiet`."""
    words = []
    for name, value in given.items():
        words.append("--" + name.replace("_", "-"))
        if value is not True:
            words.append(str(value))
    return words


def environment(**more: str | None) -> dict[str, str]:
    """This process's, with some variables set, or unset by None."""
    merged = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **more}
    return {name: value for name, value in merged.items() if value is not None}


def keeps_programs() -> dict[str, str]:
    """Variables for a process that is no command: its programs are kept with the tests' own."""
    names = (
        "jax_compilation_cache_dir", "jax_persistent_cache_min_compile_time_secs",
        "jax_persistent_cache_min_entry_size_bytes",
    )  # fmt: skip
    return {name.upper(): str(getattr(jax.config, name)) for name in names}


def run(
    *arguments: object, cwd: Path | None = None, **variables: str | None
) -> subprocess.CompletedProcess:
    """Runs it as a process: for what depends on signals, encodings, terminals or JAX's start."""
    return subprocess.run(
        [*COMMAND, *map(str, arguments)],
        cwd=cwd,
        env=environment(**variables),
        capture_output=True,
        text=True,
        encoding="utf-8",
        check=False,
    )


@contextlib.contextmanager
def settings_kept() -> Iterator[None]:
    """Whatever a command sets in JAX is afterwards as it was before."""
    jax.devices()  # in use from now on: no command changes how many there are
    with runtime.settings_restored():
        yield


def ask(*arguments: object) -> int:
    """Runs it in this process, which takes a tenth of the time; its exit code."""
    with settings_kept():
        return main([str(argument) for argument in arguments])


def said(capsys: pytest.CaptureFixture[str], *arguments: object) -> list[str]:
    """The lines that a command prints in this process, having checked that it ends well."""
    capsys.readouterr()
    code = ask(*arguments)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out.splitlines()


def refused(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """The exit code of a command that fails in this process, and its one or two lines on stderr."""
    capsys.readouterr()
    code = ask(*arguments)
    out, err = capsys.readouterr()
    assert out == ""
    assert 1 <= len(err.splitlines()) <= 2, err
    assert err.startswith("flax-mnist: ")
    assert "Traceback" not in err
    assert code in (1, 2)
    return f"{code} {err}"


def mistaken(capsys: pytest.CaptureFixture[str], *arguments: object) -> str:
    """What tyro says of a mistake in the flags: the words of its panel, without frame and lines."""
    capsys.readouterr()
    code = ask(*arguments)
    out, err = capsys.readouterr()
    assert (code, out) == (2, "")
    assert "Traceback" not in err
    assert not err.startswith("flax-mnist: ")
    return " ".join(word for word in err.translate(FRAME).split() if word.strip("-"))
