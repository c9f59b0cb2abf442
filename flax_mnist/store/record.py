"""What a run was: its `config.json`."""

from __future__ import annotations

import contextlib
import dataclasses
import json
import os
import re
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple, TypeVar, get_args

from flax_mnist import __version__
from flax_mnist.config import CLASSES, CheckpointPolicy, Config, DatasetName
from flax_mnist.errors import DataError, RequestError
from flax_mnist.files import read, write_atomically
from flax_mnist.store.run_folder import CONFIG

if TYPE_CHECKING:
    from flax_mnist.data.dataset import Dataset

Kind = TypeVar("Kind")  #: Of a value in `config.json`.


class Record(NamedTuple):
    """What `config.json` says of a run: all that is needed to repeat it, or to use its weights."""

    config: Config
    dataset: DatasetName
    source: str  #: Where the images, or the weights of an imported run, came from.
    data_dir: Path | None
    class_names: tuple[str, ...]
    checkpoints: CheckpointPolicy | None = None  #: None of a run that was imported, not trained.
    #: That shared each batch; only read, from the topology. None where it is not known.
    devices: int | None = None
    form: str | None = None  #: In which the images were; None where that was not recorded.
    sha256: Mapping[str, str] | None = None  #: `Dataset.digests` of the images, as `form`.
    #: Where the first weights came from, as `path`, and `sha256` of that file; None: from the seed.
    init_from: Mapping[str, str] | None = None

    @classmethod
    def of(
        cls,
        config: Config,
        dataset: Dataset,
        data_dir: Path | None,
        checkpoints: CheckpointPolicy | None,
        init_from: Mapping[str, str] | None = None,
    ) -> Record:
        """The record of a run on a dataset that is at hand."""
        name, source, names = dataset.name, dataset.source, dataset.class_names
        record = cls(config, name, source, data_dir, names, checkpoints, init_from=init_from)
        return record._replace(form=dataset.form, sha256=dataset.digests())


def write_config(path: Path, record: Record, environment: Mapping[str, Any]) -> None:
    """Writes `config.json` into the run folder `path`; for the environment see `content_of`.

    Raises:
        FlaxMnistError: it cannot be written.
    """
    content = content_of(record, environment)
    write_atomically(path / CONFIG, (json.dumps(content, indent=2) + "\n").encode())


def content_of(record: Record, environment: Mapping[str, Any]) -> dict[str, Any]:
    """What `config.json` says of a run.

    Of an imported run only the settings are written that its weights tell. `environment` has
    topology, versions, device and command: it is `devices.environment.describe`'s.
    """
    settings = dataclasses.asdict(record.config)
    if record.checkpoints is None:
        settings = {name: settings[name] for name in ("hidden_sizes", "precision")}
    data_dir = record.data_dir and Path(os.path.expanduser(record.data_dir)).resolve()
    return {
        "config": settings,
        "dataset": {
            "name": record.dataset,
            "source": record.source,
            "form": record.form,
            "sha256": record.sha256,
            "data_dir": str(data_dir) if data_dir else None,
            "class_names": record.class_names,
        },
        "init_from": record.init_from,
        "checkpoints": dataclasses.asdict(record.checkpoints) if record.checkpoints else None,
        **environment,
    }


def read_config(path: Path) -> Record:
    """Reads what `write_config` wrote into the run folder `path`, or a file of its own.

    Raises:
        RequestError: the folder holds no run.
        DataError: its `config.json` is damaged.
    """
    return parse_config(read_config_text(path), path)


def read_config_text(path: Path) -> str:
    """The content of `config.json` in the run folder `path`, or of a file of its own.

    Raises:
        RequestError: the folder holds no run.
        DataError: it cannot be read.
    """
    file = path / CONFIG if path.is_dir() else path
    try:
        return read(file).decode()
    except FileNotFoundError as error:
        if not path.is_dir():
            raise RequestError(f"{path}: there is no such file or folder.") from error
        raise RequestError(f"{path}: is no run folder: it has no {CONFIG}.") from error
    except UnicodeDecodeError as error:
        raise DataError(f"{file}: damaged ({error}).") from error


def parse_config(text: str, path: Path) -> Record:
    """What the content of `config.json` says of the run at `path`.

    Raises:
        DataError: it is damaged, or a newer version of this program wrote it.
    """
    return parse_content(text, path / CONFIG if path.is_dir() else path)


def parse_content(text: str, file: Path) -> Record:
    """As `parse_config`, of a file that has what `content_of` gives, whatever it has besides."""
    content = None
    try:
        content = json.loads(text)
        return _record(content)
    except (ValueError, KeyError, TypeError, RecursionError, RequestError) as error:
        if reason := _newer(content):
            raise DataError(f"{file}: a newer flax-mnist wrote it ({reason}). Upgrade.") from error
        raise DataError(f"{file}: damaged ({error!r}).") from error


def _newer(content: Any) -> str | None:
    """By what the content of a `config.json` shows that a newer version wrote it."""
    with contextlib.suppress(AttributeError, KeyError, TypeError):
        unknown = content["config"].keys() - {field.name for field in dataclasses.fields(Config)}
        if unknown:
            return f"its setting {min(unknown)!r:.40} is unknown here"
    with contextlib.suppress(KeyError, TypeError, ValueError):
        written = content["environment"]["versions"]["flax-mnist"]
        if _numbers(written) > _numbers(__version__):
            return f"{written:.40}; this is {__version__}"
    return None


def _numbers(version: str) -> list[int]:
    """The numbers in a version, by which it is older or newer."""
    return [int(number) for number in re.findall(r"\d+", version)]


def _record(content: Any) -> Record:
    dataset, kept = content["dataset"], content["checkpoints"]
    if dataset["name"] not in get_args(DatasetName):
        raise ValueError(f"{dataset['name']!r:.40} is no dataset")
    class_names = tuple(_typed(name, str) for name in dataset["class_names"])
    if len(class_names) != CLASSES:
        raise ValueError(f"{len(class_names)} class names")
    return Record(
        Config(**content["config"]),
        dataset["name"],
        _typed(dataset["source"], str),
        Path(_typed(dataset["data_dir"], str)) if dataset["data_dir"] else None,
        class_names,
        CheckpointPolicy(_typed(kept["every"], str), _typed(kept["keep"], int)) if kept else None,
        _typed(content["topology"]["devices"], int) if "topology" in content else None,
        _typed(dataset["form"], str) if dataset.get("form") else None,
        _texts(dataset["sha256"]) if dataset.get("sha256") else None,
        _first_weights(content["init_from"]) if content.get("init_from") else None,
    )


def _texts(content: Any) -> dict[str, str]:
    return {name: _typed(text, str) for name, text in _typed(content, dict).items()}


def _first_weights(content: Any) -> dict[str, str]:
    return {name: _texts(content)[name] for name in ("path", "sha256")}


def _typed(value: Any, kind: type[Kind]) -> Kind:
    if type(value) is not kind:
        raise TypeError(f"{value!r:.40} is no {kind.__name__}")
    return value


def read_environment(path: Path) -> dict[str, Any]:
    """What `config.json` in the run folder `path` says of versions, device and command.

    Raises:
        DataError: it keeps none.
    """
    try:
        return _typed(json.loads(read_config_text(path))["environment"], dict)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise DataError(f"{path / CONFIG}: damaged: it has no environment.") from error
