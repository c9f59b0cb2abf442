"""Documents as programs: their fenced blocks are run, and what they print is compared.

What a fenced block is, its language says:

- `python` runs, all blocks of a document in one namespace, from top to bottom; one that begins with
  the name of a file is that file too;
- `text` is what the `python` block before it prints;
- `console` holds commands after `$`, and what they print;
- `sh` holds commands that take long or need another machine: their arguments are parsed as the
  commands themselves would;
- `{toctree}` and `{include}` are for Sphinx, whose build is a test of its own.

In what is shown, `...` stands for anything. A number with a point in it may be off by half a
percent or by one in its last digit; a rounding error, shown as 2e-08, may be up to ten times that.
"""

from __future__ import annotations

import contextlib
import importlib
import inspect
import io
import math
import re
import shlex
import tomllib
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from benchmarks import __main__ as benchmark
from benchmarks import entry
from flax_mnist.cli.main import Command, main, parse

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCUMENTS = sorted([*ROOT.glob("docs/*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])


class Block(NamedTuple):
    """A fenced block."""

    language: str
    code: str
    line: int
    """How many lines of the document are above the code."""


def blocks(text: str) -> list[Block]:
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2))) for m in found]


def prose(path: Path) -> str:
    """The document without its fenced blocks."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


def subcommands() -> set[str]:
    return {command.__name__.lower() for command in Command.__args__}


NUMBER = r"[-+]?\d+(?:\.\d+(?:e[-+]?\d+)?|e[-+]?\d+)"


def agrees(shown: str, printed: str) -> bool:
    """Whether a program printed what the document shows."""
    parts = re.split(rf"(\.\.\.|{NUMBER}|\s+)", shown.strip())
    patterns = {"...": ".*?", "number": f"({NUMBER})", "blank": r"\s+"}
    kinds = [_kind(part) for part in parts]
    pattern = "".join(patterns.get(k, re.escape(p)) for k, p in zip(kinds, parts, strict=True))
    match = re.fullmatch(pattern, printed.strip(), re.DOTALL)
    expected = [p for k, p in zip(kinds, parts, strict=True) if k == "number"]
    return match is not None and all(map(_close, expected, map(float, match.groups())))


def _kind(part: str) -> str:
    if part == "...":
        return part
    return "number" if re.fullmatch(NUMBER, part) else "blank" if part.isspace() else "text"


def _close(shown: str, found: float) -> bool:
    expected = float(shown)
    if "e-" in shown or "e+00" in shown:
        return abs(found) <= max(10 * abs(expected), 1e-15)
    last_digit = 10.0 ** -len(shown.partition(".")[2])
    return math.isclose(expected, found, rel_tol=0.005, abs_tol=1.01 * last_digit)


def run_document(path: Path) -> None:
    """Runs its blocks from top to bottom, and compares what they print with what it shows."""
    namespace: dict[str, Any] = {"__name__": path.stem.replace("-", "_")}
    printed = ""
    for block in blocks(path.read_text(encoding="utf-8")):
        where = f"{path.name}, line {block.line}"
        if block.language == "text":
            assert agrees(block.code, printed), f"{where}: prints\n{printed}"
            printed = ""
            continue
        assert not printed, f"{where}: the block before it prints what is not shown:\n{printed}"
        if block.language == "python":
            file = re.match(r"# (\w+\.py)\n", block.code)
            if file:
                Path(file[1]).write_text(block.code, encoding="utf-8")
            # The empty lines make the line numbers of a traceback the document's.
            code = compile("\n" * block.line + block.code, path, "exec", dont_inherit=True)
            with contextlib.redirect_stdout(io.StringIO()) as out:
                exec(code, namespace)
            printed = out.getvalue()
        elif block.language == "console":
            for command, shown in commands(block.code):
                printed = run_command(command)
                assert agrees(shown, printed), f"{where}: {command} prints\n{printed}"
            printed = ""
        elif block.language == "sh":
            for command in block.code.replace("\\\n", "").splitlines():
                parse_command(command)
        elif not block.language.startswith(("{toctree}", "{include}")):
            pytest.fail(f"{where}: nothing is known of how to run {block.language or 'this'!r}")
    assert not printed, f"{path.name}: its last block prints what is not shown:\n{printed}"


def commands(session: str) -> list[tuple[str, str]]:
    """Each command of a session, and what the document shows after it."""
    first, *rest = re.split(r"^\$ ", session, flags=re.MULTILINE)
    assert not first.strip(), f"what comes before the first $ of:\n{session}"
    pairs = (part.partition("\n") for part in rest)
    return [(command, shown) for command, _, shown in pairs]


def run_command(command: str) -> str:
    """What it prints, on either stream; it must end well."""
    program, *arguments = shlex.split(command)
    mains = {"flax-mnist": main, "python -m benchmarks": benchmark.main}
    if program == "python":
        program, arguments = " ".join([program, *arguments[:2]]), arguments[2:]
    assert program in mains, f"nothing is known of how to run {command}"
    with contextlib.redirect_stdout(io.StringIO()) as out, contextlib.redirect_stderr(out):
        code = mains[program](arguments)
    assert code == 0, f"{command} ends with {code}:\n{out.getvalue()}"
    return out.getvalue()


def parse_command(line: str) -> None:
    """Fails if a program of the line would refuse its arguments, or a file is not there."""
    for command in re.split(r"\s+&&\s+", line):
        words = [word.removeprefix(".venv/bin/") for word in shlex.split(command)]
        if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks"):
            parse_benchmark(words[2], words[3:])
        elif words[0] == "flax-mnist":
            try:
                parse(words[1:])
            except SystemExit as stop:  # what was asked for, help for one, is done
                if stop.code:
                    raise
        elif words[:2] == ["pip", "install"]:
            for extras in re.findall(r"\[(.*)\]", command):
                assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), command
        elif words[0] in ("nox", "pytest", "ruff", "mypy"):
            assert all((ROOT / word).exists() for word in words if "/" in word), command
        else:
            assert words[:3] == ["python3", "-m", "venv"], f"nothing is known of {command}"


def parse_benchmark(module: str, arguments: list[str]) -> None:
    found = importlib.import_module(module)
    if hasattr(found, "__path__"):  # of a package `python -m` runs this
        found = importlib.import_module(f"{module}.__main__")
    if module == "benchmarks":
        command, prog, words = benchmark.words_of(arguments)
        entry.parse(command, prog, words)
    elif module == "benchmarks.report":
        assert all((ROOT / file).exists() for file in arguments)
    else:
        target = entry.load(found.COMMAND if hasattr(found, "COMMAND") else found.main)
        known = {f"--{name.replace('_', '-')}" for name in inspect.signature(target).parameters}
        assert {word for word in arguments if word.startswith("--")} <= known
