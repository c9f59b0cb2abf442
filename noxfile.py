"""What a developer runs before a commit: `nox`, or a part of it, such as `nox -s style tests`."""

from __future__ import annotations

import sys
from pathlib import Path

import nox

# In the environment that nox is in: nothing is installed, so that it begins at once.
nox.options.default_venv_backend = "none"


def run(session: nox.Session, command: str, *more: str) -> None:
    """Runs a module of this environment, activated or not."""
    session.run(sys.executable, "-m", *command.split(), *more)


@nox.session
def style(session: nox.Session) -> None:
    """Format and lint."""
    run(session, "ruff format --check .")
    run(session, "ruff check .")


@nox.session
def types(session: nox.Session) -> None:
    """Static types."""
    run(session, "mypy")


@nox.session
def layers(session: nox.Session) -> None:
    """The direction of imports."""
    session.run(str(Path(sys.executable).with_name("lint-imports")))  # it is no module


@nox.session
def docs(session: nox.Session) -> None:
    """The documents and the reference; a warning is an error."""
    run(session, "sphinx -W --keep-going -q -b html docs docs/_build")


@nox.session
def tests(session: nox.Session) -> None:
    """The tests; pytest gets what follows `--`, as in `nox -s tests -- -n 2`."""
    run(session, "pytest", *session.posargs)


@nox.session(venv_backend="uv|virtualenv", reuse_venv=True, default=False)
@nox.parametrize("plugin", ["tpu", "cuda13"])
def accelerators(session: nox.Session, plugin: str) -> None:
    """What runs on accelerators is compiled for them: libtpu takes 0.7 GB, CUDA 4.6."""
    session.install("-e", f".[{plugin}]", "beartype", "hypothesis", "pytest", "pytest-xdist")
    session.run(
        *("python", "-m", "pytest", "tests/programs/test_accelerators.py"),
        *("tests/devices/test_targets.py", *session.posargs),
    )
