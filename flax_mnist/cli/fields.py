"""What the fields of a subcommand's dataclass say of themselves, whoever makes flags of them."""

import dataclasses
import re
import typing
from collections.abc import Iterator
from pathlib import Path
from typing import Annotated, Any, Literal, NamedTuple

import docstring_parser
import tyro

#: What people type besides a flag's own name.
ALIASES: dict[str, tuple[str, ...]] = {
    "epochs": ("-e",),
    "batch_size": ("-b", "--bs"),
    "batch_sizes": ("-b", "--bs", "--batch-size"),
    "learning_rate": ("--lr",),
    "learning_rates": ("--lr",),
    "output": ("-o",),
}
#: Flags whose fields had to be called otherwise.
NAMES = {"like": "config"}


class Field(NamedTuple):
    """A field of a dataclass."""

    name: str
    kind: Any  #: Its type, without what is annotated.
    notes: tuple[Any, ...]  #: What is annotated.
    default: Any  #: `tyro.MISSING` where it must be given.
    help: str  #: A paragraph a line.

    @property
    def flags(self) -> list[str]:
        """The words that name it on a command line."""
        name = NAMES.get(self.name, self.name).replace("_", "-")
        is_pair = self.kind is bool and tyro.conf.FlagCreatePairsOff not in self.notes
        return [*ALIASES.get(self.name, ()), f"--{name}", *([f"--no-{name}"] if is_pair else [])]

    @property
    def is_positional(self) -> bool:
        """Whether it is given without a flag."""
        return tyro.conf.Positional in self.notes

    @property
    def is_path(self) -> bool:
        """Whether it names files."""
        return Path in _leaves(self.kind)

    @property
    def is_many(self) -> bool:
        """Whether several words may follow the flag."""
        return typing.get_origin(self.kind) is tuple

    @property
    def choices(self) -> list[str]:
        """The words that it is one, or some, of; none where it may be anything."""
        literals = (leaf for leaf in _leaves(self.kind) if typing.get_origin(leaf) is Literal)
        return [str(choice) for literal in literals for choice in typing.get_args(literal)]


def fields_of(owner: type, instance: Any = None) -> list[Field]:
    """Those that a dataclass has, with the values of an instance, or else their own defaults."""
    kinds, helps = typing.get_type_hints(owner, include_extras=True), _helps(owner)
    fields = []
    for field in dataclasses.fields(owner):
        kind, *notes = _parts(kinds[field.name])
        default = getattr(instance, field.name) if isinstance(instance, owner) else _default(field)
        fields.append(Field(field.name, kind, tuple(notes), default, helps.get(field.name, "")))
    return fields


def all_fields_of(owner: type) -> Iterator[Field]:
    """Those of a dataclass and of the dataclasses in it that a command line may set."""
    for field in fields_of(owner):
        if isinstance(field.kind, type) and dataclasses.is_dataclass(field.kind):
            yield from all_fields_of(field.kind)
        elif tyro.conf.Suppress not in field.notes:
            yield field


def _parts(kind: Any) -> tuple[Any, ...]:
    return typing.get_args(kind) if typing.get_origin(kind) is Annotated else (kind,)


def _default(field: dataclasses.Field[Any]) -> Any:
    if field.default_factory is not dataclasses.MISSING:
        return field.default_factory()
    return tyro.MISSING if field.default is dataclasses.MISSING else field.default


def _helps(owner: type) -> dict[str, str]:
    """The docstrings below the fields; a line ends in the source where it is full, not in help."""
    helps: dict[str, str] = {}
    for base in reversed(owner.__mro__[:-1]):
        for field in docstring_parser.parse_from_object(base).params:
            helps[field.arg_name] = re.sub(r"(?<!\n)\n\s*(?!\n)", " ", field.description or "")
    return helps


def _leaves(kind: Any) -> Iterator[Any]:
    if typing.get_origin(kind) in (None, Literal):
        yield kind
    else:
        for part in typing.get_args(kind):
            yield from _leaves(part)
