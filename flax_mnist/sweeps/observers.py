"""Who looks on while a sweep is trained."""

from flax_mnist.data.dataset import Dataset
from flax_mnist.sweeps.group import MemberRows
from flax_mnist.sweeps.plan import Group, Plan


class SweepObserver:
    """Is told what happens, in this order. Here it does nothing: a subclass does what it wants."""

    def begin(self, plan: Plan, dataset: Dataset, step: int) -> None:
        """Before all else; so many steps, of one member after the other, are done already."""

    def compiled(self, seconds: float) -> None:
        """The programs of a network and batch size are compiled, which took so long."""

    def advance(self, group: Group, epoch: int, step: int, rows: MemberRows | None) -> None:
        """So many epochs of a group are done, and steps of the next one; with rows at an end."""

    def end(self) -> None:
        """All groups are trained, or something has ended it."""
