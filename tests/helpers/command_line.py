"""Ways to run a command: as the process that a user starts, or in this one."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import jax

from flax_mnist.cli.main import main

COMMAND = [sys.executable, "-m", "flax_mnist"]

# What a command may change for the rest of its process.
SETTINGS = (
    "jax_compilation_cache_dir", "jax_default_device", "jax_default_matmul_precision",
    "jax_enable_compilation_cache", "jax_enable_x64", "jax_platforms",
)  # fmt: skip


def environment(**more: str | None) -> dict[str, str]:
    """This process's, with some variables set, or unset by None."""
    merged = {**os.environ, "PYTHONPATH": str(Path(__file__).parents[2]), **more}
    return {name: value for name, value in merged.items() if value is not None}


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


def ask(*arguments: object) -> int:
    """Runs it in this process, which takes a tenth of the time; its exit code."""
    before = {name: getattr(jax.config, name) for name in SETTINGS}
    try:
        return main([str(argument) for argument in arguments])
    finally:
        for name, value in before.items():
            jax.config.update(name, value)


def said(capsys, *arguments: object) -> list[str]:
    """The lines that a command prints in this process, having checked that it ends well."""
    capsys.readouterr()
    code = ask(*arguments)
    out, err = capsys.readouterr()
    assert (code, err) == (0, "")
    return out.splitlines()


def refused(capsys, *arguments: object) -> str:
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
