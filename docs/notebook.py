"""Makes the tutorial's notebook of its Markdown, or holds the two against each other.

    python -m docs.notebook PYTHON            makes it anew, with the outputs of a kernel of PYTHON
    python -m docs.notebook --check PYTHON    runs the one that is there, and writes nothing

PYTHON is the interpreter of an environment with the package, PyTorch and ipykernel: `nox -s
notebook` makes one that has nothing else.
"""

from __future__ import annotations

import argparse
import json
import os
import re
import sys
import tempfile
from pathlib import Path

import jupytext
import nbformat
from nbformat import NotebookNode

from tests.helpers.documents import agrees, blocks, commands

MARKDOWN = Path(__file__).with_name("from-pytorch-to-jax.md")
NOTEBOOK = MARKDOWN.with_suffix(".ipynb")

INSTALL = """\
# Installs what is missing. flax_mnist comes from a wheel beside this notebook, which you upload if
# this is Colab, or else from the checkout that the notebook is in.
from importlib.util import find_spec
from pathlib import Path

if find_spec("flax_mnist") is None:
    wheels = sorted(Path().glob("flax_mnist-*.whl"))
    source = wheels[-1] if wheels else Path("..").resolve()
    %pip install --quiet {source}
if find_spec("torch") is None:
    %pip install --quiet torch
"""

PICTURE = """\
from IPython.display import Image

Image("{file}", alt="{alt}")
"""


def make(markdown: str) -> NotebookNode:
    """The notebook without outputs.

    What a block prints is left to the kernel that runs it, sessions of a shell become cells of
    commands, and pictures are shown as the commands have just drawn them.
    """
    for block in blocks(markdown):
        fenced = f"```{block.language}\n{block.code}```\n"
        if block.language == "text":
            markdown = markdown.replace(fenced, "")
        elif block.language == "console":
            script = "".join(f"{command}\n" for command, _ in commands(block.code))
            markdown = markdown.replace(fenced, f"```sh\n{script}```\n")

    def picture(found: re.Match[str]) -> str:
        return f"```python\n{PICTURE.format(alt=found[1], file=found[2])}```"

    markdown = re.sub(r"^!\[(.*)\]\((.*)\)$", picture, markdown, flags=re.MULTILINE)
    for heading in re.findall(r"^#+ (.*)$", markdown, re.MULTILINE):
        # Jupyter's name for a heading keeps its capitals.
        name = re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")
        markdown = markdown.replace(f"](#{name})", f"](#{heading.replace(' ', '-')})")
    notebook = jupytext.reads(f"```python\n{INSTALL}```\n\n{markdown}", fmt="md")
    notebook.metadata = {
        "kernelspec": {"display_name": "Python 3", "language": "python", "name": "python3"},
        "language_info": {"name": "python"},
    }
    for number, cell in enumerate(notebook.cells):
        cell.id, cell.metadata = f"cell-{number}", {}
    return notebook


def shown(markdown: str) -> dict[str, str]:
    """What the document shows after each piece of code, by the source of its cell."""
    found, last = {}, ""
    for block in blocks(markdown):
        if block.language == "text":
            found[last] = block.code
        elif block.language == "console":
            pairs = commands(block.code)
            script = "\n".join(command for command, _ in pairs)
            found[f"%%sh\n{script}"] = "".join(output for _, output in pairs)
        else:
            last = block.code.strip()
    return found


def printed(cell: NotebookNode) -> str:
    """What a cell has printed, on either stream, or how it has failed."""
    texts = (output.get("text", output.get("evalue", "")) for output in cell.outputs)
    return "".join(texts)


def differences(notebook: NotebookNode, markdown: str) -> list[str]:
    """Where a notebook is not what the document says: its text, its code, what it has printed."""
    expected = make(markdown)
    sources = [(cell.cell_type, cell.source) for cell in expected.cells]
    if [(cell.cell_type, cell.source) for cell in notebook.cells] != sources:
        return ["it is not made of the document as it is now"]
    outputs = shown(markdown)
    return [
        f"{cell.source}\nprints\n{printed(cell)}"
        for cell in notebook.cells
        if cell.cell_type == "code" and not agrees(outputs.get(cell.source, ""), printed(cell))
    ]


def execute(notebook: NotebookNode, python: str) -> None:
    """Runs it from top to bottom, in an empty folder, and keeps what its cells print.

    Raises:
        nbclient.exceptions.CellExecutionError: one fails.
    """
    import nbclient
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import AsyncKernelManager

    scripts = os.path.dirname(os.path.abspath(python))
    spec = {
        "argv": [python, "-m", "ipykernel_launcher", "-f", "{connection_file}"],
        "display_name": "bare",
        "language": "python",
    }
    outside = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    outside |= {
        "PATH": os.pathsep.join([scripts, outside["PATH"]]),
        "COLUMNS": "100",
        "JAX_PLATFORMS": "cpu",
        "JAX_PPRINT_USE_COLOR": "0",  # in Jupyter a jaxpr is coloured
    }
    with tempfile.TemporaryDirectory() as kernels, tempfile.TemporaryDirectory() as folder:
        (Path(kernels) / "bare").mkdir()
        (Path(kernels) / "bare" / "kernel.json").write_text(json.dumps(spec))
        specs = KernelSpecManager(kernel_dirs=[kernels], ensure_native_kernel=False)
        kernel = AsyncKernelManager(kernel_name="bare", kernel_spec_manager=specs)
        client = nbclient.NotebookClient(
            notebook, km=kernel, timeout=600, record_timing=False,
            coalesce_streams=True, resources={"metadata": {"path": folder}},
        )  # fmt: skip
        client.execute(env=outside)


def main(argv: list[str] | None = None) -> int:
    """What is said above; 1 if a cell prints something else than the document shows."""
    parser = argparse.ArgumentParser(prog="python -m docs.notebook", description=__doc__)
    parser.add_argument("--check", action="store_true", help="write nothing")
    parser.add_argument("python", help="the interpreter that runs the cells")
    args = parser.parse_args(argv)
    markdown = MARKDOWN.read_text(encoding="utf-8")
    notebook = nbformat.read(NOTEBOOK, as_version=4) if args.check else make(markdown)
    execute(notebook, args.python)
    found = differences(notebook, markdown)
    print("\n\n".join(found) or f"{len(notebook.cells)} cells print what the document shows")
    if not args.check and not found:
        nbformat.write(notebook, NOTEBOOK)
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
