"""Who tells what happens while a sweep is trained: in lines, in a bar."""

import contextlib

from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import steps_per_epoch
from flax_mnist.show import terminal, text
from flax_mnist.sweeps.group import MemberRows
from flax_mnist.sweeps.observers import SweepObserver
from flax_mnist.sweeps.plan import Group, Plan

MANY_GROUPS = 10  #: From more of them on there is a line for each, not for each of its epochs.


class SweepLines(SweepObserver):
    """Tells a person: what is trained, a line after each epoch of a group, and a bar."""

    def begin(self, plan: Plan, dataset: Dataset, step: int) -> None:
        self.plan, self.n = plan, len(dataset.train.labels)
        self.bar = contextlib.ExitStack()
        devices = plan.mesh.devices.tolist()
        header = text.sweep_header(dataset, plan.members, len(plan.groups), devices, plan.bytes)
        terminal.say(header)
        last = sum(map(self._steps, plan.groups))
        if step:
            terminal.say(f"Going on after step {step:,} of {last:,}")
        bar = terminal.progress_bar(last, step)
        self.set = self.bar.enter_context(bar)

    def _steps(self, group: Group) -> int:
        """Of all members in all epochs."""
        each = steps_per_epoch(group.template, self.n - group.template.validation)
        return len(group.members) * group.template.epochs * each

    def _before(self, start: int) -> int:
        return sum(self._steps(group) for group in self.plan.groups if group.start < start)

    def compiled(self, seconds: float) -> None:
        terminal.say(f"Compiled in {seconds:.2f} s")

    def advance(self, group: Group, epoch: int, step: int, rows: MemberRows | None) -> None:
        epochs, groups = group.template.epochs, self.plan.groups
        if rows and (epoch == epochs or len(groups) <= MANY_GROUPS):
            number = groups.index(group)
            terminal.say(text.sweep_line(number, len(groups), epochs, [m for _, m in rows]))
        of_epochs = self._steps(group) * epoch // epochs
        self.set(self._before(group.start) + of_epochs + len(group.members) * step, None)

    def end(self) -> None:
        self.bar.close()
