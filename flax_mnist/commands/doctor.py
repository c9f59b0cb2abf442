"""`flax-mnist doctor`."""

from __future__ import annotations

import dataclasses

from flax_mnist import terminal


@dataclasses.dataclass(frozen=True)
class Doctor:
    """Show versions, devices, the data that is found, and what is missing."""

    def run(self) -> None:
        """Prints a line for each thing."""
        from flax_mnist.doctor import diagnose

        for name, value in diagnose():
            terminal.say(f"{name:<20} {value}")
