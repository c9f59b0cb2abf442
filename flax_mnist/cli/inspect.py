"""`flax-mnist inspect`."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterator
from typing import TYPE_CHECKING, Any, Literal, get_args

import tyro

from flax_mnist.cli.flags import Machine, Settings, Switch
from flax_mnist.config import Config, Init
from flax_mnist.show import terminal, text

if TYPE_CHECKING:
    from flax_mnist.show.inspection import Step

Section = Literal["layers", "jaxpr", "products", "cost"]  #: Parts of what is printed.


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

    Examples::

        flax-mnist inspect
        flax-mnist inspect --sections products cost --batch-size 256
        flax-mnist inspect --sections cost --precision bfloat16 --json
    """

    config: OfAStep = dataclasses.field(default_factory=OfAStep)
    sections: tuple[Section, ...] = get_args(Section)
    """What to show."""
    json: Switch = False
    """Print one JSON object a layer, product and figure, each with its section."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        from flax_mnist.show.inspection import Step

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


_TITLES: dict[Section, str] = {
    "layers": "The layers, for a batch of {batch}",
    "jaxpr": "The jaxpr: train_step as JAX traces it",
    "products": "The matrix products of the optimised HLO, in its order",
    "cost": "What a step costs",
}


def _text(step: Step, section: Section) -> str:
    from flax_mnist.show import inspection

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
        "flax_mnist.show.inspection.trace_step(config).lower().as_text().\n"
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
            yield {**product._asdict(), "flops": product.flops}
    else:
        for what, value in step.figures:
            yield {"figure": what.strip(), "value": value}
