"""What `--help` says of the commands."""

from __future__ import annotations

import re

import pytest

from flax_mnist.cli.fields import all_fields_of
from flax_mnist.cli.main import COMMANDS, describe
from tests.helpers.command_line import ask, said
from tests.helpers.documents import parse_command

each_command = pytest.mark.parametrize("name", COMMANDS)


@pytest.fixture(autouse=True)
def _eighty_columns(monkeypatch):
    monkeypatch.setenv("COLUMNS", "80")


@each_command
def test_its_help_fits_a_terminal_and_names_no_default_that_is_none(capsys, name):
    usage, *lines = said(capsys, name, "--help")
    assert usage.startswith(f"usage: flax-mnist {name} ")
    assert max(map(len, lines)) <= 80
    assert "(default: None)" not in "\n".join(lines)
    assert "(default: )" not in "\n".join(lines)


@each_command
def test_what_is_said_of_a_flag_is_broken_where_the_terminal_ends_alone(capsys, name, monkeypatch):
    monkeypatch.setenv("COLUMNS", "1000")
    lines = said(capsys, name, "--help")
    for field in all_fields_of(COMMANDS[name]):
        assert any(field.help in line for line in lines), field.name


@each_command
def test_its_help_has_examples_that_parse(capsys, name):
    shown = [line.strip() for line in said(capsys, name, "--help")]
    commands = shown[shown.index("Examples:") + 1 :]
    commands = commands[: commands.index("")]
    assert 2 <= len(commands) <= 3
    for command in commands:
        plain = re.sub(r"^source <\((.*)\)$|^(.*?) > \S+$", r"\1\2", command)
        assert plain.startswith(f"flax-mnist {name}")
        parse_command(plain)
    assert "Examples:" in describe(COMMANDS[name])


def test_the_help_of_all_names_commands_version_and_completion(capsys):
    assert ask("--help") == 0
    text = capsys.readouterr().out
    for name in COMMANDS:
        assert f"• {name} " in text
    for said_besides in ("flax-mnist --version ", "flax-mnist completion bash"):
        assert said_besides in text
    assert "Examples" not in text
    assert max(map(len, text.splitlines()[1:])) <= 80


def test_inspect_has_no_flag_that_changes_nothing(capsys):
    text = "\n".join(said(capsys, "inspect", "--help"))
    for flag in ("--epochs", "--learning-rate", "--seed", "--init"):
        assert flag not in text
    assert "--batch-size" in text
