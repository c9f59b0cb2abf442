"""What has come of the members so far. It grows by a few numbers a member, and no more."""

import math
import statistics
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax import Array
from jaxtyping import Bool, Float, Float64, Int64
from numpy.typing import NDArray

from flax_mnist.config import CLASSES, Config
from flax_mnist.data.dataset import Dataset
from flax_mnist.devices import agreement, processes
from flax_mnist.model import Params
from flax_mnist.store.sweep_folder import QUANTILES, Setting
from flax_mnist.sweeps.group import COLUMNS, VALIDATION_LOSS, Standing
from flax_mnist.sweeps.plan import Group

#: Probabilities are added up as whole numbers of so many to one: exactly, in whatever order.
UNITS = 2**40
MANY_SEEDS = 20  #: From so many on their quantiles are told.


HostParams = dict[str, dict[str, NDArray[Any]]]  #: As `Params`, on the host.


class Tally(NamedTuple):
    """The results of the members of the groups that are done, and who leads."""

    #: `COLUMNS`; NaN of those that diverged, or are not done.
    results: Float64[np.ndarray, "members 4"]
    done: int  #: So many members, the first ones.
    ensembles: Float64[np.ndarray, " settings"]  #: Accuracy of each that is done.
    #: Sum of the probabilities, in `UNITS`, of the setting of which only some members are done.
    votes: Int64[np.ndarray, "n 10"]
    #: By the member's number: of the best one of all settings that are done, and of that one.
    params: dict[int, HostParams]

    @property
    def seeds(self) -> int:
        """Of each setting."""
        return len(self.results) // len(self.ensembles)

    @property
    def losses(self) -> Float64[np.ndarray, " members"]:
        """By which the best is chosen: on the images that are held out, if there are any."""
        validation = self.results[:, VALIDATION_LOSS]
        return self.results[:, 0] if np.isnan(validation).all() else validation


def empty(members: int, seeds: int, n_test: int) -> Tally:
    """Before any member is done."""
    return Tally(
        np.full((members, len(COLUMNS)), np.nan),
        0,
        np.full(members // seeds, np.nan),
        np.zeros((n_test, CLASSES), np.int64),
        {},
    )


def with_group(
    tally: Tally,
    group: Group,
    standing: Standing,
    votes_of: Callable[[Bool[np.ndarray, " members"]], Int64[np.ndarray, "n 10"]],
    params_of: Callable[[int], HostParams],
    dataset: Dataset,
) -> Tally:
    """With a group that has all its epochs.

    Args:
        votes_of: the sum of the probabilities of some of its members.
        params_of: the parameters of one of them, counted from 0.
    """
    results, ensembles, votes = tally.results.copy(), tally.ensembles.copy(), tally.votes
    results[group.start : group.stop] = standing.results
    seeds, numbers = tally.seeds, np.arange(group.start, group.stop)
    for setting in range(group.start // seeds, math.ceil(group.stop / seeds)):
        votes = votes + votes_of(standing.healthy & (numbers // seeds == setting))
        if (setting + 1) * seeds <= group.stop:
            if votes.any():
                ensembles[setting] = np.mean(votes.argmax(-1) == dataset.test.labels)
            votes = np.zeros_like(votes)
    after = Tally(results, group.stop, ensembles, votes, {})
    params = {
        number: tally.params[number] if number in tally.params else params_of(number - group.start)
        for number in leading(after)
    }
    return after._replace(params=params)


def leading(tally: Tally) -> list[int]:
    """The numbers of the members whose parameters may yet be wanted, as `Tally.params`."""
    seeds, losses = tally.seeds, tally.losses
    complete = tally.done // seeds
    best = best_setting(losses[: complete * seeds].reshape(complete, seeds))
    open_ones = losses[complete * seeds : tally.done]
    leaders = [] if best is None else [best * seeds + _lowest(losses[best * seeds :][:seeds])]
    if np.isfinite(open_ones).any():
        leaders.append(complete * seeds + _lowest(open_ones))
    return leaders


def best_member(tally: Tally) -> int | None:
    """Of the best setting the best one, by its number, once all are done; or all diverged."""
    return next(iter(leading(tally)), None)


def best_setting(losses: Float64[np.ndarray, "settings seeds"]) -> int | None:
    """That of which the fewest members diverged, and of those with the lowest mean loss."""
    ranks = [
        (int(np.isnan(row).sum()), statistics.fmean(row[~np.isnan(row)] if finite else [math.inf]))
        for row in losses
        for finite in [np.isfinite(row).any()]
    ]
    best = min(range(len(ranks)), key=ranks.__getitem__, default=None)
    return None if best is None or ranks[best][1] == math.inf else best


def _lowest(losses: Float64[np.ndarray, " seeds"]) -> int:
    return int(np.nanargmin(losses))


def settings_of(tally: Tally, members: Sequence[Config]) -> list[Setting]:
    """What is kept of each setting, once all members are done."""
    best = best_setting(tally.losses.reshape(-1, tally.seeds))
    return [
        _setting(
            members[i * tally.seeds],
            tally.results[i * tally.seeds : (i + 1) * tally.seeds],
            float(tally.ensembles[i]),
            i == best,
        )
        for i in range(len(tally.ensembles))
    ]


def _setting(
    config: Config, results: Float64[np.ndarray, "seeds 4"], ensemble: float, is_best: bool
) -> Setting:
    healthy = results[~np.isnan(results[:, 0])]
    losses, accuracies, *validation = healthy.T.tolist()
    means = [
        statistics.fmean(values) if config.validation and values else None for values in validation
    ]
    return Setting(
        learning_rate=config.learning_rate,
        momentum=config.momentum,
        test_loss=statistics.fmean(losses) if losses else None,
        test_loss_sd=statistics.stdev(losses) if len(losses) > 1 else None,
        test_accuracy=statistics.fmean(accuracies) if losses else None,
        test_accuracy_sd=statistics.stdev(accuracies) if len(losses) > 1 else None,
        ensemble_accuracy=ensemble if losses else None,
        members=len(results),
        diverged=len(results) - len(losses),
        best=is_best,
        batch_size=config.batch_size,
        hidden_sizes=config.hidden_sizes,
        validation_loss=means[0],
        validation_accuracy=means[1],
        test_loss_quantiles=_quantiles(losses),
        test_accuracy_quantiles=_quantiles(accuracies),
    )


def _quantiles(values: Sequence[float]) -> list[float] | None:
    if len(values) < MANY_SEEDS:
        return None
    found: list[float] = np.quantile(values, QUANTILES).tolist()
    return found


def votes_of(
    probabilities: Array, wanted: Bool[np.ndarray, " members"]
) -> Int64[np.ndarray, "n 10"]:
    """The sum, in `UNITS`, of the probabilities of some members, in every process.

    They are `[lanes, n, 10]`, spread over the devices.
    """
    total = np.zeros(probabilities.shape[1:], np.int64)
    for number, mine in _on_this_host(probabilities):
        if number < len(wanted) and wanted[number]:
            total += np.rint(np.asarray(mine, np.float64) * UNITS).astype(np.int64)
    summed: Int64[np.ndarray, "n 10"] = agreement.all_gather(total).sum(axis=0)
    return summed


def _on_this_host(array: Array) -> list[tuple[int, Float[np.ndarray, "..."]]]:
    """The lanes of an array that are on this process's devices, by their numbers."""
    return [
        (range(len(array))[shard.index[0]].start + i, lane)
        for shard in array.addressable_shards
        for i, lane in enumerate(np.asarray(shard.data))
    ]


def params_of(params: Params, number: int) -> HostParams:
    """A member's part of `[lanes, ...]`, spread over the devices: on the host of every process."""

    def mine(leaf: Array) -> np.ndarray | None:
        # A copy: a view would keep the whole group in memory.
        return next((np.array(lane) for i, lane in _on_this_host(leaf) if i == number), None)

    like = jax.tree.map(lambda leaf: np.zeros(leaf.shape[1:], leaf.dtype), params)
    own = jax.tree.map(mine, params)
    is_here = not processes.are_many() or jax.tree.leaves(own)
    return agreement.share(own if is_here else None, like)
