"""Every name and every link in the documents leads somewhere."""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import re
from pathlib import Path

import pytest

from tests.helpers.documents import DOCUMENTS, ROOT, anchors, prose, subcommands

TEXTS = [*DOCUMENTS, *sorted(ROOT.glob("docs/reference/*.md")), ROOT / "README.md"]

each_text = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)


@each_text
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(path)):
        if not target.startswith("https://"):
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


@each_text
def test_every_name_in_the_text_exists(path: Path) -> None:
    folders = "flax_mnist|benchmarks|tests|docs"
    for name in re.findall(r"`([^`]+)`", " ".join(prose(path).split())):
        if re.fullmatch(rf"({folders}|\.ci)/[\w/.-]*", name) and "<" not in name:
            assert (ROOT / name).exists(), name
        elif re.fullmatch(rf"({folders})(\.\w+)+", name):
            assert resolves(name), name
        elif name.startswith("flax-mnist ") and name.split()[1].isalpha():
            assert name.split()[1] in subcommands(), name
        elif name.startswith("python -m "):
            assert importlib.util.find_spec(name.split()[2]), name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    module, *attributes = name.split(".")
    found = importlib.import_module(module)
    for attribute in attributes:
        with contextlib.suppress(ImportError):
            module = f"{module}.{attribute}"
            importlib.import_module(module)
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True
