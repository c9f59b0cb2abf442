"""Makes the table and the picture of stored results.

    python -m benchmarks.report FILE.json...

writes FILE.md and FILE.png beside each file and prints the table.
"""

import json
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from benchmarks.tables import picture, table


def write(result: Mapping[str, Any], path: Path) -> str:
    """Writes the table and the picture beside `path`, the file of the result; returns the table."""
    text = table.render(result)
    path.with_suffix(".md").write_text(text, encoding="utf-8")
    try:
        picture.save(result, path.with_suffix(".png"))
    except ImportError as error:
        print(f"no picture: {error}", file=sys.stderr)
    return text


if __name__ == "__main__":
    for file in map(Path, sys.argv[1:]):
        print(write(json.loads(file.read_text(encoding="utf-8")), file))
