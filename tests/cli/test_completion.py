"""What real shells complete, when Tab is pressed, with what `flax-mnist completion` prints."""

from __future__ import annotations

import contextlib
import dataclasses
import re
import shutil
import subprocess
from collections.abc import Iterator
from pathlib import Path

import pytest

from flax_mnist.cli.main import COMMANDS
from tests.helpers.command_line import mistaken, said
from tests.helpers.platforms import POSIX
from tests.helpers.shells import Shell, at_terminal

TYPED = [
    ("tra\t", ["train"]),
    ("train --learning\t 0.1", ["train", "--learning-rate", "0.1"]),
    ("train --dataset k\t", ["train", "--dataset", "kmnist"]),
    ("train --dataset=k\t", ["train", "--dataset=kmnist"]),
    ("predict my\t se\t --inv\t y\t", ["predict", "my runs", "seven.png", "--invert", "yes"]),
    ("plot ./my\t", ["plot", "./my runs"]),
    ("evaluate my\t --rep\t my\t", ["evaluate", "my runs", "--report", "my runs"]),
    ("inspect --sections lay\t co\t", ["inspect", "--sections", "layers", "cost"]),
    ("inspect --target tpu-v6\t", ["inspect", "--target", "tpu-v6e"]),
    ("inspect --sections cost --dev\t c\t", ["inspect", "--sections", "cost", "--device", "cpu"]),
    ("train --hidden-sizes 9 8 --dry\t", ["train", "--hidden-sizes", "9", "8", "--dry-run"]),
    ("completion z\t", ["completion", "zsh"]),
    # Of these there is none: what is begun stays.
    ("train --epochs se\t", ["train", "--epochs", "se"]),
    ("train --dataset N\t", ["train", "--dataset", "N"]),
    ("predict none\t", ["predict", "none"]),
]


@contextlib.contextmanager
def shell(name: str, capsys: pytest.CaptureFixture[str], folder: Path) -> Iterator[Shell]:
    """In a folder with the script, another folder and a picture."""
    if not shutil.which(name):
        pytest.skip(f"there is no {name} to complete in")
    (folder / "my runs").mkdir()
    (folder / "seven.png").touch()
    script = folder / f"completion of flax-mnist.{name}"
    script.write_text("\n".join(said(capsys, "completion", name)))
    with at_terminal(name, script, folder) as started:
        yield started


def split(words: list[str]) -> list[str]:
    """Without what tells shells apart: `--flag=value` for two words, the `/` behind a folder."""
    parts = [part for word in words for part in re.split(r"(?<=\w)=", word)]
    return [part.removesuffix("/") for part in parts]


@POSIX
@pytest.mark.parametrize("name", ["bash", "zsh"])
def test_a_shell_completes_commands_flags_choices_and_files(capsys, tmp_path, name):
    with shell(name, capsys, tmp_path) as at:
        for keys, words in TYPED:
            if name == "zsh":  # where it has filled in a whole word, the blank is there
                keys = re.sub(r"(--\S+\t) ", r"\1", keys)
            assert split(at.words(f"flax-mnist {keys}")) == split(words), keys


@POSIX
def test_bash_offers_flags_and_no_word_of_their_help(capsys, tmp_path):
    with shell("bash", capsys, tmp_path) as at:
        *listed, _ = at.type("flax-mnist train --d\t").split("train --d\r\n")[1].splitlines()
    assert set(" ".join(listed).split()) == {
        "--data-dir", "--dataset", "--debug", "--deterministic", "--device", "--distributed",
        "--dry-run",
    }  # fmt: skip


@POSIX
def test_fish_completes_commands_flags_choices_and_files(capsys, tmp_path):
    if not shutil.which("fish"):
        pytest.skip("there is no fish to complete in")
    (tmp_path / "my runs").mkdir()
    (tmp_path / "seven.png").touch()
    script = tmp_path / "flax-mnist.fish"
    script.write_text("\n".join(said(capsys, "completion", "fish")))
    for line, offered in [
        ("tra", ["train"]),
        ("train --learning", ["--learning-rate"]),
        ("train --dataset k", ["kmnist"]),
        ("train --dataset=k", ["--dataset=kmnist"]),
        ("predict my", ["my runs/"]),
        ("predict x se", ["seven.png"]),
        ("predict x --invert ", ["auto", "no", "yes"]),
        ("train --run-dir my", ["my runs/"]),
        ("train se", []),
        ("train --epochs ", []),
        ("evaluate --dataset None", []),
        ("completion ", ["bash", "fish", "zsh"]),
    ]:
        ask = f"source {script}; complete -C 'flax-mnist {line}'"
        done = subprocess.run(
            ["fish", "--no-config", "-c", ask],
            cwd=tmp_path, capture_output=True, text=True, check=True,
        )  # fmt: skip
        words = [said.partition("\t")[0] for said in done.stdout.splitlines()]
        assert sorted(words) == offered, line


@pytest.mark.parametrize("name", COMMANDS)
def test_every_flag_that_is_offered_is_one(capsys, name):
    """As tyro has it, which has read the same dataclasses in its own way."""
    (line,) = (line for line in said(capsys, "completion", "bash") if f"    [{name}]=" in line)
    offered = re.findall(r"(?<!\S)--?[\w-]+", line.partition("=")[2].strip("'"))
    shown = " ".join(said(capsys, name, "--help"))
    named = {word for word in re.findall(r"(?<=[ │(])--?[a-z][\w-]*", shown) if word != "-h"}
    # Help speaks of flags of other commands, and of other programs.
    assert set(offered) <= named
    for flag in re.findall(r"│ (-[^│]*?)  ", shown):
        for word in re.findall(r"(?:^|, )(--?[a-z][\w-]*)", flag):
            assert word in {*offered, "-h"}, word


def test_an_unknown_shell_is_refused(capsys):
    assert "Expected one of" in mistaken(capsys, "completion", "tcsh")


def test_the_commands_are_dataclasses_of_the_names_that_they_have():
    for name, command in COMMANDS.items():
        assert command.__name__.lower() == name
        assert dataclasses.is_dataclass(command)
