"""A sweep from its beginning to its end: what `flax-mnist sweep` does, as a function."""

import contextlib
import dataclasses
import functools
import shlex
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import NamedTuple

import jax

from flax_mnist.axes import Axes
from flax_mnist.config import CheckpointPolicy, Config, DatasetName
from flax_mnist.data.dataset import Dataset
from flax_mnist.data.order import steps_per_epoch
from flax_mnist.devices import agreement, memory, processes, runtime
from flax_mnist.devices.environment import describe
from flax_mnist.devices.place import Place, entered_by_many
from flax_mnist.errors import RequestError, StoppedError
from flax_mnist.runs import signals
from flax_mnist.runs.training import loaded
from flax_mnist.store import run_folder, sweep_folder
from flax_mnist.store.record import Record
from flax_mnist.store.sweep_folder import Setting, SweepRecord, parse_asked
from flax_mnist.sweeps import group, kept, tally
from flax_mnist.sweeps.group import Programs, Standing
from flax_mnist.sweeps.observers import SweepObserver
from flax_mnist.sweeps.plan import Group, Plan, fitting, make_plan
from flax_mnist.sweeps.position import KEEP, Position, restore, rows_written, save, steps_done
from flax_mnist.sweeps.tally import HostParams, Tally

#: How often a sweep is saved where nothing else is asked for; beside that after each group.
POLICY = CheckpointPolicy("5", KEEP)


class Swept(NamedTuple):
    """What a sweep came to."""

    folder: Path  #: It holds tables and, where not all diverged, pictures and the best run.
    settings: list[Setting]  #: What stands in `outcomes.jsonl`.
    #: The best member of the setting that is best, and its parameters; None where all diverged.
    best: Config | None
    params: HostParams | None


def sweep(
    config: Config | None = None,
    axes: Axes | None = None,
    dataset: Dataset | DatasetName | None = None,
    run_dir: Path | str | None = None,
    *,
    data_dir: Path | str | None = None,
    resume: bool = False,
    checkpoints: CheckpointPolicy | None = None,
    group_size: int | None = None,
    observer: SweepObserver | None = None,
    place: Place = Place(),
    listening: signals.Listening = signals.deaf,
) -> Swept:
    """Trains every combination of settings with every seed, group by group, and keeps the best.

    What is None is by default; with `resume` it is the sweep's own, of which nothing but `data_dir`
    and `checkpoints` may change.

    Args:
        config, axes: what members have in common, and the first seed; in what they differ.
        dataset, data_dir: the images; or their name, and where they are.
        run_dir: folder to write to; None is `runs/sweep-<dataset>-<timestamp>`.
        resume: go on from the newest checkpoint, to the bits of a sweep that was never interrupted.
        checkpoints: how often one is written within a group, beside the one after each.
        group_size: how many members are trained at a time, at most; None is by `fitting`.
        observer: is told what happens, in the first process.
        place, listening: as for `flax_mnist.runs.training.train`.

    Raises:
        RequestError: what is asked for is wrong, or does not fit the sweep that is resumed.
        StoppedError: a signal was heard.
        FlaxMnistError: the images cannot be had, a file cannot be written, no checkpoint is whole,
            or another process is gone.
    """
    with entered_by_many(place) as (device, devices), contextlib.ExitStack() as held:
        old = _asked_before(run_dir, resume, config, axes, dataset, group_size)
        axes = axes or old.axes
        members = axes.members(config or old.record.config)
        data_dir = old.record.data_dir if data_dir is None else Path(data_dir)
        runtime.set_precision(members[0])
        images = loaded(dataset or old.record.dataset, data_dir)
        record = Record.of(members[0], images, data_dir, checkpoints or old.record.checkpoints)
        with processes.watch_others() as renew:
            size = group_size or old.group_size or _fitting(members, images, device, len(devices))
            taken = run_folder.taken(run_dir, f"sweep-{images.name}", resume)
            path = Path(agreement.broadcast_text(lambda: str(held.enter_context(taken))))
            plan = make_plan(members, images.counts, devices, size)
            asked = SweepRecord(axes, record, size)
            return _Sweep(asked, images, plan, path, device, renew, listening).train(observer)


def _fitting(members: Sequence[Config], images: Dataset, device: jax.Device, devices: int) -> int:
    """How many members fit at a time, whichever process is asked."""
    free = memory.memory(device)
    return agreement.smallest(fitting(members, images.counts, devices, device.platform, free))


def asked_of(path: Path) -> SweepRecord:
    """What the sweep in a folder is, in every process that of the first: it has the folder.

    Raises:
        RequestError: there is no sweep.
        DataError: its `sweep.json` is damaged.
    """
    return parse_asked(agreement.broadcast_text(lambda: sweep_folder.read_asked_text(path)), path)


def _asked_before(
    run_dir: Path | str | None,
    resume: bool,
    config: Config | None,
    axes: Axes | None,
    dataset: Dataset | DatasetName | None,
    group_size: int | None,
) -> SweepRecord:
    """The sweep to go on with, which must be what is asked for, or the one by default."""
    if group_size is not None and group_size < 1:
        raise RequestError(f"group-size is {group_size}; it must be at least 1.")
    folder = None if run_dir is None else Path(run_dir)
    with processes.watch_others():
        agreement.barrier()
        if not resume:
            if folder is not None:  # looked at before the images are loaded
                agreement.on_first(lambda: run_folder.require_no_run(folder))
            return SweepRecord(Axes(), Record(Config(), "auto", "", None, (), POLICY), 0)
        if folder is None:
            raise RequestError("--resume needs the --run-dir of the sweep to go on with.")
        old = asked_of(folder)
    name = dataset.name if isinstance(dataset, Dataset) else dataset or old.record.dataset
    others = {"dataset": old.record.dataset, "group_size": old.group_size}
    then = vars(old.record.config) | vars(old.axes) | others
    axes = axes or old.axes
    config = axes.members(config or old.record.config)[0]
    others = {"dataset": name, "group_size": group_size or old.group_size}
    now = vars(config) | vars(axes) | others
    differences = [
        f"{key.replace('_', '-')} is {now[key]}, the sweep's is {then[key]}"
        for key in now
        if now[key] != then[key]
    ]
    if differences:
        raise RequestError(f"{folder}: cannot go on with other settings: {'; '.join(differences)}.")
    return old


@dataclasses.dataclass
class _Sweep:
    """A sweep whose folder and images are there."""

    asked: SweepRecord
    dataset: Dataset
    plan: Plan
    folder: Path
    device: jax.Device
    renew: Callable[[], None]
    listening: signals.Listening

    def __post_init__(self) -> None:
        self.n = len(self.dataset.train.labels)
        self.policy = self.asked.record.checkpoints or POLICY
        self.compiled: tuple[Config, Programs] | None = None
        config, axes = self.asked.record.config, self.asked.axes
        self.identity = {
            **dataclasses.asdict(config),
            "axes": dataclasses.asdict(axes),
            "dataset": self.dataset.name,
            "images": self.dataset.digest(),
            "group_size": self.asked.group_size,
        }

    def train(self, observer: SweepObserver | None) -> Swept:
        """Trains from where the sweep stands to its end."""
        agreement.require_same(self.identity)
        if observer is None or not processes.is_first():
            observer = SweepObserver()
        self.images = group.place_images(self.plan, self.dataset)
        position = self._first_position()
        self.renew()
        observer.begin(self.plan, self.dataset, steps_done(self.plan, position, self.n))
        try:
            while position.tally.done < len(self.plan.members):
                position = self._train_group(position, observer)
        finally:
            observer.end()
        return self._finished(position.tally)

    def _first_position(self) -> Position:
        """The beginning, or where the sweep in the folder stands; its lines end there too."""
        members, seeds = len(self.plan.members), self.asked.axes.seeds
        blank = tally.empty(members, seeds, len(self.dataset.test.labels))
        position = restore(self.folder, self.plan, self.images, blank, self.identity)

        def begin() -> None:
            environment = describe(self.device, self.asked.record.config, self.plan.mesh)
            sweep_folder.write_asked(self.folder, self.asked, environment)
            sweep_folder.cut_rows(self.folder, rows_written(self.plan, position))

        agreement.on_first(begin)
        return position

    def _train_group(self, position: Position, observer: SweepObserver) -> Position:
        """Trains the group that comes next, from where it stands, to its end, and saves it."""
        current = self.plan.group_after(position.tally.done)
        steps = steps_per_epoch(current.template, self.n - current.template.validation)
        every = self.policy.steps(steps)
        programs = self._programs(current, every, position.standing, observer)
        standing = position.standing or group.begin(self.plan, current, self.images)
        self.renew()
        saved = _own_steps(standing, steps)
        with self.listening() as received:
            chunks = group.fit(self.plan, current, self.images, standing, programs)
            for standing, rows in chunks:
                self.renew()
                if rows and processes.is_first():
                    sweep_folder.append_rows(self.folder, rows, self.dataset.name)
                observer.advance(current, standing.progress.epoch, standing.progress.step, rows)
                done = _own_steps(standing, steps)
                next_step = done + min(programs.chunk, steps - standing.progress.step)
                is_last = standing.progress.epoch == current.template.epochs
                is_due = next_step > saved + every and not is_last
                if self._is_saved(received, Position(position.tally, standing), is_due):
                    saved = done
            counted = self._counted(position.tally, current, standing, programs)
            self._is_saved(received, Position(counted, None), is_due=True)
        return Position(counted, None)

    def _is_saved(
        self, received: Callable[[], int | None], position: Position, is_due: bool
    ) -> bool:
        """Saves where it stands if that is due or a signal was heard, for which it then ends."""
        # A signal to one process stops all, after the same step.
        signum = agreement.largest(received() or 0)
        if signum or is_due:
            save(self.folder, self.plan, position, self.identity, self.n)
        if signum and position.tally.done < len(self.plan.members):
            what = f"{position.tally.done:,} of {len(self.plan.members):,} members"
            go_on = f"flax-mnist sweep --resume --run-dir {shlex.quote(str(self.folder))}"
            stopped = f"{signals.word(signum)} after {what}. Go on with: {go_on}"
            raise StoppedError(stopped, 128 + signum)
        return is_due

    def _programs(
        self, current: Group, every: int | float, standing: Standing | None, observer: SweepObserver
    ) -> Programs:
        """Compiled anew where the network or the batch size is another one."""
        template, programs = self.compiled or (None, None)
        if programs is None or template != current.template:
            began = time.perf_counter()
            programs = group.compile_programs(self.plan, current, self.images, every, standing)
            self.compiled = current.template, programs
            self.renew()
            observer.compiled(time.perf_counter() - began)
        return programs

    def _counted(
        self, results: Tally, current: Group, standing: Standing, programs: Programs
    ) -> Tally:
        """The results so far with those of a group that has all its epochs."""
        params = group.kept_params(standing)
        probabilities = programs.predict(params, self.images.test.images)
        return tally.with_group(
            results,
            current,
            standing,
            functools.partial(tally.votes_of, probabilities),
            functools.partial(tally.params_of, params),
            self.dataset,
        )

    def _finished(self, results: Tally) -> Swept:
        """Keeps what came of it: the mark that it is finished last."""
        settings = tally.settings_of(results, self.plan.members)
        best = tally.best_member(results)
        config = None if best is None else self.plan.members[best]
        params = None if best is None else results.params[best]

        def keep() -> None:
            if config is not None and params is not None:
                record = Record.of(
                    config, self.dataset, self.asked.record.data_dir, CheckpointPolicy()
                )
                kept.write_best(self.folder, record, self.device, params)
                kept.draw(self.folder, self.plan, results, settings)
            sweep_folder.write_outcomes(self.folder, settings)

        self.renew()
        agreement.on_first(keep)
        return Swept(self.folder, settings, config, params)


def _own_steps(standing: Standing, steps: int) -> int:
    """Steps of each member of a group."""
    return standing.progress.epoch * steps + standing.progress.step
