"""Areas under curves of scores against two classes, with ties counted as ties.

Both areas come from groups of equal scores, from the highest down. A positive example's share in the area
under the ROC curve is the share of negatives below it, and half of those in its group; its share in that
under the precision-recall curve (average precision) is the precision at the end of its group.

Two states of fixed size can hold the scores: all of them up to a capacity, which is exact; or counts in
bins, which is exact for scores rounded to bins, and merges without limit.
"""

from __future__ import annotations

import abc
import dataclasses
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

from toolshed.errors import ToolshedError
from toolshed.metrics import sums
from toolshed.metrics.classification import tally
from toolshed.metrics.metric import AUTO, array, check_same_shape, counted

State = Float32[Array, "2 ..."]


class Groups(NamedTuple):
    """Rows from the highest score down, each with what lies before it and up to the end of its group.

    Attributes:
      positives: positive examples in the row.
      positives_through, negatives_through: up to and with the row's group.
      negatives_before: before the row's group.
      all_positives, all_negatives: in all rows.
    """

    positives: Any
    positives_through: Any
    negatives_before: Any
    negatives_through: Any
    all_positives: Any
    all_negatives: Any


@dataclasses.dataclass(frozen=True)
class Area(abc.ABC):
    """What areas under curves share. A score that is NaN and counts makes the area NaN.

    Attributes:
      predictions: a Context path of scores, float[...]: the higher, the more likely positive.
      targets: a Context path of what is positive: not 0, in the shape of the scores.
      mask: what counts; see `toolshed.metrics.Mean`.
      bins: None for the exact area of up to ``capacity`` examples. A number for that of scores rounded to
        as many equal bins between ``limits``, of any number of examples.
      limits: lowest and highest score of the bins; what lies beyond is in the first or last.
      capacity: how many examples an exact state holds. With more the area is NaN, and
        `toolshed.metrics.Collection.compute` warns.
    """

    predictions: str = "preds"
    targets: str = "batch/label"
    mask: str | None = AUTO
    _: dataclasses.KW_ONLY
    bins: int | None = None
    limits: tuple[float, float] = (0.0, 1.0)
    capacity: int | None = 16384

    def __post_init__(self):
        name = type(self).__name__
        if self.bins is not None:
            if self.bins < 2 or not self.limits[0] < self.limits[1]:
                raise ToolshedError(
                    f"{name} with bins={self.bins} in limits={self.limits}; expected at least 2 bins and a"
                    " lower limit below the upper one."
                )
            object.__setattr__(self, "capacity", None)  # bins hold any number
        elif self.capacity is None or self.capacity < 1:
            raise ToolshedError(
                f"{name} with capacity={self.capacity}; expected how many examples to hold, or bins=1000."
            )

    def empty(self) -> State:
        return sums.zeros(2, self.bins) if self.bins else sums.zeros(1 + (self.capacity or 0))

    def state_from(self, context: Any) -> State:
        scores, targets = array(context, self.predictions), array(context, self.targets)
        check_same_shape(scores, self.predictions, targets, self.targets)
        mask = counted(context, self.mask, self.targets, targets).ravel()
        scores, positive = scores.astype(jnp.float32).ravel(), targets.ravel() != 0
        if self.bins is None:
            return _rows(scores, positive, mask)
        low, high = self.limits
        index = jnp.floor((scores - low) / (high - low) * self.bins).clip(0, self.bins - 1)
        index = jnp.where(jnp.isnan(scores), -1, index).astype(jnp.int32)  # -1 makes the tally NaN
        return tally(jnp.stack([index, index]), mask & jnp.stack([~positive, positive]), self.bins)

    def merge(self, a: State, b: State) -> State:
        if self.bins is not None:
            return sums.add(a, b)
        size = min(self.capacity or 0, a.shape[1] + b.shape[1] - 2)
        first, second = _held(a), b.shape[1] - 1
        rows = jnp.pad(a[:, 1:], ((0, 0), (0, max(0, size - a.shape[1] + 1))))[:, :size]
        # Rows beyond the end, and those that hold nothing, are dropped.
        place = jnp.arange(second)
        place = jnp.where(place < _held(b), first + place, size)
        rows = rows.at[:, place].set(b[:, 1:], mode="drop")
        return jnp.concatenate([sums.add(a[:, :1], b[:, :1]), rows], axis=1)

    def seen(self, state: State) -> Float32[Array, ""]:
        """How many examples counted, those beyond the capacity among them."""
        return sums.value(state[:, 0]) if self.bins is None else sums.value(state).sum()

    def compute(self, state: State) -> Float32[Array, ""]:
        if self.bins is not None:
            return self._area(_groups_of_bins(state))
        area = self._area(_groups_of_rows(state))
        return jnp.where(self.seen(state) <= (self.capacity or 0), area, jnp.nan)

    @abc.abstractmethod
    def _area(self, groups: Groups) -> Float32[Array, ""]:
        """The area from the groups."""


@dataclasses.dataclass(frozen=True)
class AUCROC(Area):
    """The area under the ROC curve: how likely a positive example has a higher score than a negative.

    Equal scores count half. NaN unless there are positive and negative examples. Attributes as in `Area`.
    """

    def _area(self, groups: Groups) -> Float32[Array, ""]:
        above = (groups.negatives_before + groups.negatives_through) / 2
        below = sums.ratio(groups.all_negatives - above, groups.all_negatives)
        return _mean_of_positives(groups, below)


@dataclasses.dataclass(frozen=True)
class AUCPR(Area):
    """The area under the precision-recall curve as average precision.

    The sum over groups of equal scores of precision times the gain in recall, without interpolation. NaN
    unless there are positive examples. Attributes as in `Area`.
    """

    def _area(self, groups: Groups) -> Float32[Array, ""]:
        through = groups.positives_through
        return _mean_of_positives(groups, sums.ratio(through, through + groups.negatives_through))


def _mean_of_positives(groups: Groups, values: Any) -> Any:
    weighted = jnp.where(groups.positives != 0, groups.positives * values, 0)
    return sums.ratio(sums.value(sums.total(weighted)), groups.all_positives)


def _rows(scores: Any, positive: Any, mask: Any) -> State:
    """The examples that count, first and in their order: a column of their number, then one for each."""
    n = len(scores)
    place = jnp.where(mask, jnp.cumsum(mask) - 1, n)
    rows = jnp.stack([jnp.where(mask, scores, 0), positive.astype(jnp.float32)])
    rows = jnp.zeros((2, n), jnp.float32).at[:, place].set(rows, mode="drop")
    return jnp.concatenate([sums.count(mask)[:, None], rows], axis=1)


def _held(state: State) -> Any:
    """How many rows of an exact state are filled, int32."""
    number = state[0, 0].astype(jnp.int32) + state[1, 0].astype(jnp.int32)
    return jnp.minimum(number, state.shape[1] - 1)


def _groups_of_rows(state: State) -> Groups:
    n = state.shape[1] - 1
    empty = jnp.arange(n) >= _held(state)
    # From the highest down; rows that hold nothing come last, and in a group of their own.
    empty, minus, positive = jax.lax.sort((empty, -state[0, 1:], state[1, 1:]), num_keys=2)
    starts = jnp.concatenate([jnp.ones(1, bool), (minus[1:] != minus[:-1]) | (empty[1:] != empty[:-1])])
    ends = jnp.concatenate([starts[1:], jnp.ones(1, bool)])
    positives = jnp.where(empty, 0, positive).astype(jnp.int32)
    negatives = jnp.where(empty, 0, 1 - positive).astype(jnp.int32)
    positives_through, negatives_through = jnp.cumsum(positives), jnp.cumsum(negatives)
    unknown = (jnp.isnan(minus) & ~empty).any()

    def at_end(through: Any) -> Any:
        return jax.lax.cummin(jnp.where(ends, through, n), reverse=True).astype(jnp.float32)

    before = jax.lax.cummax(jnp.where(starts, negatives_through - negatives, 0)).astype(jnp.float32)
    return Groups(
        positives.astype(jnp.float32),
        at_end(positives_through),
        before,
        at_end(negatives_through),
        jnp.where(unknown, jnp.nan, positives_through[-1]),
        negatives_through[-1].astype(jnp.float32),
    )


def _groups_of_bins(state: State) -> Groups:
    falling = state[:, :, ::-1]
    positives = sums.value(falling)[1]
    through = jnp.cumsum(sums.value(falling), axis=1)
    negatives_before = jnp.concatenate([jnp.zeros(1), through[0, :-1]])
    return Groups(positives, through[1], negatives_before, through[0], through[1, -1], through[0, -1])
