"""The documents say what is so: every block in them runs, every name and link leads somewhere.

What a fenced block is, its language says:

- `python` runs, all blocks of a document in one namespace, from top to bottom; one that begins with
  the name of a file is that file too;
- `text` is what the `python` block before it prints;
- `console` holds commands after `$`, and what they print;
- `sh` holds commands that take long or need another machine: their arguments are parsed as the
  commands themselves would.

In what is shown, `...` stands for anything. A number with a point in it may be off by half a
percent or by one in its last digit; a rounding error, shown as 2e-08, may be up to ten times that.
"""

from __future__ import annotations

import contextlib
import importlib
import importlib.util
import inspect
import io
import math
import re
import shlex
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np
import pytest
import torch
from PIL import Image

import flax_mnist
from benchmarks import __main__ as benchmark
from benchmarks import table
from benchmarks.rows import ROWS
from flax_mnist.cli.main import Command, main, parse
from flax_mnist.errors import FlaxMnistError
from flax_mnist.store import run_folder
from flax_mnist.store.metrics import Metrics

ROOT = Path(__file__).parents[2]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["project"]
DOCUMENTS = sorted([*ROOT.glob("docs/*.md"), ROOT / "CONTRIBUTING.md", ROOT / "CHANGELOG.md"])

TEXTS = [*DOCUMENTS, ROOT / "README.md"]
"""The README's Python runs in a test of its own; its commands are parsed below."""

each_document = pytest.mark.parametrize("path", DOCUMENTS, ids=lambda path: path.stem)
each_text = pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.stem)


class Block(NamedTuple):
    """A fenced block."""

    language: str
    code: str
    line: int
    """How many lines of the document are above the code."""


def blocks(text: str) -> list[Block]:
    found = re.finditer(r"^```([^\n]*)\n(.*?)^```$", text, re.MULTILINE | re.DOTALL)
    return [Block(m[1], m[2], text.count("\n", 0, m.start(2))) for m in found]


# ---- comparing ----------------------------------------------------------------------------------

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


# ---- running ------------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _as_before(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    # The command line makes settings for the whole process, as it may in one of its own.
    names = ("jax_platforms", "jax_default_device", "jax_enable_compilation_cache")
    before = {name: getattr(jax.config, name) for name in names}
    threads = torch.get_num_threads()
    torch.set_num_threads(1)  # several wait for each other where other tests run beside these
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PYTHONPATH", str(tmp_path))  # a document's own files
    monkeypatch.setenv("COLUMNS", "100")
    yield
    torch.set_num_threads(threads)
    for name, value in before.items():
        jax.config.update(name, value)


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
        else:
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


# ---- parsing ------------------------------------------------------------------------------------


def parse_command(line: str) -> None:
    """Fails if a program of the line would refuse its arguments, or a file is not there."""
    for command in re.split(r"\s+&&\s+", line):
        words = [word.removeprefix(".venv/bin/") for word in shlex.split(command)]
        if words[:2] == ["python", "-m"] and words[2].startswith("benchmarks"):
            parse_benchmark(words[2], words[3:])
        elif words[0] == "flax-mnist":
            parse(words[1:])
        elif words[:2] == ["pip", "install"]:
            for extras in re.findall(r"\[(.*)\]", command):
                assert set(extras.split(",")) <= PROJECT["optional-dependencies"].keys()
        elif words[0] == "python" and words[1].endswith(".py"):
            assert (ROOT / words[1]).exists(), command
        elif words[0] in ("pytest", "ruff", "mypy"):
            assert all((ROOT / word).exists() for word in words if "/" in word), command
        else:
            assert words[:3] == ["python3", "-m", "venv"], f"nothing is known of {command}"


def parse_benchmark(module: str, arguments: list[str]) -> None:
    main = importlib.import_module(f"{module}.__main__" if module == "benchmarks" else module).main
    if module == "benchmarks":
        benchmark.parse(arguments)
    elif module == "benchmarks.report":
        assert all((ROOT / file).exists() for file in arguments)
    else:
        known = {f"--{name.replace('_', '-')}" for name in inspect.signature(main).parameters}
        assert {word for word in arguments if word.startswith("--")} <= known


@each_document
def test_every_block_runs_and_prints_what_is_shown(path: Path) -> None:
    run_document(path)
    for picture in re.findall(r"!\[.*\]\((.*)\)", prose(path)):
        # One of the document's commands has drawn it again, in the current folder.
        shown, drawn = (
            np.asarray(Image.open(file), float) for file in (path.parent / picture, picture)
        )
        assert shown.shape == drawn.shape
        assert np.abs(shown - drawn).mean() < 2


def test_every_command_of_the_readme_parses() -> None:
    """Also where another program starts it: `srun`, or `ssh` with a quoted command."""
    shell = [b for b in blocks((ROOT / "README.md").read_text("utf-8")) if b.language == "sh"]
    lines = "\n".join(b.code for b in shell).replace("\\\n", "").splitlines()
    found = [re.search(r"flax-mnist \w[^\"]*", line) for line in lines]
    assert len([command for command in found if command]) >= 6
    for command in found:
        if command:
            parse_command(command[0])
    for line in lines:
        if line.startswith("python3 -m venv"):
            parse_command(line)


# ---- names and links ----------------------------------------------------------------------------


def prose(path: Path) -> str:
    """The document without its fenced blocks."""
    text = path.read_text(encoding="utf-8")
    return re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)


def anchors(path: Path) -> set[str]:
    """What GitHub calls the headings."""
    headings = re.findall(r"^#+ (.*)$", prose(path), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@each_text
def test_every_link_leads_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)]+)\)", prose(path)):
        if not target.startswith("https://"):
            file, _, anchor = target.partition("#")
            there = (path.parent / file).resolve() if file else path
            assert there.exists(), target
            assert not anchor or anchor in anchors(there), target


@each_text
def test_every_name_in_the_text_exists(path: Path) -> None:
    folders = "flax_mnist|benchmarks|tests|docs"
    for name in re.findall(r"`([^`]+)`", " ".join(prose(path).split())):
        if re.fullmatch(rf"({folders}|\.ci)/[\w/.-]*", name) and "<" not in name:
            assert (ROOT / name).exists(), name
        elif re.fullmatch(rf"({folders})(\.\w+)+", name):
            assert resolves(name), name
        elif name.startswith("flax-mnist ") and name.split()[1].isalpha():
            assert name.split()[1] in subcommands(), name
        elif name.startswith("python -m "):
            assert importlib.util.find_spec(name.split()[2]), name


def resolves(name: str) -> bool:
    """Whether a dotted name is a module, or something in one."""
    module, *attributes = name.split(".")
    found = importlib.import_module(module)
    for attribute in attributes:
        with contextlib.suppress(ImportError):
            module = f"{module}.{attribute}"
            importlib.import_module(module)
        if not hasattr(found, attribute):
            return False
        found = getattr(found, attribute)
    return True


def subcommands() -> set[str]:
    return {command.__name__.lower() for command in Command.__args__}


# ---- single documents ---------------------------------------------------------------------------


def test_the_changelog_has_this_version_and_every_subcommand() -> None:
    text = prose(ROOT / "CHANGELOG.md")
    assert re.search(rf"^## {re.escape(flax_mnist.__version__)}\b", text, re.MULTILINE)
    assert {
        name for name in subcommands() if f"`flax-mnist {name}`" not in " ".join(text.split())
    } == set()


def test_benchmarking_names_every_row_and_column() -> None:
    text = prose(ROOT / "docs/benchmarking.md")
    ranges = {f"P{i}" for i in range(1, 10)} | {f"J{i}" for i in range(1, 7)}
    assert {row.name for row in ROWS} <= ranges | set(re.findall(r"\b[A-Z]\d\b", text))
    for column in table.HEADER[1:]:
        assert f"| `{column}` |" in text, column


def test_command_line_names_the_files_of_a_run_and_the_fields_of_its_metrics() -> None:
    text = prose(ROOT / "docs/command-line.md")
    for name in (
        run_folder.CONFIG,
        run_folder.METRICS,
        run_folder.WEIGHTS,
        run_folder.CURVES,
        run_folder.LOCK,
    ):
        assert f"| `{name}` |" in text, name
    (row,) = re.findall(r"^\| `metrics.jsonl` \|(.*)\|$", text, re.MULTILINE)
    assert tuple(re.findall(r"`(\w+)`", row)) == (*Metrics._fields, "dataset")


# ---- the comparison itself ----------------------------------------------------------------------


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
     "pip install '.[nothing]'", "rm -rf /", "python -m benchmarks.report no.json",
     "python -m benchmarks.equivalence --no-flag"],
)  # fmt: skip
def test_a_wrong_command_fails(line: str) -> None:
    with pytest.raises((AssertionError, FlaxMnistError, SystemExit)):
        parse_command(line)
