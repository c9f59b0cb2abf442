"""Which processes train one network together, as each of them is told."""

import dataclasses
import re

from flax_mnist.errors import RequestError


@dataclasses.dataclass(frozen=True)
class Peers:
    """The processes that train one network together, of which this is one.

    Without these three JAX asks Slurm, Open MPI, Kubernetes or Cloud TPU who they are.

    Raises:
        RequestError: a value is missing or out of its range; the message names the flag.
    """

    coordinator: str | None = None
    """`ADDRESS:PORT` at which process 0 listens for the others."""
    num_processes: int | None = None
    """How many they are."""
    process_id: int | None = None
    """Which of them this is, from 0."""
    timeout: int = 25
    """Seconds to wait for one that does not answer, before all end; twice as long at the start and
    while images are loaded."""

    def __post_init__(self) -> None:
        if not 1 <= self.timeout <= 3600:
            raise RequestError(f"peer-timeout is {self.timeout}; it must be 1 to 3600.")
        given = (self.coordinator, self.num_processes, self.process_id)
        if None in given and given != (None, None, None):
            raise RequestError("--coordinator, --num-processes and --process-id: give all three.")
        if self.coordinator is None or self.num_processes is None or self.process_id is None:
            return
        port = re.fullmatch(r".+:(\d{1,5})", self.coordinator)
        if not port or not 0 < int(port[1]) < 2**16:
            raise RequestError(f"coordinator is {self.coordinator!r}; it must be ADDRESS:PORT.")
        if not 0 <= self.process_id < self.num_processes:
            raise RequestError(
                f"process-id is {self.process_id}; it must be from 0 to num-processes - 1, "
                f"and num-processes is {self.num_processes}."
            )
