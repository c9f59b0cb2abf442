"""What runs the documents and compares what they print notices what is wrong in one."""

from __future__ import annotations

from pathlib import Path

import pytest

from flax_mnist.errors import FlaxMnistError
from tests.helpers.documents import agrees, parse_command, run_document


@pytest.mark.parametrize(
    ("shown", "printed", "same"),
    [
        ("loss 0.5323", "loss 0.5330\n", True),
        ("loss 0.5323", "loss 0.5423", False),
        ("0.05%", "0.06%", True),
        ("88.12%", "87.12%", False),
        ("7 of 10", "8 of 10", False),
        ("differ by 2e-08", "differ by 9e-08", True),
        ("differ by 2e-08", "differ by 0e+00", True),
        ("differ by 2e-08", "differ by 3e-07", False),
        ("[-200.    0.]", "[-200. 0.]", True),
        ("a ... z", "a b\nc z", True),
        ("a ... z", "a b", False),
        ("shown", "shown and more", False),
    ],
)
def test_agrees(shown: str, printed: str, same: bool) -> None:
    assert agrees(shown, printed) is same


def test_a_block_of_an_unknown_language_fails(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    for fence in ("```", "```bash", "```python title=x"):
        document.write_text(f"{fence}\nx\n```\n")
        with pytest.raises(pytest.fail.Exception, match="nothing is known"):
            run_document(document)


def test_what_is_printed_must_be_shown(tmp_path: Path) -> None:
    document = tmp_path / "document.md"
    document.write_text("```python\nprint(1)\n```\n")
    with pytest.raises(AssertionError, match="prints what is not shown"):
        run_document(document)
    document.write_text("```python\nprint(1)\n```\n\n```text\n2\n```\n")
    with pytest.raises(AssertionError, match="line 5: prints"):
        run_document(document)


@pytest.mark.parametrize(
    "line",
    ["flax-mnist train --epochs many", "flax-mnist fly", "python -m benchmarks --rows X9",
     "pip install '.[nothing]'", "rm -rf /", "python -m benchmarks.report no.json"],
)  # fmt: skip
def test_a_wrong_command_fails(line: str) -> None:
    with pytest.raises((AssertionError, FlaxMnistError, SystemExit)):
        parse_command(line)


@pytest.mark.usefixtures("torch")
def test_a_wrong_flag_of_a_package_fails() -> None:
    with pytest.raises(AssertionError):
        parse_command("python -m benchmarks.equivalence --no-flag")
