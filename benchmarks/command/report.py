"""The table and the picture of stored results."""

import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any

import tyro

from benchmarks.command import stored
from benchmarks.tables import picture, table
from flax_mnist import files
from flax_mnist.cli.flags import Switch
from flax_mnist.errors import RequestError


def write(result: Mapping[str, Any], path: Path) -> str:
    """Writes the table and the picture beside `path`, the file of the result; returns the table.

    Raises:
        FlaxMnistError: they cannot be written.
    """
    text = table.render(result)
    files.write_atomically(path.with_suffix(".md"), text.encode())
    try:
        picture.save(result, path.with_suffix(".png"))
    except ImportError as error:
        print(f"no picture: {error}", file=sys.stderr)
    return text


def report(
    paths: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="FILE.json")],
    summary: Switch = False,
) -> None:
    """Makes the table and the picture of stored results, beside each file, and prints the table.

    Args:
        paths: what `python -m benchmarks` has stored.
        summary: print one line for scripts in place of each table.
    """
    if not paths:
        raise RequestError("no FILE.json was named. python -m benchmarks makes one.")
    for path, result in [(path, stored.read(path)) for path in paths]:
        text = write(result, path)
        print(table.one_line(result) if summary else text)
