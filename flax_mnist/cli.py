"""The command line. Each subcommand is a dataclass of its flags and a few lines that call the rest.

jax and all that needs it are imported where they are used, so that help and refusals are quick.
"""

from __future__ import annotations

import contextlib
import dataclasses
import io
import math
import os
import re
import signal
import sys
import time
import traceback
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, NamedTuple, NoReturn, get_args

import tyro

from flax_mnist import __version__, terminal
from flax_mnist.config import Config, DatasetName
from flax_mnist.errors import FlaxMnistError, RequestError

if TYPE_CHECKING:
    import jax
    import numpy as np
    from numpy.typing import NDArray

    from flax_mnist.data import Dataset
    from flax_mnist.interop import StateDict
    from flax_mnist.model import MLP, Params
    from flax_mnist.run_dir import Record

    Picture = tuple[str, NDArray[np.uint8], str | None]  # title, image, class if known


def _dir(default: str) -> Any:
    return tyro.conf.arg(metavar="DIR", help_behavior_hint=f"(default: {default})")


DATASETS = "{" + ",".join(get_args(DatasetName)) + "}"
Trained = Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="RUN_DIR|FILE.safetensors")]
DataDir = Annotated[Path | None, _dir("tensorflow-datasets' own")]
RunDataDir = Annotated[Path | None, _dir("the run's")]
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


@dataclasses.dataclass(frozen=True)
class Train:
    """Train the network and keep it in a run folder."""

    config: Config = dataclasses.field(default_factory=Config)
    dataset: DatasetName = "auto"
    """Images to train on; auto is mnist where it can be had, otherwise synthetic."""
    data_dir: DataDir = None
    """Folder with the four IDX files, gzipped or not, or a tensorflow-datasets folder."""
    run_dir: Annotated[Path | None, _dir("runs/<dataset>-<timestamp>")] = None
    """Folder to write to."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Trains, with a line for each epoch."""
        from flax_mnist import interop, run_dir, train
        from flax_mnist.data import load_dataset

        config = self.config
        device = _start(self.machine, config)
        with terminal.warnings_at_both_ends():
            dataset = load_dataset(self.dataset, self.data_dir)
            state = train.init_state(config)
            path = run_dir.create(self.run_dir, dataset.name)
            record = run_dir.Record(
                config, dataset.name, dataset.source, self.data_dir, dataset.class_names
            )
            run_dir.write_config(path, record, device)
            terminal.say(terminal.header(config, dataset, state.params, device))
            start = time.perf_counter()
            run_epoch = train.compile_epoch(config, state, dataset.train)
            terminal.say(f"Compiled in {time.perf_counter() - start:.2f} s")
            with terminal.progress_bar(config.epochs) as advance:
                for current, metrics in train.fit(config, dataset, state, run_epoch):
                    run_dir.append_metrics(path, metrics, dataset.name)
                    interop.save_weights(path / run_dir.WEIGHTS, current.params)
                    terminal.say(terminal.epoch_line(metrics, config.epochs))
                    advance()
            terminal.say(f"Saved in {path}")


@dataclasses.dataclass(frozen=True)
class Evaluate:
    """Score trained weights on the test images."""

    weights: Trained
    """Run folder, or safetensors file with PyTorch's names."""
    dataset: RunDataset = None
    """Images to score on."""
    data_dir: RunDataDir = None
    """Folder with the images, as for train."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Prints test loss and accuracy."""
        from flax_mnist.evaluation import evaluate

        with terminal.warnings_at_both_ends():
            trained = _load(self)
            dataset = _load_test_data(self, trained.record)
            score = evaluate(trained.params, *dataset.test, model=trained.model)
            loss = float(score.loss)
            if not math.isfinite(loss):
                raise FlaxMnistError(f"{self.weights}: its test loss is {loss}; it did not learn.")
            terminal.say(terminal.score(dataset, loss, float(score.accuracy)))


@dataclasses.dataclass(frozen=True)
class Predict:
    """Show the class probabilities of pictures or test images."""

    weights: Trained
    """Run folder, or safetensors file with PyTorch's names."""
    images: Annotated[tuple[Path, ...], tyro.conf.Positional, tyro.conf.arg(metavar="IMAGE")] = ()
    """Picture files, a digit each. 28x28 is taken as it is; any other size is centred and scaled
    as MNIST's digits are. Dark ink on a bright ground is inverted."""
    index: tuple[int, ...] = ()
    """Test images, counted from 0."""
    dataset: RunDataset = None
    """Whose test images."""
    data_dir: RunDataDir = None
    """Folder with the images, as for train."""
    output: Annotated[Path | None, tyro.conf.arg(metavar="PICTURE.png")] = None
    """Draw the images beside their charts into this file; the ending decides the format."""
    json: bool = False
    """Print one JSON object a picture instead of a chart."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Prints ten probabilities for each picture."""
        if not self.images and not self.index:
            raise RequestError(
                "predict needs picture files, or --index with numbers of test images."
            )
        import numpy as np

        from flax_mnist.data import DIGITS
        from flax_mnist.evaluation import predict
        from flax_mnist.images import read_image
        from flax_mnist.prediction import Prediction

        with terminal.warnings_at_both_ends():
            trained = _load(self)
            pictures: list[Picture] = [(str(path), read_image(path), None) for path in self.images]
            names = trained.record.class_names if trained.record else DIGITS
            if self.index:
                dataset = _load_test_data(self, trained.record)
                names = dataset.class_names
                pictures += [_test_picture(dataset, i) for i in self.index]
            images = np.stack([image for _, image, _ in pictures])
            rows = np.asarray(predict(trained.params, images, model=trained.model)).tolist()
            predictions = [
                Prediction(*picture, names, row)
                for picture, row in zip(pictures, rows, strict=True)
            ]
            show = terminal.prediction_json if self.json else terminal.prediction_chart
            for prediction in predictions:
                terminal.say(show(prediction))
            if self.output:
                from flax_mnist import plots

                plots.save(plots.draw_predictions(predictions), self.output)


@dataclasses.dataclass(frozen=True)
class Export:
    """Write the weights of a run for other programs."""

    weights: Trained
    """Run folder, or safetensors file with PyTorch's names."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File to write."""
    format: Literal["safetensors"] = "safetensors"
    """safetensors has the names and layouts that the tutorial's nn.Sequential loads."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Writes the file."""
        from flax_mnist import interop

        interop.save_weights(self.output, _load(self).params)
        terminal.say(f"Written to {self.output}")


@dataclasses.dataclass(frozen=True)
class Import:
    """Make a run folder from weights that PyTorch trained."""

    file: Annotated[Path, tyro.conf.Positional, tyro.conf.arg(metavar="FILE.safetensors|FILE.pt")]
    """State dict of the tutorial's nn.Sequential, of any hidden sizes."""
    run_dir: Annotated[Path, tyro.conf.arg(metavar="DIR")]
    """Folder to make."""
    dataset: DatasetName = "mnist"
    """What they were trained on: what evaluate and predict will look for."""
    data_dir: DataDir = None
    """Folder with those images, as for train."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        """Makes the folder."""
        from flax_mnist import interop, run_dir
        from flax_mnist.data import class_names, require_folder

        weights = interop.load_weights(self.file)
        if self.data_dir is not None:
            require_folder(self.data_dir)
        config = _config_of(weights)
        device = _start(self.machine, config)
        path = run_dir.create(self.run_dir, self.dataset)
        interop.save_weights(path / run_dir.WEIGHTS, interop.from_torch_state_dict(weights))
        record = run_dir.Record(
            config,
            self.dataset,
            f"weights of {self.file}",
            self.data_dir,
            class_names(self.dataset),
        )
        run_dir.write_config(path, record, device, known=("hidden_sizes", "precision"))
        terminal.say(f"Imported into {path}")


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Show versions, devices, the data that is found, and what is missing."""

    def run(self) -> None:
        """Prints a line for each thing."""
        from flax_mnist.doctor import diagnose

        for name, value in diagnose():
            terminal.say(f"{name:<20} {value}")


Command = Train | Evaluate | Predict | Export | Import | Doctor


def main(argv: Sequence[str] | None = None) -> int:
    """Runs a command line (by default that of the process) and returns its exit code."""
    if argv is None:
        argv = sys.argv[1:]
        for signum in (signal.SIGINT, signal.SIGTERM):
            signal.signal(signum, _stop)
        terminal.never_fail_to_encode()
    try:
        command = _parse(argv)
        if command is not None:
            command.run()
        sys.stdout.flush()
    except Exception as error:
        if "--debug" in argv:
            traceback.print_exc()
        return _explain(error)
    return 0


def _stop(signum: int, _: object) -> NoReturn:
    """Ends the process at once, whatever its threads do: every file is whole at any moment.

    An exception instead could be swallowed, by a garbage collector's callback for one.
    """
    word = {signal.SIGINT: "interrupted", signal.SIGTERM: "terminated"}[signal.Signals(signum)]
    terminal.leave(f"flax-mnist: {word}")
    os._exit(128 + signum)


def _explain(error: Exception) -> int:
    """Says in a line or two what went wrong, and returns the exit code for it."""
    code, reason = 1, str(error)
    if isinstance(error, BrokenPipeError):
        terminal.silence()
        return 1
    if isinstance(error, FlaxMnistError):
        code = error.exit_code
    elif isinstance(error, OSError):
        where = f"{error.filename}: " if error.filename else ""
        reason = f"{where}{error.strerror or error}"
    elif isinstance(error, MemoryError) or "RESOURCE_EXHAUSTED" in reason:
        reason = "out of memory. Try smaller --hidden-sizes or a smaller --batch-size."
    else:
        raise error
    terminal.complain(f"flax-mnist: {reason}")
    return code


# ---- Flags ----------------------------------------------------------------------------------


def _parse(argv: Sequence[str]) -> Command | None:
    """The command; None if help was asked for and given."""
    if list(argv) == ["--version"]:
        terminal.say(f"flax-mnist {__version__}")
        return None
    panel = io.StringIO()
    try:
        with contextlib.redirect_stderr(panel):
            command: Command = tyro.cli(
                Command,
                prog="flax-mnist",
                description="The PyTorch MNIST tutorial in JAX. --version prints the version.",
                args=argv,
                config=(tyro.conf.OmitArgPrefixes, tyro.conf.FlagCreatePairsOff),
            )
    except SystemExit as stop:
        if stop.code:
            raise RequestError(_one_line(panel.getvalue())) from None
        return None
    return command


def _one_line(panel: str) -> str:
    """tyro's error panel without its frame: what is wrong, what may be meant, where to look."""
    text = re.sub(r"\x1b\[[\d;]*m", "", panel)
    # Where the terminal has no UTF-8 there is no box, and the title is a row with a rule below.
    boxed = text.startswith("╭")
    rows = [row.strip("│ ") for row in text.splitlines() if row[:1] not in ("╭", "╰")]
    parts = [" ".join(part.split()) for part in re.split(r"\n[─-]{9,}\n", "\n".join(rows))]
    parts = parts if boxed else parts[1:]
    said = [part if part.endswith(".") else f"{part}." for part in parts if part]
    return "\n".join([" ".join(said[:-1]), said[-1]]) if len(said) > 1 else " ".join(said)


def _start(machine: Machine, config: Config) -> jax.Device:
    from flax_mnist import runtime

    return runtime.start(machine.device, config.precision, not machine.no_compilation_cache)


# ---- Trained weights -------------------------------------------------------------------------


class _Trained(NamedTuple):
    model: MLP
    params: Params
    record: Record | None


def _load(command: Evaluate | Predict | Export) -> _Trained:
    """The weights of a run folder or a file, and the images they are meant for."""
    from flax_mnist import interop, run_dir
    from flax_mnist.model import make_model

    path = command.weights
    if path.is_dir():
        record = run_dir.read_config(path)
        weights = interop.load_weights(path / run_dir.WEIGHTS)
        config = dataclasses.replace(record.config, hidden_sizes=interop.hidden_sizes(weights))
    else:
        record = None
        weights = interop.load_weights(path)
        config = _config_of(weights)
    _start(command.machine, config)
    params = interop.from_torch_state_dict(weights)
    return _Trained(make_model(config), params, record)


def _config_of(weights: StateDict) -> Config:
    """What the weights alone tell."""
    from flax_mnist.interop import hidden_sizes

    wide = weights["0.bias"].dtype == "float64"
    return Config(hidden_sizes=hidden_sizes(weights), precision="float64" if wide else "float32")


def _load_test_data(command: Evaluate | Predict, record: Record | None) -> Dataset:
    from flax_mnist.data import load_dataset

    name, data_dir = command.dataset, command.data_dir
    if record is not None and name in (None, record.dataset):
        name, data_dir = record.dataset, data_dir or record.data_dir
    return load_dataset(name or "auto", data_dir)


def _test_picture(dataset: Dataset, index: int) -> Picture:
    images, labels = dataset.test
    if not 0 <= index < len(labels):
        raise RequestError(f"index is {index}; the test images are 0 to {len(labels) - 1}.")
    return f"{dataset.name} test image {index}", images[index], dataset.class_names[labels[index]]
