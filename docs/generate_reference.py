"""Writes docs/reference.md from the docstrings: `python docs/generate_reference.py`.

The sources are parsed and not imported: what a decorator makes of a function has no signature to
show, and the text behind a field is in the source alone.
"""

from __future__ import annotations

import ast
import re
import textwrap
from collections.abc import Iterator
from pathlib import Path

ROOT = Path(__file__).parents[1]
PACKAGE = ROOT / "flax_mnist"
REFERENCE = ROOT / "docs" / "reference.md"

HEAD = """\
# Reference

The public names of the package, in the words of its docstrings: first the modules of what
`from flax_mnist import` gives, then the others in alphabetical order. Made by
`python docs/generate_reference.py`; do not edit it, but the docstrings.
"""


def reference() -> str:
    """The whole document."""
    exported = _exported()
    first = list(dict.fromkeys(exported.values()))
    rest = sorted(path.stem for path in PACKAGE.glob("[!_]*.py") if path.stem not in first)
    modules = {
        name: ast.parse((PACKAGE / f"{name}.py").read_text("utf-8")) for name in first + rest
    }
    summaries = {
        (name, node.name): _docstring(node).split("\n\n")[0].replace("\n", " ")
        for name, module in modules.items()
        for node in _public(module)
    }
    rows = [
        f"| [`{name}`](#flax_mnist{module}) | {summaries[module, name]} |"
        for name, module in sorted(exported.items())
    ]
    table = ["| `from flax_mnist import` | |", "|---|---|", *rows]
    parts = [HEAD, "\n".join(table), *(_module(name, tree) for name, tree in modules.items())]
    return "\n\n".join(part.strip() for part in parts if part) + "\n"


def _exported() -> dict[str, str]:
    """The module of each name that `flax_mnist` exports."""
    tree = ast.parse((PACKAGE / "__init__.py").read_text("utf-8"))
    (table,) = (
        node.value
        for node in tree.body
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == "_MODULE_OF"
    )
    names: dict[str, str] = ast.literal_eval(table)
    return names


def _public(tree: ast.Module) -> Iterator[ast.FunctionDef | ast.ClassDef]:
    for node in tree.body:
        if isinstance(node, ast.FunctionDef | ast.ClassDef) and not node.name.startswith("_"):
            yield node


def _module(name: str, tree: ast.Module) -> str:
    parts = [f"## flax_mnist.{name}", _markdown(_docstring(tree))]
    for node in _public(tree):
        if isinstance(node, ast.FunctionDef):
            parts += [f"### `{_signature(node)}`", _markdown(_docstring(node))]
        else:
            parts += [f"### `class {node.name}`", _markdown(_docstring(node)), *_members(node)]
    return "\n\n".join(part for part in parts if part)


def _members(node: ast.ClassDef) -> Iterator[str]:
    fields = []
    for member, after in zip(node.body, [*node.body[1:], ast.Pass()], strict=True):
        if isinstance(member, ast.AnnAssign):
            said = ""
            if isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                said = f": {' '.join(str(after.value.value).split())}"
            fields.append(
                textwrap.fill(f"- `{ast.unparse(member)}`{said}", 100, subsequent_indent="  ")
            )
    if fields:
        yield "\n".join(["Fields:\n", *fields])
    for member in node.body:
        if isinstance(member, ast.FunctionDef) and not member.name.startswith("_"):
            yield f"#### `{node.name}.{_signature(member)}`"
            yield _markdown(_docstring(member))


def _signature(node: ast.FunctionDef) -> str:
    returns = f" -> {ast.unparse(node.returns)}" if node.returns else ""
    is_property = any(ast.unparse(decorator) == "property" for decorator in node.decorator_list)
    return node.name + ("" if is_property else f"({ast.unparse(node.args)})") + returns


def _docstring(node: ast.Module | ast.ClassDef | ast.FunctionDef) -> str:
    return ast.get_docstring(node) or ""


def _markdown(docstring: str) -> str:
    """A docstring's sections as lists; its indented formulas are Markdown as they are."""
    parts = re.split(r"^(Args|Returns|Yields|Raises):\n", docstring, flags=re.MULTILINE)
    text = re.sub(r"::$", ":", parts[0].strip(), flags=re.MULTILINE)
    for title, body in zip(parts[1::2], parts[2::2], strict=True):
        # An item begins at the section's indentation; what is indented deeper goes on with it.
        items = re.split(r"\n(?=\S)", textwrap.dedent(body).strip())
        text += f"\n\n{title}:\n"
        for item in items:
            said = " ".join(item.split())
            if title in ("Args", "Raises"):
                said = re.sub(r"^(\w+): ", r"`\1`: ", said)
            text += f"\n{textwrap.fill(f'- {said}', 100, subsequent_indent='  ')}"
    return text


if __name__ == "__main__":
    REFERENCE.write_text(reference(), encoding="utf-8")
