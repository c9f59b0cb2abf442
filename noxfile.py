"""What a developer runs before a commit: `nox`, or a part of it, such as `nox -s style tests`."""

from __future__ import annotations

import shutil
import sys
from pathlib import Path

import nox

# In the environment that nox is in: nothing is installed, so that it begins at once.
nox.options.default_venv_backend = "none"
nox.options.sessions = ["style", "types", "layers", "docs", "tests"]


def run(session: nox.Session, command: str, *more: str) -> None:
    """Runs a module of this environment, activated or not."""
    session.run(sys.executable, "-m", *command.split(), *more, external=True)


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


@nox.session
def links(session: nox.Session) -> None:
    """The links that lead out of the documents; needs a network."""
    run(session, "sphinx -q -b linkcheck docs docs/_build/links")


@nox.session(venv_backend="venv")
def notebook(session: nox.Session) -> None:
    """Makes the tutorial's notebook in a kernel that has the package and PyTorch, and nothing else.

    `nox -s notebook -- --check` only runs the one that is there, and compares what it prints.
    """
    extras = nox.project.load_toml()["project"]["optional-dependencies"]
    torch = next(package for package in extras["test"] if package.startswith("torch"))
    session.install(".", "ipykernel", torch)
    run(session, "docs.notebook", *session.posargs, str(Path(session.bin, "python")))


@nox.session(venv_backend="venv")
def release(session: nox.Session) -> None:
    """What is uploaded, in dist/, and whether an index would take it."""
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("python", "-m", "twine", "check", "--strict", *map(str, Path("dist").iterdir()))


@nox.session(venv_backend="uv|virtualenv", reuse_venv=True, default=False)
@nox.parametrize("plugin", ["tpu", "cuda13"])
def accelerators(session: nox.Session, plugin: str) -> None:
    """What runs on accelerators is compiled for them: libtpu takes 0.7 GB, CUDA 4.6."""
    session.install("-e", f".[{plugin}]", "beartype", "hypothesis", "pytest", "pytest-xdist")
    session.run(
        *("python", "-m", "pytest", "tests/programs/test_accelerators.py"),
        *("tests/devices/test_targets.py", *session.posargs),
    )
