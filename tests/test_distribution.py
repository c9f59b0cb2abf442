"""What is built for others: the same bytes from the same sources, and nothing left out."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import tarfile
import zipfile
from email.parser import HeaderParser
from pathlib import Path

import pytest

import flax_mnist
from tests.helpers.documents import ROOT

BUILT_FROM = (
    "flax_mnist", "benchmarks", "tests", "docs", ".ci", "README.md", "CHANGELOG.md",
    "CONTRIBUTING.md", "CITATION.cff", "LICENSE", "noxfile.py", "pyproject.toml",
)  # fmt: skip


@pytest.fixture(scope="module")
def built(tmp_path_factory: pytest.TempPathFactory) -> list[tuple[Path, Path]]:
    """Wheel and source distribution, twice: from copies in other places, of other dates."""
    pairs = []
    for name, when in (("here", 1_700_000_000), ("there", 1_800_000_000)):
        folder = tmp_path_factory.mktemp(name)
        copy = folder / name
        for part in BUILT_FROM:
            source, target = ROOT / part, copy / part
            if source.is_dir():
                shutil.copytree(source, target, ignore=shutil.ignore_patterns("__pycache__"))
            else:
                shutil.copy(source, target)
        for file in copy.rglob("*"):
            os.utime(file, (when, when))
        command = [sys.executable, "-m", "hatchling", "build", "-d", str(folder / "dist")]
        done = subprocess.run(command, cwd=copy, capture_output=True, text=True, check=False)
        assert done.returncode == 0, done.stderr
        wheel, sdist = sorted((folder / "dist").iterdir(), key=lambda file: file.suffix != ".whl")
        pairs.append((wheel, sdist))
    return pairs


def test_the_same_sources_give_the_same_bytes(built):
    (wheel, sdist), (again, sdist_again) = built
    assert (wheel.name, sdist.name) == (again.name, sdist_again.name)
    assert wheel.read_bytes() == again.read_bytes()
    assert sdist.read_bytes() == sdist_again.read_bytes()


def test_the_wheel_is_the_package_and_nothing_else(built):
    with zipfile.ZipFile(built[0][0]) as wheel:
        names = set(wheel.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        said = HeaderParser().parsestr(wheel.read(metadata).decode())
    assert said["Version"] == flax_mnist.__version__
    package = {path for path in ROOT.glob("flax_mnist/**/*.*") if "__pycache__" not in path.parts}
    expected = {path.relative_to(ROOT).as_posix() for path in package if path.is_file()}
    assert {name for name in names if ".dist-info/" not in name} == expected


def test_the_source_distribution_has_all_that_a_developer_needs(built):
    with tarfile.open(built[0][1]) as sdist:
        names = {name.partition("/")[2] for name in sdist.getnames()}
    assert set(BUILT_FROM) <= names | {name.partition("/")[0] for name in names}
    assert {"tests/conftest.py", "docs/conf.py", "docs/from-pytorch-to-jax.ipynb"} <= names
    assert not {name for name in names if name.endswith(".pyc")}
