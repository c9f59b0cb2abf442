"""What a developer runs before a commit: `nox`, or a part of it, such as `nox -s style tests`.

`newest`, `lowest`, `accelerators`, `wheel` and `notebook` take longer: each makes an environment of
its own in `.nox/`.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import nox

# In the environment that nox is in: nothing is installed, so that it begins at once.
nox.options.default_venv_backend = "none"
nox.options.sessions = ["style", "types", "layers", "docs", "tests"]


def run(session: nox.Session, command: str, *more: str) -> None:
    """Runs a module of this environment, activated or not."""
    session.run(sys.executable, "-m", *command.split(), *more, external=True)


def environment(session: nox.Session, python: str, *install: str) -> str:
    """The interpreter of a new environment in `.nox/`, into which that is installed."""
    path = Path(".nox", session.name).absolute()
    run(session, "uv venv --quiet --clear --python", python, str(path))
    interpreter = str(path / ("Scripts/python.exe" if os.name == "nt" else "bin/python"))
    run(session, "uv pip install --quiet --python", interpreter, *install)
    return interpreter


def pythons() -> list[str]:
    """The interpreters of this machine that the project admits, on PATH and pyenv's, by version."""
    named = [shutil.which(f"python3.{minor}") for minor in range(11, 20)]
    pyenv = Path(os.environ.get("PYENV_ROOT", "~/.pyenv")).expanduser()
    paths = [sys.executable, *filter(None, named), *map(str, pyenv.glob("versions/*/bin/python"))]
    say = "import sys; print(*sys.version_info[:2])"
    found = {}
    for path in paths:  # a shim of pyenv's may start nothing
        said = subprocess.run([path, "-c", say], capture_output=True, text=True, check=False)
        version = tuple(map(int, said.stdout.split()))
        if version >= (3, 11):
            found.setdefault(version, path)
    return [path for _, path in sorted(found.items())]


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


@nox.session
def notebook(session: nox.Session) -> None:
    """Makes the tutorial's notebook in a kernel that has the package and PyTorch, and nothing else.

    `nox -s notebook -- --check` only runs the one that is there, and compares what it prints.
    """
    extras = nox.project.load_toml()["project"]["optional-dependencies"]
    torch = next(package for package in extras["test"] if package.startswith("torch"))
    python = environment(session, sys.executable, ".", "ipykernel", torch)
    run(session, "docs.notebook", *session.posargs, python)


@nox.session(venv_backend="venv")
def release(session: nox.Session) -> None:
    """What is uploaded, in dist/, and whether an index would take it."""
    session.install("build", "twine")
    shutil.rmtree("dist", ignore_errors=True)
    session.run("python", "-m", "build")
    session.run("python", "-m", "twine", "check", "--strict", *map(str, Path("dist").iterdir()))


@nox.session
def newest(session: nox.Session) -> None:
    """The tests, without PyTorch, with the newest of everything on the newest Python there is."""
    python = environment(session, pythons()[-1], "-e", ".[dev]")
    session.run(python, "-m", "pytest", *session.posargs)


@nox.session
def lowest(session: nox.Session) -> None:
    """The tests, without PyTorch, with the lowest versions that pyproject.toml admits."""
    python = environment(session, pythons()[0], "--resolution", "lowest-direct", "-e", ".[dev]")
    session.run(python, "-m", "pytest", *session.posargs)


@nox.session
@nox.parametrize("plugin", ["tpu", "cuda13"], ids=["tpu", "cuda13"])
def accelerators(session: nox.Session, plugin: str) -> None:
    """What runs on accelerators is compiled for them: libtpu takes 0.7 GB, CUDA 4.6."""
    pytest = ("pytest", "pytest-xdist", "beartype", "hypothesis")
    python = environment(session, sys.executable, "-e", f".[{plugin}]", *pytest)
    tests = ("programs/test_accelerators.py", "devices/test_targets.py", "cli/test_inspect.py")
    session.run(python, "-m", "pytest", *(f"tests/{test}" for test in tests), *session.posargs)


@nox.session
def wheel(session: nox.Session) -> None:
    """The wheel in an environment that has nothing else: each command of the README."""
    folder = Path(".nox/dist")
    run(session, "uv build --quiet --wheel --clear --out-dir", str(folder))
    python = environment(session, sys.executable, *map(str, folder.glob("*.whl")))
    run(session, "tests.installed", python)
