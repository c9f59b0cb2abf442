"""The reference is built without a warning, and has all that the package makes public."""

from __future__ import annotations

import ast
import html
import itertools
import os
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

import flax_mnist
from tests.helpers.documents import ROOT

Definition = ast.FunctionDef | ast.ClassDef

MODULES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts): ast.parse(path.read_text("utf-8"))
    for path in sorted(ROOT.glob("flax_mnist/**/*.py"))
    if not path.name.startswith("_")
}
"""The source of each public module."""


def build(builder: str, source: Path, folder: Path) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "sphinx", "-W", "--keep-going", "-q", "-b", builder]
    # What MyST calls of Sphinx that will go one day is not the documents' business.
    return subprocess.run(
        [*command, source, folder], cwd=ROOT, env=os.environ | {"PYTHONWARNINGS": ""},
        capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The pages of the reference, one after the other, as a strict build makes them."""
    folder = tmp_path_factory.mktemp("pages")
    built = build("html", ROOT / "docs", folder)
    assert built.returncode == 0, built.stderr
    return "".join(path.read_text("utf-8") for path in sorted(folder.glob("reference/*.html")))


def definitions(name: str, tree: ast.Module | ast.ClassDef) -> Iterator[tuple[str, Definition]]:
    """The public functions and classes of a module, and the methods of those."""
    for node in tree.body:
        if isinstance(node, Definition) and not node.name.startswith("_"):
            yield f"{name}.{node.name}", node
            if isinstance(node, ast.ClassDef):
                yield from definitions(f"{name}.{node.name}", node)


PUBLIC = dict(item for name, tree in MODULES.items() for item in definitions(name, tree))


def docstrings(node: ast.Module | Definition) -> Iterator[str]:
    """Its own, and those below its fields or constants; comments, `#:`, are `COMMENTS`."""
    yield ast.get_docstring(node) or ""
    for field, below in itertools.pairwise([] if isinstance(node, ast.FunctionDef) else node.body):
        match field, below:
            case (
                ast.AnnAssign(target=ast.Name(name)) | ast.Assign(targets=[ast.Name(name)]),
                ast.Expr(ast.Constant(str(text))),
            ):
                if not name.startswith("_"):
                    yield text


def comments(path: Path) -> Iterator[str]:
    """What `#:` says of each field and constant of a module: behind it, or in the lines above."""
    block: list[str] = []
    for line in path.read_text("utf-8").splitlines():
        code, mark, said = line.partition("#: ")
        name = re.match(r"[ ]*(\w+)", code or line)
        if mark and not code.strip():
            block.append(said)
        elif mark or block:
            assert name, f"{path}: {line}"
            if not name[1].startswith("_"):
                yield " ".join([*block, said])
            block = []


COMMENTS = [said for path in sorted(ROOT.glob("flax_mnist/**/[!_]*.py")) for said in comments(path)]


def letters(text: str) -> str:
    """Without spaces and marks, which typesetting changes."""
    return re.sub(r"\W+", "", text)


def text_of(page: str) -> str:
    """The letters that a reader of HTML sees."""
    return letters(html.unescape(re.sub(r"<[^>]*>", "", page)))


@pytest.mark.long
def test_every_public_name_is_in_it(pages: str) -> None:
    anchors = [*(f"module-{name}" for name in MODULES), *PUBLIC]
    assert [anchor for anchor in anchors if f'id="{anchor}"' not in pages] == []
    assert "flax_mnist.train.train_step" in PUBLIC
    assert len(PUBLIC) > 100


@pytest.mark.long
def test_every_function_shows_its_arguments_and_their_types(pages: str) -> None:
    """Also one that is compiled, cached or a context; types as the source has them."""
    argument = r'class="sig-param">(?:<span class="o">.*?</span>)?<span class="n">.*?>(\w+)<'
    for name, node in PUBLIC.items():
        if isinstance(node, ast.FunctionDef) and not is_property(node):
            (signature,) = re.findall(rf'<dt [^>]*id="{name}">(.*?)</dt>', pages, re.DOTALL)
            expected = [part for part in ast.walk(node.args) if isinstance(part, ast.arg)]
            found = re.findall(argument, signature)
            assert sorted(found) == sorted({arg.arg for arg in expected} - {"self", "cls"}), name
            for arg in expected:
                if arg.annotation:
                    assert letters(ast.unparse(arg.annotation)) in text_of(signature), name


def is_property(node: ast.FunctionDef) -> bool:
    return any(isinstance(d, ast.Name) and d.id == "property" for d in node.decorator_list)


@pytest.mark.long
def test_every_docstring_is_in_it(pages: str) -> None:
    """Those of fields too, and none taken apart at a colon."""
    text = text_of(pages)
    for name, node in (MODULES | PUBLIC).items():
        for docstring in docstrings(node):
            first_paragraph = docstring.split("\n\n")[0]
            assert letters(first_paragraph) in text, f"{name}: {first_paragraph}"
    assert len(COMMENTS) > 70
    for comment in COMMENTS:
        assert letters(comment) in text, comment
    assert "Returntype" not in text  # what stands before a colon in the first line of "Returns:"


def test_its_first_page_has_what_the_package_gives() -> None:
    page = (ROOT / "docs/reference/package.md").read_text(encoding="utf-8")
    listed = re.findall(r"^ +~(flax_mnist[.\w]*)\.(\w+)$", page, re.MULTILINE)
    assert sorted(name for _, name in listed) == flax_mnist.__all__
    for module, name in listed:
        assert getattr(flax_mnist, name) is getattr(sys.modules[module], name)


def test_it_finds_fault_with_a_name_that_is_not_there(tmp_path: Path) -> None:
    """Of this package; those of others are described elsewhere."""
    (tmp_path / "conf.py").write_text((ROOT / "docs/conf.py").read_text("utf-8"))
    (tmp_path / "index.md").write_text("# A\n\n{py:obj}`flax_mnist.gone` {py:obj}`jax.Array`\n")
    built = build("dummy", tmp_path, tmp_path / "out")
    assert built.returncode != 0
    assert "flax_mnist.gone" in built.stderr
    assert "jax.Array" not in built.stderr


@pytest.mark.long
def test_every_type_of_the_package_is_defined_in_it(pages: str) -> None:
    """Also a name for a choice of words, or for a shape, that an argument or a field bears."""
    homes = {
        target.id: module
        for module, tree in MODULES.items()
        for node in tree.body
        for target in getattr(node, "targets", [getattr(node, "target", None)])
        if isinstance(target, ast.Name) and not target.id.startswith("_")
    }
    borne = {
        part.id
        for tree in MODULES.values()
        for node in ast.walk(tree)
        for said in (getattr(node, "annotation", None), getattr(node, "returns", None))
        for part in ast.walk(said or ast.Constant(None))
        if isinstance(part, ast.Name) and part.id in homes
    }
    assert {"Params", "DatasetName", "StateDict"} <= borne
    assert {name for name in borne if f'id="{homes[name]}.{name}"' not in pages} == set()
