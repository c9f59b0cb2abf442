"""`flax-mnist export`."""

import dataclasses
from pathlib import Path
from typing import Annotated, Literal, get_args

import tyro

from flax_mnist.cli.flags import Machine, RunOrFile, by_default, run_of
from flax_mnist.errors import RequestError
from flax_mnist.show import terminal

Form = Literal["safetensors", "torch", "stablehlo"]  #: What is written.
FORMS = "{" + ",".join(get_args(Form)) + "}"  #: The same, as help shows it.
#: What a file of such a name holds.
SUFFIXES: dict[str, Form] = {
    "": "safetensors", ".safetensors": "safetensors", ".pt": "torch", ".pth": "torch",
    ".stablehlo": "stablehlo",
}  # fmt: skip


@dataclasses.dataclass(frozen=True)
class Export:
    """Write a trained network for other programs.

    Examples::

        flax-mnist export runs/a --output weights.safetensors
        flax-mnist export runs/a --output weights.pt
        flax-mnist export runs/a --output digits.stablehlo
    """

    weights: RunOrFile
    """Run folder, or a file of weights that import takes."""
    output: Annotated[Path, tyro.conf.arg(metavar="FILE")]
    """File to write. What it will hold is read back and compared with the network before."""
    format: Annotated[Form | None, by_default(FORMS, "as FILE ends; safetensors")] = None
    """safetensors: the weights, as the tutorial's nn.Sequential loads them.
    torch: the same as a .pt file, written by PyTorch.
    stablehlo: images to probabilities in one program, for JAX alone on CPU, NVIDIA GPU or TPU."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        import jax

        from flax_mnist.files import write_atomically
        from flax_mnist.runs.trained import load
        from flax_mnist.store import stablehlo, torch_files, weights

        form = self._form()
        with terminal.warnings_at_both_ends():
            trained = load(run_of(self.weights), self.machine.start)
        said = f"Written to {self.output}"
        if form == "stablehlo":
            content = stablehlo.to_stablehlo(trained.params, trained.model)
            said += f". This calls it, with flatbuffers and jax {jax.__version__} or newer alone:\n"
            said += stablehlo.caller(self.output)
        elif form == "torch":
            content = torch_files.to_torch(weights.to_torch_state_dict(trained.params))
        else:
            content = weights.to_safetensors(trained.params)
        write_atomically(self.output, content)
        terminal.say(said)

    def _form(self) -> Form:
        """What is asked for, by --format or by how the file's name ends."""
        suffix = self.output.suffix.lower()
        by_name = SUFFIXES.get(suffix)
        if self.format and by_name not in (None, self.format):
            raise RequestError(
                f"{self.output}: a {suffix} file is not what --format {self.format} writes. "
                "Leave one of them out."
            )
        form = self.format or by_name
        if form is None:
            raise RequestError(
                f"{self.output}: there is no export to {suffix}. Let it end in "
                f"{', '.join(filter(None, SUFFIXES))}, or choose a --format."
            )
        return form
