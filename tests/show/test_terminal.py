"""What a terminal shows, and what stands in a file in its place."""

from __future__ import annotations

from flax_mnist.show import terminal


def test_where_there_is_no_terminal_a_bar_prints_nothing(capsys):
    """rich before 14.3 ends even a bar that is disabled with an empty line."""
    with terminal.progress_bar(steps=10, done=0) as advance:
        advance(5, None)
    assert capsys.readouterr() == ("", "")
