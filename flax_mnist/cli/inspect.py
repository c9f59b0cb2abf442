"""`flax-mnist inspect`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Annotated, Any, Literal, get_args

import tyro

from flax_mnist.cli.flags import Machine, Settings, Switch, optional
from flax_mnist.config import Config, Init
from flax_mnist.errors import RequestError
from flax_mnist.show import terminal, text

if TYPE_CHECKING:
    from flax_mnist.programs.estimate import Estimate
    from flax_mnist.programs.inspection import Step

Section = Literal["layers", "jaxpr", "products", "cost"]  #: Parts of what is printed.
#: Kinds of machines, which a shell completes; a size may follow.
Target = Literal["tpu-v5e", "tpu-v5p", "tpu-v6e", "a100", "h100", "h200", "b200"]
#: As the help has them.
TARGET = f"{{{','.join(get_args(Target))}}}[:SIZE]"


@dataclasses.dataclass(frozen=True)
class OfAStep(Settings):
    """The network and the step."""

    epochs: tyro.conf.Suppress[tyro.conf.Fixed[int]] = Config.epochs
    learning_rate: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.learning_rate
    init: tyro.conf.Suppress[tyro.conf.Fixed[Init]] = Config.init
    seed: tyro.conf.Suppress[tyro.conf.Fixed[int]] = Config.seed
    validation: tyro.conf.Suppress[tyro.conf.Fixed[int]] = Config.validation
    patience: tyro.conf.Suppress[tyro.conf.Fixed[int]] = Config.patience
    until_accuracy: tyro.conf.Suppress[tyro.conf.Fixed[float]] = Config.until_accuracy


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Show what a training step becomes: layers, jaxpr, matrix products, cost.

    Or, with --target, its operations on a TPU or GPU that need not be there.

    Examples::

        flax-mnist inspect --sections products cost --batch-size 256
        flax-mnist inspect --sections cost --precision bfloat16 --json
        flax-mnist inspect --target tpu-v5e:2x2
    """

    config: OfAStep = dataclasses.field(default_factory=OfAStep)
    sections: tuple[Section, ...] = get_args(Section)
    """What to show; a target has its operations and their cost."""
    target: Annotated[Target | str | None, optional(TARGET)] = None
    """Machine to compile for instead, without running anything: tpu-v5e is a chip, tpu-v5e:4x4 a
    slice of 16, h100:8 eight GPUs."""
    members: Annotated[int | None, optional("N")] = None
    """Of a sweep on the target: so many networks trained at once."""
    json: Switch = False
    """Print one JSON object a layer, product, operation and figure, each with its section."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def __post_init__(self) -> None:
        if self.members is not None and self.target is None:
            raise RequestError("members: a sweep is inspected with --target.")
        if self.members is not None and self.members < 1:
            raise RequestError(f"members is {self.members}; it must be at least 1.")
        if self.target is not None and self.machine.device not in ("auto", "cpu"):
            raise RequestError(f"device {self.machine.device}: nothing runs with --target.")

    def run(self) -> None:
        if self.target is not None:
            self._inspect_target(self.target)
            return
        from flax_mnist.programs.inspection import Step

        self.machine.start(self.config)
        step = Step(self.config)
        for section in get_args(Section):
            if section not in self.sections:
                continue
            if self.json:
                for row in _objects(step, section):
                    terminal.say(json.dumps({"section": section, **row}))
            else:
                title = _TITLES[section].format(batch=f"{self.config.batch_size:,}")
                terminal.say(f"{title}\n{'=' * len(title)}\n")
                terminal.say(_text(step, section))

    def _inspect_target(self, target: str) -> None:
        from flax_mnist.devices import runtime
        from flax_mnist.programs.estimate import estimate

        # An accelerator that is there is left to others, and what is kept compiled says no times.
        runtime.start("cpu", self.config, compilation_cache=False)
        found = estimate(self.config, target, self.members)
        if not self.json:
            terminal.say(_target_text(found))
            return
        for operation in found.operations:
            terminal.say(json.dumps({"section": "operations", **operation._asdict()}))
        for what, value in found.figures:
            terminal.say(json.dumps({"section": "cost", "figure": what.strip(), "value": value}))


_TITLES: dict[Section, str] = {
    "layers": "The layers, for a batch of {batch}",
    "jaxpr": "The jaxpr: train_step as JAX traces it",
    "products": "The matrix products of the optimised HLO, in its order",
    "cost": "What a step costs",
}


def _text(step: Step, section: Section) -> str:
    from flax_mnist.programs import inspection

    if section == "layers":
        return inspection.tabulate(step.config) + "\n"
    if section == "jaxpr":
        return (
            "A pure function from state, images and labels to the next state and the loss.\n"
            "value_and_grad has been at work: the backward pass is already written out.\n\n"
            f"{step.jaxpr}\n"
        )
    if section == "cost":
        return inspection.describe_cost(step)
    rows = [("pass and layer", "operands", "result", "FLOPs", "by")]
    for product in step.products:
        operands, flops = " ".join(product.operands), f"{product.flops:,}"
        rows.append((product.source, operands, product.result, flops, product.by))
    total = sum(product.flops for product in step.products)
    rows.append((f"{len(step.products)} products", "", "", f"{total:,}", ""))
    return (
        f"{text.table(rows)}\n\n"
        "By: what the HLO says computes it. A plain dot is left to XLA's backend.\n"
        "The whole HLO is written to DIR by XLA_FLAGS=--xla_dump_to=DIR, with\n"
        "--no-compilation-cache; the StableHLO between it and the jaxpr is\n"
        "flax_mnist.programs.inspection.trace_step(config).lower().as_text().\n"
    )


def _objects(step: Step, section: Section) -> Iterator[dict[str, Any]]:
    if section == "layers":
        for i, (inputs, outputs) in enumerate(step.config.layers):
            count = (inputs + 1) * outputs
            yield {"layer": f"Dense_{i}", "inputs": inputs, "outputs": outputs, "parameters": count}
    elif section == "jaxpr":
        yield {"jaxpr": step.jaxpr}
    elif section == "products":
        for product in step.products:
            yield product._asdict()
    else:
        for what, value in step.figures:
            yield {"figure": what.strip(), "value": value}


def _target_text(found: Estimate) -> str:
    batch = f"{found.config.batch_size:,}"
    of_sweep = f" of {found.members:,} networks at once" if found.members else ""
    title = f"A step{of_sweep} on {found.target}, for a batch of {batch}"
    rows = [("", "what for", "result", "bytes", "cycles")]
    for i, op in enumerate(found.operations, 1):
        cycles = "?" if op.cycles is None else f"{op.cycles:,}"
        result = _shortened(op.result, 26)
        rows.append((str(i), _shortened(op.what, 30), result, f"{op.read + op.written:,}", cycles))
    figures = [(what, f"{n:,}" if isinstance(n, int) else f"{n:,.1f}") for what, n in found.figures]
    return (
        f"{title}\n{'=' * len(title)}\n\n{text.table(rows, '><<>>')}\n\n"
        f"{text.table(figures, '<>')}\n\n{_TARGET_NOTE}"
    )


def _shortened(words: str, width: int) -> str:
    return words if len(words) <= width else words[: width - 3].rstrip(" ,") + "..."


_TARGET_NOTE = """\
Nothing has run: this is the compiler's estimate for one device, no measurement.
Of the operations with a ? it estimates no cycles, on a GPU of none; of what goes
over the network between devices it says only how much it is.
"""
