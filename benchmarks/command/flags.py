"""The flags of `python -m benchmarks`."""

import dataclasses
import math
from pathlib import Path
from typing import Annotated, Literal

import tyro

from benchmarks.harness.program import Settings
from benchmarks.rows import ROWS, Row, named
from flax_mnist.cli.flags import DATASETS, OptionalDir, Switch, by_default, optional
from flax_mnist.config import Config, DatasetName, Precision
from flax_mnist.data import default_dir
from flax_mnist.errors import RequestError

MINUTES = {"quick": 3.0, "full": 30.0, "rows": 30.0}  #: Unless `--minutes` says otherwise.


@dataclasses.dataclass(frozen=True)
class Flags:
    """What a benchmark measures, and how long it may take."""

    quick: Switch = False
    """The main rows only, in three minutes."""
    rows: Annotated[tuple[str, ...], tyro.conf.arg(metavar="NAME")] = ()
    """Only these rows, J2 and g1 for two."""
    minutes: Annotated[float | None, by_default("N", "3 with --quick, else 30")] = None
    """How long it may take. Turns are planned to fit; rows that do not fit are left out."""
    resume: Annotated[Path | None, optional("FILE")] = None
    """Go on with a result that is partial, as its own flags said."""
    output: Annotated[
        Path | None, by_default("DIR", "benchmarks/results; runs/benchmarks for less than all")
    ] = None
    """Folder for the results, which overwrite none that are there."""
    summary: Switch = False
    """Print one line for scripts in place of the table."""
    dataset: Annotated[
        DatasetName | None, by_default(DATASETS, "mnist with --data-dir, else synthetic")
    ] = None
    """Images to train on."""
    data_dir: Annotated[
        OptionalDir, by_default("DIR|FILE", f"${default_dir.VARIABLE}; without, synthetic")
    ] = None
    """Where they are."""
    device: Literal["auto", "cpu", "gpu", "tpu"] = "auto"
    """Device to run on; auto is JAX's choice."""
    threads: Annotated[int | None, by_default("N", "all cores")] = None
    """Cores that every row may use at most."""
    models: int = Settings.models
    """Networks that J4 and P8 train at once."""
    batch_size: int = Config.batch_size
    """Images a step."""
    hidden_sizes: tuple[int, ...] = Config.hidden_sizes
    """Units of each hidden layer."""
    epochs: int = Config.epochs
    """Epochs after which the weights are judged."""
    momentum: float = Config.momentum
    """Momentum of SGD; rows that have none are skipped."""
    precision: Precision = Config.precision
    """Number format; rows that lack it are skipped."""

    def __post_init__(self) -> None:
        _ = self.config, self.wanted  # refuse what is out of range
        if self.models < 1:
            raise RequestError(f"models is {self.models}; it must be at least 1.")
        if self.minutes is not None and not 0 < self.minutes < math.inf:
            raise RequestError(f"minutes is {self.minutes:g}; it must be above 0.")
        if self.quick and self.rows:
            raise RequestError("--quick chooses the rows, and so does --rows: give one of them.")

    @property
    def config(self) -> Config:
        """What each network is, and how it is trained."""
        return Config(
            epochs=self.epochs,
            batch_size=self.batch_size,
            hidden_sizes=self.hidden_sizes,
            momentum=self.momentum,
            precision=self.precision,
        )

    @property
    def kind(self) -> str:
        """How much of the table is asked for: full, quick, or rows."""
        return "quick" if self.quick else "rows" if self.rows else "full"

    @property
    def wanted(self) -> tuple[Row, ...]:
        """The rows that are asked for, in the order of the table."""
        return named(self.rows) if self.rows else ROWS

    @property
    def seconds(self) -> float:
        """How long it may take."""
        return 60 * (MINUTES[self.kind] if self.minutes is None else self.minutes)

    def settings(self) -> Settings:
        """What all rows have in common; `device` may still be auto."""
        data_dir = self.data_dir or default_dir.named()
        found = str(data_dir.expanduser().resolve()) if data_dir else None
        dataset = self.dataset or ("mnist" if found else "synthetic")
        return Settings(
            config=self.config,
            dataset=dataset,
            data_dir=None if dataset == "synthetic" else found,
            device=self.device,  # type: ignore[arg-type]  # until the machine was looked at
            models=self.models,
            threads=self.threads,
        )
