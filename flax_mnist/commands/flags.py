"""Flags that several subcommands have."""

from __future__ import annotations

import dataclasses
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from flax_mnist.config import Config, DatasetName

if TYPE_CHECKING:
    import jax


def directory(default: str) -> Any:
    """A folder that has a default which is no path."""
    return tyro.conf.arg(metavar="DIR", help_behavior_hint=f"(default: {default})")


DATASETS = "{" + ",".join(get_args(DatasetName)) + "}"
Trained = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR|FILE.safetensors")]
DataDir = Annotated[Path | None, directory("tensorflow-datasets' own")]
RunDataDir = Annotated[Path | None, directory("the run's")]
RunDataset = Annotated[
    DatasetName | None,
    tyro.conf.arg(metavar=DATASETS, help_behavior_hint="(default: the run's; for a file, auto)"),
]


@dataclasses.dataclass(frozen=True)
class Machine:
    """Where it runs."""

    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Device to run on; auto is JAX's choice: TPU, else GPU, else CPU."""
    no_compilation_cache: bool = False
    """Do not keep compiled programs in the user's cache folder for the next start."""
    debug: bool = False
    """Show the traceback of an error."""

    def start(self, config: Config) -> jax.Device:
        """Makes JAX's settings, and returns the device that everything runs on."""
        from flax_mnist import runtime

        return runtime.start(self.device, config.precision, not self.no_compilation_cache)
