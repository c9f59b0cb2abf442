"""How the program starts: what it imports, its help, its version."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import flax_mnist
from tests.helpers.command_line import environment, said


def python(code: str, cwd: Path, **variables: str) -> subprocess.CompletedProcess:
    return subprocess.run(
        [sys.executable, "-c", f"import sys\nfrom flax_mnist.cli.main import main\n{code}"],
        cwd=cwd, env=environment(**variables), capture_output=True, text=True, check=False,
    )  # fmt: skip


def modules(done: subprocess.CompletedProcess) -> set[str]:
    """Those that were imported, as its last line names them."""
    heading, *names = done.stdout.splitlines()[-1].split()
    assert heading == "modules"
    return set(names)


def test_help_needs_no_jax(tmp_path):
    done = python(
        "try:\n    main(['train', '--help'])\nfinally:\n    print('modules', *sys.modules)",
        tmp_path,
    )
    assert done.returncode == 0, done.stderr
    for flag in ("--data-dir", "--learning-rate FLOAT", "(default: 0.003)"):
        assert flag in done.stdout
    assert "flax_mnist.cli.train" in modules(done)
    assert not {"jax", "flax", "optax", "tensorflow_datasets"} & modules(done)


@pytest.fixture(scope="module")
def uncached(tmp_path_factory, data) -> tuple[subprocess.CompletedProcess, Path]:
    """A training with --no-compilation-cache, and its cache folder."""
    folder = tmp_path_factory.mktemp("uncached")
    done = python(
        f"code = main(['train', '--data-dir', {str(data)!r}, '--epochs', '1', "
        "'--no-compilation-cache'])\n"
        "print('modules', *sys.modules)\nsys.exit(code)",
        folder,
        XDG_CACHE_HOME=str(folder / "cache"),
    )
    assert done.returncode == 0, done.stderr
    return done, folder / "cache"


@pytest.mark.long
def test_training_on_idx_files_imports_no_library_that_it_does_not_need(uncached):
    imported = modules(uncached[0])
    assert {"jax", "flax_mnist.train"} < imported
    unneeded = {"tensorflow", "tensorflow_datasets", "scipy", "torch", "benchmarks"}
    assert not unneeded & imported


@pytest.mark.long
def test_the_compilation_cache_can_be_turned_off(trained, uncached):
    def programs(cache: Path) -> list[str]:
        return [path.name for path in cache.rglob("*") if path.name.startswith("jit_train")]

    assert programs(trained.parent / "cache") != []
    assert programs(uncached[1]) == []


def test_version(capsys):
    assert said(capsys, "--version") == [f"flax-mnist {flax_mnist.__version__}"]
