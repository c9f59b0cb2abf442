"""The one table of the project, against tables drawn by hand."""

import subprocess
import sys

import pytest

from flax_mnist.show import text

ROWS = [
    ("loop", "device", "images/s", "change"),
    ("2 threads", "a CPU", "1,234", "+0.5"),
    ("ä", "", "99", "-"),
    ("total", "", "", "±12"),
]


def test_numbers_stand_at_the_right_and_names_at_the_left():
    assert text.table(ROWS).splitlines() == [
        "loop       device  images/s  change",
        "2 threads  a CPU      1,234    +0.5",
        "ä                        99       -",
        "total                           ±12",
    ]


def test_sides_can_be_given_and_no_line_ends_in_blanks():
    assert text.table(ROWS, "><<<").splitlines() == [
        "     loop  device  images/s  change",
        "2 threads  a CPU   1,234     +0.5",
        "        ä          99        -",
        "    total                    ±12",
    ]


def test_markdown_is_as_aligned():
    assert text.markdown(ROWS).splitlines() == [
        "| loop      | device | images/s | change |",
        "|-----------|--------|---------:|-------:|",
        "| 2 threads | a CPU  |    1,234 |   +0.5 |",
        "| ä         |        |       99 |      - |",
        "| total     |        |          |    ±12 |",
    ]
    assert text.markdown([("a", "b"), ("x", "1")]).splitlines() == [
        "| a   |   b |",
        "|-----|----:|",
        "| x   |   1 |",
    ]


def test_a_header_alone_is_a_table():
    assert text.table([("a", "b")]) == "a  b"
    assert text.markdown([("a", "b")]) == "| a   | b   |\n|-----|-----|"


def test_a_digit_in_a_name_or_in_the_header_makes_no_number():
    assert text.table([("a", "2 of"), ("x", "y1")]) == "a  2 of\nx  y1"


@pytest.mark.parametrize("style", [text.table, text.markdown])
def test_rows_and_sides_must_be_of_one_length(style):
    with pytest.raises(ValueError, match="shorter"):
        style([("a", "b"), ("c",)])
    with pytest.raises(ValueError, match="shorter"):
        style([("a", "b")], "<")


def test_it_imports_nothing_heavy():
    code = (
        "import sys\nfrom flax_mnist.show import text\n"
        "print([name for name in ('jax', 'numpy', 'rich', 'matplotlib') if name in sys.modules])"
    )
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert done.stdout == "[]\n"
