"""`flax-mnist inspect`."""

import dataclasses
from typing import Literal, get_args

from flax_mnist.cli.flags import Machine
from flax_mnist.config import Config
from flax_mnist.show import terminal, text

Section = Literal["layers", "jaxpr", "products", "cost"]  #: Parts of what is printed.


@dataclasses.dataclass(frozen=True)
class Inspect:
    """Show what a training step becomes: layers, jaxpr, matrix products, cost."""

    config: Config = dataclasses.field(default_factory=Config)
    sections: tuple[Section, ...] = get_args(Section)
    """What to show."""
    machine: Machine = dataclasses.field(default_factory=Machine)

    def run(self) -> None:
        from flax_mnist.show import inspection

        self.machine.start(self.config)
        if "layers" in self.sections:
            _title(f"The layers, for a batch of {self.config.batch_size:,}")
            terminal.say(inspection.tabulate(self.config) + "\n")
        traced = inspection.trace_step(self.config)
        if "jaxpr" in self.sections:
            _title("The jaxpr: train_step as JAX traces it")
            terminal.say(
                "A pure function from state, images and labels to the next state and the loss.\n"
                "value_and_grad has been at work: the backward pass is already written out.\n"
            )
            terminal.say(traced.jaxpr.pretty_print(use_color=False) + "\n")
        compiled = inspection.compile_step(traced)
        if "products" in self.sections:
            _title("The matrix products of the optimised HLO, in its order")
            products = inspection.find_products(compiled.as_text() or "")
            rows = [("pass and layer", "operands", "result", "FLOPs", "by")]
            for product in products:
                operands, flops = " ".join(product.operands), f"{product.flops:,}"
                rows.append((product.source, operands, product.result, flops, product.by))
            total = sum(product.flops for product in products)
            rows.append((f"{len(products)} products", "", "", f"{total:,}", ""))
            terminal.say(text.table(rows))
            terminal.say(
                "\nBy: what the HLO says computes it. A plain dot is left to XLA's backend.\n"
                "The whole HLO is written to DIR by XLA_FLAGS=--xla_dump_to=DIR, with\n"
                "--no-compilation-cache; the StableHLO between it and the jaxpr is\n"
                "flax_mnist.show.inspection.trace_step(config).lower().as_text().\n"
            )
        if "cost" in self.sections:
            _title("What a step costs")
            terminal.say(inspection.describe_cost(compiled, self.config))


def _title(title: str) -> None:
    terminal.say(f"{title}\n{'=' * len(title)}\n")
