"""Builds the documents and the reference: `python -m sphinx -W --keep-going docs docs/_build`."""

import ast
import inspect
import re
import textwrap
from os.path import relpath
from pathlib import Path
from typing import Any

from sphinx.application import Sphinx
from sphinx.ext.napoleon import Config, GoogleDocstring
from sphinx.util.inspect import stringify_signature

from flax_mnist import __version__

project = "flax_mnist"
version = release = __version__
html_theme = "furo"
html_title = f"{project} {version}"
html_show_copyright = False

extensions = [
    "myst_parser",
    "sphinx.ext.autodoc",
    "sphinx.ext.autosummary",
    "sphinx.ext.viewcode",
]
exclude_patterns = ["_build"]
default_role = "code"  # docstrings write code in single backticks, as Markdown does

myst_enable_extensions = ["dollarmath"]
myst_heading_anchors = 3

DOCS = Path(__file__).parent
# Pages that are a file from elsewhere in the project, by that file.
INCLUDED = {
    (DOCS / found[1]).resolve(): page
    for page in DOCS.glob("*.md")
    if (found := re.fullmatch(r"```\{include\} (.+)\n```\n", page.read_text("utf-8")))
}

autodoc_default_options = {"members": True, "undoc-members": True}
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_typehints = "none"  # evaluated they are riddles; `as_written` gives those of the source
maximum_signature_line_length = 80

nitpicky = True
nitpick_ignore_regex = [("py:.*", r"(?!flax_mnist\b).*")]  # what other libraries document


def annotations(thing: Any) -> dict[str, str]:
    """Of a function's arguments and its return, or of a class's fields, as the source has them."""
    source = textwrap.dedent(inspect.getsource(inspect.unwrap(thing)))
    (node,) = ast.parse(source).body
    if isinstance(node, ast.ClassDef):
        inits = [n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"]
        node = inits[0] if inits else node
    said: dict[str, ast.expr | None]
    if isinstance(node, ast.ClassDef):
        fields = (n for n in node.body if isinstance(n, ast.AnnAssign))
        said = {field.target.id: field.annotation for field in fields}
    else:
        a = node.args
        arguments = (*a.posonlyargs, *a.args, a.vararg, *a.kwonlyargs, a.kwarg)
        said = {n.arg: n.annotation for n in arguments if n} | {"return": node.returns}
    segments = {name: ast.get_source_segment(source, n) for name, n in said.items() if n}
    return {name: re.sub(r"\s+", " ", text) for name, text in segments.items() if text}


def as_written(
    _app: Sphinx, what: str, _name: str, thing: Any, _options: Any, arguments: str | None, _r: Any
) -> tuple[str, str] | None:
    """A signature in the words of the source: `Params`, `Float[Array, "batch 784"]`."""
    if arguments is None or not thing.__module__.startswith(project):
        return None
    said: dict[str, str] = {}
    for part in reversed(thing.__mro__) if what == "class" else [thing]:
        said |= annotations(part) if part.__module__.startswith(project) else {}
    signature = inspect.signature(thing)
    parameters = [
        parameter.replace(annotation=said.get(name, parameter.annotation))
        for name, parameter in signature.parameters.items()
        if name not in ("self", "cls")
    ]
    signature = signature.replace(parameters=parameters, return_annotation=signature.empty)
    text = re.sub(r"<class '([\w.]+)'>", r"\1", stringify_signature(signature))
    # A default that Python cannot read, such as <factory>, would make Sphinx lose its way.
    text = re.sub(r"<[^<>]*>", "...", text)
    return text, "" if what == "class" else said.get("return", "")


def google_style(
    app: Sphinx, what: str, name: str, thing: Any, _options: Any, lines: list[str]
) -> None:
    """Reads the sections of a docstring; an attribute's has none, but may have a colon."""
    if what not in ("attribute", "data", "property"):
        lines[:] = GoogleDocstring(lines, Config(), app, what, name, thing).lines()
    elif lines[:1] and lines[0].startswith("Alias for field number"):
        lines.clear()  # of a named tuple, and all that it says


def with_links_to_pages(_app: Sphinx, name: str, source: list[str]) -> None:
    """Puts an included file in its page's place, and has links lead to pages where there are some.

    In the sources they lead to files, where whoever reads them on a disk follows them.
    """
    page = DOCS / f"{name}.md"
    file = next((file for file, its_page in INCLUDED.items() if its_page == page), page)

    def link(found: re.Match[str]) -> str:
        target = (file.parent / found[1]).resolve()
        there = relpath(INCLUDED.get(target, target), page.parent)
        # What is no page is given as a file.
        scheme = "" if INCLUDED.get(target, target).is_relative_to(DOCS) else "path:"
        return f"]({scheme}{there}{found[2]})" if target.exists() else found[0]

    source[0] = re.sub(r"\]\(([\w./-]+)(#[^)]*|)\)", link, file.read_text("utf-8"))


def setup(app: Sphinx) -> None:
    """Called by Sphinx."""
    app.connect("source-read", with_links_to_pages)
    app.connect("autodoc-process-signature", as_written)
    app.connect("autodoc-process-docstring", google_style)
