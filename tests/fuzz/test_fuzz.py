"""Any bytes: readers refuse what is none of their files, and the fuzzer keeps what it finds."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from flax_mnist.errors import DataError, FlaxMnistError
from tests.fuzz import __main__ as fuzz
from tests.fuzz.damage import contents
from tests.fuzz.readers import READERS, WRITTEN_BY_PYTORCH, Reader
from tests.helpers.odd_files import pipe


@pytest.fixture(params=READERS)
def reader(request) -> Reader:
    if request.param in WRITTEN_BY_PYTORCH:
        request.getfixturevalue("torch")
    return READERS[request.param]


def test_no_reader_raises_what_is_not_ours(reader, folder):
    outcomes = {
        fuzz.attempt(reader, content, folder)
        for content in itertools.islice(contents(reader, seed=1), 500)
    }
    assert outcomes == {"read", "refused"}


@pytest.mark.parametrize("name", ["safetensors", "config.json", "metrics.jsonl", "checkpoint"])
def test_what_is_nested_too_deeply_is_damage(name, folder):
    reader, nested = READERS[name], b'{"epoch": ' * 100_000
    for content in (nested, nested + b"\n", len(nested).to_bytes(8, "little") + nested):
        (folder / reader.file).write_bytes(reader.mend(content))
        with pytest.raises(DataError, match=str(folder)):
            reader.read(folder / reader.file)


def test_a_pipe_is_not_waited_for(reader, tmp_path):
    with pipe(tmp_path / reader.file), pytest.raises(FlaxMnistError, match="no ordinary file"):
        reader.read(tmp_path / reader.file)


def test_the_same_seed_damages_the_same(reader):
    first, again, other = (list(itertools.islice(contents(reader, seed), 20)) for seed in (1, 1, 2))
    assert first == again != other


def test_what_is_found_is_kept(tmp_path, monkeypatch, capsys):
    def careless(path):
        if path.read_bytes() != b"abc":
            raise KeyError("abc")

    reader = Reader("file", careless, lambda: [b"abc"])
    monkeypatch.setattr(fuzz, "READERS", {"careless": reader})
    arguments = ["--seconds", "0.2", "--readers", "careless", "--output", str(tmp_path)]
    assert fuzz.main(arguments) == 1
    said = capsys.readouterr().out
    assert "KeyError: 'abc'" in said
    kept = next(tmp_path.iterdir())
    assert f"kept as {kept}" in said
    with pytest.raises(KeyError):
        careless(kept)

    monkeypatch.setitem(fuzz.READERS, "careless", reader._replace(read=Path.read_bytes))
    assert fuzz.main(arguments) == 0
