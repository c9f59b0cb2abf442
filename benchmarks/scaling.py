"""`python -m benchmarks.scaling`: what more chips are good for, as the compiler of TPUs sees it.

Nothing runs, and nothing is measured. It needs `flax-mnist[tpu]`, and some minutes.
"""

from __future__ import annotations

import argparse
import functools
from collections.abc import Iterator, Sequence

from flax_mnist import Config
from flax_mnist.devices import runtime
from flax_mnist.programs.estimate import Estimate, estimate
from flax_mnist.show import terminal
from flax_mnist.sweeps.plan import AT_ONCE

TARGETS = {
    1: "tpu-v5e", 4: "tpu-v5e:2x2", 16: "tpu-v5e:4x4", 64: "tpu-v5e:8x8", 256: "tpu-v5e:16x16"
}  # fmt: skip
BATCHES = (64, 1024, 8192)
MEMBERS = (64, 1024, 16_384)
HEAD = (
    "what", "chips", "operations", "cycles", "us", "images/s", "bytes shared", "MB a chip"
)  # fmt: skip


def row(what: str, chips: int, images_per_second: float, found: Estimate) -> tuple[str, ...]:
    shared = sum(n for _, n in found.collectives)
    return (
        what,
        str(chips),
        str(len(found.operations)),
        f"{found.cycles or 0:,}",
        f"{found.step_us or 0:,.1f}",
        f"{float(f'{images_per_second / 1e6:.3g}'):,g} M",  # three digits, and no exponent
        f"{shared:,}",
        f"{found.memory / 1e6:,.0f}",
    )


def trainings(batches: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """A training at each batch size, whose batches are shared by so many chips."""
    for size in batches:
        for chips, target in TARGETS.items():
            found = estimate(Config(batch_size=size), target)
            yield row(f"batch {size:,}", chips, found.images_per_second or 0, found)


def sweeps(members: Sequence[int]) -> Iterator[tuple[str, ...]]:
    """Sweeps of so many members, in groups as large as `sweep` makes them.

    Chips have nothing to tell each other, and so each of them runs what a single one would run for
    its share of the members. None is of use without a member.
    """
    share_of = functools.cache(functools.partial(estimate, Config(), TARGETS[1]))
    for count in members:
        for chips in TARGETS:
            if share := min(count // chips, AT_ONCE["tpu"]):
                found = share_of(share)
                rate = chips * (found.images_per_second or 0)
                yield row(f"sweep of {count:,}, {share:,} a chip at once", chips, rate, found)


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.scaling", description=__doc__)
    parser.add_argument("--batches", type=int, nargs="*", default=BATCHES)
    parser.add_argument("--members", type=int, nargs="*", default=MEMBERS)
    asked = parser.parse_args()
    runtime.start("cpu", Config(), compilation_cache=False)
    for cells in (HEAD, ("---",) * len(HEAD)):
        terminal.say(f"| {' | '.join(cells)} |")
    for found in (trainings(asked.batches), sweeps(asked.members)):
        for cells in found:
            terminal.say(f"| {' | '.join(cells)} |")  # at once: the next takes a while


if __name__ == "__main__":
    main()
