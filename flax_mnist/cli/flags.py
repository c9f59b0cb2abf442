"""Flags that several subcommands have."""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from flax_mnist.cli.fields import ALIASES, fields_of
from flax_mnist.config import Config, DatasetName
from flax_mnist.data import default_dir
from flax_mnist.devices.peers import Peers
from flax_mnist.errors import RequestError
from flax_mnist.show import terminal
from flax_mnist.store import run_folder

if TYPE_CHECKING:
    import jax


def by_default(metavar: str, default: str) -> Any:
    """A flag whose help says in words what it is by default: the field itself is None then."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint=f"(default: {default})")


def optional(metavar: str) -> Any:
    """A flag that is None where it is not given, which its help need not say."""
    return tyro.conf.arg(metavar=metavar, help_behavior_hint="")


PATHS = tyro.constructors.ConstructorRegistry()  #: How words become paths.


@PATHS.primitive_rule
def _path(
    type_info: tyro.constructors.PrimitiveTypeInfo,
) -> tyro.constructors.PrimitiveConstructorSpec[Path] | None:
    if type_info.type is not Path:
        return None
    return tyro.constructors.PrimitiveConstructorSpec(
        nargs=1,
        metavar="PATH",
        # No shell does it behind a `=`. A home that nobody has is a name.
        instance_from_str=lambda words: Path(os.path.expanduser(words[0])),
        is_instance=lambda value: isinstance(value, Path),
        str_from_instance=lambda path: [str(path)],
    )


@PATHS.struct_rule
def _dataclass(
    type_info: tyro.constructors.StructTypeInfo,
) -> tyro.constructors.StructConstructorSpec | None:
    cls = type_info.type
    if not dataclasses.is_dataclass(cls) or hasattr(cls, "__parameters__"):  # one of tyro's own
        return None
    fields = []
    for name, kind, notes, default, help_ in fields_of(cls, type_info.default):
        if name in ALIASES:
            notes = (*notes, tyro.conf.arg(aliases=ALIASES[name]))
        for note in notes:
            kind = Annotated[kind, note]
        fields.append(tyro.constructors.StructFieldSpec(name, kind, default, help_ or None))
    return tyro.constructors.StructConstructorSpec(cls, tuple(fields))


_LOOK = (tyro.conf.OmitArgPrefixes, tyro.conf.DisallowNone)


def parse(
    command: Any,
    prog: str,
    argv: Sequence[str],
    description: str = "",
    default: Any = tyro.MISSING_NONPROP,
) -> Any:
    """The dataclass `command`, or the one of a union that is named, as a command line fills it in.

    Raises:
        SystemExit: code 0 where help was asked for and given, 2 where a flag is wrong.
        RequestError: a value is out of its range.
    """
    return tyro.cli(
        command,
        prog=prog,
        description=description,
        args=argv,
        default=default,
        config=_LOOK,
        registry=PATHS,
    )


#: A flag without a --no- of its own: nothing but the command line could switch it on.
Switch = Annotated[bool, tyro.conf.FlagCreatePairsOff]
DATASETS = "{" + ",".join(get_args(DatasetName)) + "}"
#: Trained weights.
RunOrFile = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR|FILE")]
OptionalDir = Annotated[Path | None, optional("DIR")]  #: A folder, or none.
#: Images.
DataDir = Annotated[
    Path | None, by_default("DIR|FILE", f"${default_dir.VARIABLE}, or tensorflow-datasets' own")
]
#: Images, where the run says which.
RunDataDir = Annotated[Path | None, by_default("DIR|FILE", "the run's, or as for train")]
#: Their name, where the run says which.
RunDataset = Annotated[DatasetName | None, by_default(DATASETS, "the run's; for a file, auto")]


def run_of(path: Path) -> Path:
    """The run, or the file, that is named; of a sweep its best member, which is said."""
    best = run_folder.best_of_sweep(path)
    if best is None:
        return path
    terminal.complain(f"{path} is a sweep: taking its best member, {best}.")
    return best


@dataclasses.dataclass(frozen=True)
class Settings(Config):
    """A config whose help says what a setting is that is not given."""

    weight_decay: Annotated[float | None, by_default("FLOAT", "0.01 with adamw")] = None
    """Of adamw alone: each step shrinks all weights by it times the rate."""


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where it runs."""

    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Device to run on; auto is JAX's choice: TPU, else GPU, else CPU."""
    no_compilation_cache: Switch = False
    """Do not keep compiled programs in the user's cache folder for the next start."""
    debug: Switch = False
    """Show the traceback of an error."""

    def start(self, config: Config) -> jax.Device:
        """Makes JAX's settings, and returns the device that everything runs on."""
        from flax_mnist.devices import runtime

        return runtime.start(self.device, config, not self.no_compilation_cache)


@dataclasses.dataclass(frozen=True)
class Devices:
    """Devices and processes that share each batch."""

    num_devices: Annotated[int | None, by_default("N", "all accelerators; one CPU")] = None
    """Devices of each process to train on."""
    coordinator: Annotated[str | None, optional("ADDRESS:PORT")] = None
    """Where process 0 listens for the others, if several processes train together."""
    num_processes: Annotated[int | None, optional("N")] = None
    """How many they are."""
    process_id: Annotated[int | None, optional("I")] = None
    """Which of them this is, from 0."""
    distributed: Literal["off", "auto"] = "off"
    """auto has JAX find these three out: from Slurm, Open MPI, Kubernetes or Cloud TPU."""
    peer_timeout: Annotated[int, tyro.conf.arg(metavar="SECONDS")] = Peers.timeout
    """How long to wait for a process that does not answer, before all end; twice at the start and
    while images are loaded."""

    def __post_init__(self) -> None:
        if self.num_devices is not None and self.num_devices < 1:
            raise RequestError(f"num-devices is {self.num_devices}; it must be at least 1.")
        _ = self.peers  # refuses what are none

    @property
    def peers(self) -> Peers | None:
        """The processes that train together; None where this one is alone."""
        told = (self.coordinator, self.num_processes, self.process_id)
        if self.distributed == "auto" and told != (None, None, None):
            raise RequestError("--distributed auto finds out the other flags: give it alone.")
        peers = Peers(*told, timeout=self.peer_timeout)
        is_alone = self.distributed == "off" and self.coordinator is None
        return None if is_alone else peers
