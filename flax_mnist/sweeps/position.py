"""Where a sweep stands, in a checkpoint as a run's: the tally, and the group that is trained."""

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

import jax
import numpy as np

from flax_mnist.config import Config
from flax_mnist.data.order import steps_per_epoch
from flax_mnist.devices import agreement
from flax_mnist.store import checkpoint
from flax_mnist.store.checkpoint import Checkpoint, Progress
from flax_mnist.sweeps import group, tally
from flax_mnist.sweeps.group import Images, Standing
from flax_mnist.sweeps.plan import Plan
from flax_mnist.sweeps.tally import Tally

KEEP = 2  #: So many remain: each may have the states of a whole group.


class Position(NamedTuple):
    """Where a sweep stands."""

    tally: Tally
    standing: Standing | None  #: Of the group that comes next; None where it has not begun.


def save(path: Path, plan: Plan, position: Position, run: Mapping[str, Any], n: int) -> None:
    """Adds a checkpoint, in the first process, to the folder of a sweep of `n` training images.

    Every process must call it, since each has a part of the states.

    Raises:
        FlaxMnistError: it cannot be written.
    """
    results, standing = position
    tree: dict[str, Any] = {"tally": results._asdict()}
    epoch, step, seconds = standing.progress[2:] if standing else (0, 0, 0.0)
    if standing:
        spread, on_host = _arrays(standing)
        count = len(standing.healthy)
        tree["group"] = (
            jax.tree.map(lambda leaf: leaf[:count], group.whole(spread, plan.mesh)),
            on_host,
        )
    saved = Checkpoint(epoch, step, float(seconds), dict(run), checkpoint.arrays_of(tree))
    number = steps_done(plan, position, n)
    agreement.on_first(lambda: checkpoint.write(path, number, saved, KEEP))


def steps_done(plan: Plan, position: Position, n: int) -> int:
    """Since the sweep began, of one member after the other."""
    results, standing = position
    epochs = plan.groups[0].template.epochs
    each = [steps_per_epoch(config, n - config.validation) for config in plan.members]
    before = epochs * sum(each[: results.done])
    if standing is None:
        return before
    now = standing.progress.epoch * each[results.done] + standing.progress.step
    return before + now * len(standing.healthy)


def restore(
    path: Path, plan: Plan, images: Images, blank: Tally, run: Mapping[str, Any]
) -> Position:
    """Where the sweep in the folder stands, in all processes; the first one has the folder.

    Where there was never a checkpoint, it is the beginning, with a tally that is `blank`.

    Raises:
        FlaxMnistError: there are checkpoints, and none is whole.
        RequestError: they are of another sweep.
    """

    def find() -> Checkpoint | None:
        return checkpoint.newest(path, lambda c: checkpoint.require_same(c.run, run), finite=False)

    found = _everywhere(agreement.on_first(find))
    if found is None:
        return Position(blank, None)

    def tree(name: str, like: Any) -> Any:
        return checkpoint.tree_of(found.arrays, {name: like})[name]

    known = tree("tally", dict.fromkeys(("results", "done", "ensembles", "votes"), 0))
    results = Tally(**known | {"done": int(known["done"])}, params={})
    like = {number: _params_like(plan.members[number]) for number in tally.leading(results)}
    results = results._replace(**tree("tally", {"params": like}))
    if not found.epoch and not found.step:
        return Position(results, None)
    current = plan.group_after(results.done)
    whole, on_host = tree("group", _arrays(group.begin(plan, current, images)))
    state, losses, kept = group.on_lanes(
        plan, current, lambda numbers: jax.tree.map(lambda leaf: leaf[numbers], whole)
    )
    progress = Progress(state, losses, found.epoch, found.step, found.seconds)
    return Position(results, Standing(progress, kept, *on_host))


def _arrays(standing: Standing) -> tuple[tuple[Any, ...], tuple[Any, ...]]:
    """What is spread over the devices, and what is on the host of every process."""
    progress, kept, *on_host = standing
    return (progress.state, progress.losses, kept), tuple(on_host)


def _params_like(config: Config) -> dict[str, dict[str, int]]:
    return {f"Dense_{i}": {"kernel": 0, "bias": 0} for i in range(len(config.layers))}


def _everywhere(found: Checkpoint | None) -> Checkpoint | None:
    """What the first process has found, in all of them."""

    def described() -> str:
        if found is None:
            return json.dumps(None)
        specs = {name: [str(a.dtype), a.shape] for name, a in found.arrays.items()}
        return json.dumps(found._replace(arrays={})._asdict() | {"specs": specs})

    said = json.loads(agreement.broadcast_text(described))
    if said is None:
        return None
    specs = said.pop("specs")
    # One after the other, since each is for a moment whole on every device.
    said["arrays"] = {
        name: agreement.share(found and found.arrays[name], np.zeros(shape, dtype))
        for name, (dtype, shape) in specs.items()
    }
    return Checkpoint(**said)


def rows_written(plan: Plan, position: Position) -> int:
    """How many lines `sweep.jsonl` has."""
    results, standing = position
    now = len(standing.healthy) * standing.progress.epoch if standing else 0
    return results.done * plan.groups[0].template.epochs + now
