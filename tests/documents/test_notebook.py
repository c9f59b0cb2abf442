"""The notebook is the tutorial: its text, its code, and what that prints."""

from __future__ import annotations

import nbformat
import pytest
from nbformat import NotebookNode
from nbformat.v4 import new_output

from docs.notebook import INSTALL, MARKDOWN, NOTEBOOK, differences, make

SMALL = """\
# One

See [two](#and-two-more).

```python
print(0.25)
```

```text
0.2500
```

## And two more

```console
$ flax-mnist runs
first
$ flax-mnist doctor
...
```

![A digit](digit.png)
"""


@pytest.fixture
def notebook() -> NotebookNode:
    """Of the small document, as if it had been run."""
    made = make(SMALL)
    for cell, printed in zip(made.cells[2::2], ("0.2501\n", "first\nJAX 1\n"), strict=False):
        cell.outputs = [new_output("stream", name="stdout", text=printed)]
    return made


def test_it_is_made_of_the_tutorial_as_it_is():
    """`nox -s notebook` makes it anew; `nox -s notebook -- --check` runs it."""
    stored = nbformat.read(NOTEBOOK, as_version=4)
    nbformat.validate(stored)
    assert differences(stored, MARKDOWN.read_text(encoding="utf-8")) == []
    assert stored.cells[0].source == INSTALL.strip()
    pictures = [o for c in stored.cells for o in c.get("outputs", ()) if "image/png" in str(o)]
    assert len(pictures) == 1


def test_blocks_become_cells(notebook):
    assert [cell.source for cell in notebook.cells[1:]] == [
        "# One\n\nSee [two](#And-two-more).",
        "print(0.25)",
        "## And two more",
        "%%sh\nflax-mnist runs\nflax-mnist doctor",
        'from IPython.display import Image\n\nImage("digit.png", alt="A digit")',
    ]
    assert differences(notebook, SMALL) == []


@pytest.mark.parametrize(
    ("now", "found"),
    [
        (SMALL.replace("See", "Look at"), "not made of the document"),
        (SMALL.replace("print(0.25)", "print(1 / 4)"), "not made of the document"),
        (SMALL.replace("0.2500", "0.2600"), "print(0.25)"),
        (SMALL.replace("\nfirst", "\nsecond"), "flax-mnist runs"),
    ],
)
def test_what_has_changed_in_the_document_is_found(notebook, now, found):
    (difference,) = differences(notebook, now)
    assert found in difference


def test_a_warning_and_a_mistake_are_found(notebook):
    failed = new_output("error", ename="NameError", evalue="name 'Image' is not defined")
    notebook.cells[-1].outputs = [failed]
    notebook.cells[2].outputs.append(new_output("stream", name="stderr", text="warning\n"))
    assert len(differences(notebook, SMALL)) == 2
