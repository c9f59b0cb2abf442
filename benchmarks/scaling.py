"""`python -m benchmarks.scaling`: what more chips are good for, as the compiler of TPUs sees it.

Nothing runs, and nothing is measured. It needs `flax-mnist[tpu]`, and some minutes.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator

from flax_mnist import Config
from flax_mnist.devices import runtime
from flax_mnist.programs.estimate import Estimate, estimate
from flax_mnist.show import terminal

TARGETS = {
    1: "tpu-v5e", 4: "tpu-v5e:2x2", 16: "tpu-v5e:4x4", 64: "tpu-v5e:8x8", 256: "tpu-v5e:16x16"
}  # fmt: skip
BATCHES = (64, 1024, 8192)
MEMBERS = (64, 1024, 16_384)
HEAD = ("what", "chips", "operations", "cycles", "us", "images/s", "bytes shared", "MB a chip")


def row(what: str, found: Estimate) -> tuple[str, ...]:
    figures = dict(found.figures)
    shared = sum(n for _, n in found.collectives)
    return (
        what,
        str(found.devices),
        str(len(found.operations)),
        f"{found.cycles or 0:,}",
        f"{found.step_us or 0:,.1f}",
        f"{figures['images a second that follow']:,.3g}",
        f"{shared:,}",
        f"{found.memory / 1e6:,.0f}",
    )


def rows(batches: tuple[int, ...], members: tuple[int, ...]) -> Iterator[tuple[str, ...]]:
    """A training at each batch size, then a sweep of so many members, on each target.

    A sweep has no use for more chips than it has members.
    """
    for size in batches:
        for target in TARGETS.values():
            yield row(f"batch {size:,}", estimate(Config(batch_size=size), target))
    for count in members:
        for chips, target in TARGETS.items():
            if chips <= count:
                yield row(f"sweep of {count:,}", estimate(Config(), target, count))


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    parser.add_argument("--members", type=int, nargs="*", default=MEMBERS)
    asked = parser.parse_args()
    runtime.start("cpu", Config(), compilation_cache=False)
    for cells in (HEAD, ("---",) * len(HEAD)):
        terminal.say(f"| {' | '.join(cells)} |")
    for cells in rows(tuple(asked.batches), tuple(asked.members)):
        terminal.say(f"| {' | '.join(cells)} |")  # at once: the next takes a while


if __name__ == "__main__":
    main()
