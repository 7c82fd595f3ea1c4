"""Pyramid: numbers in a row, with the lowest, the highest and the sum of ever larger groups of them.

A chart of a million values has two thousand columns, and each has to show the true minimum and maximum of
the values that fall into it. To look at all values for each picture would take longer the longer a run
gets. A pyramid keeps what is to be known of every 32 values, of every 32 of those groups, and so on: a
column is then made of a few large groups and what sticks out of them at its two ends.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64, Shaped

FAN = 32
"""Values in a group of the first level, and groups in one of the next."""
AT_ONCE, AT_ONCE_MIXED = 256, 32
"""Values a column up to which all are looked at: if all are finite, and if they must be asked first."""
FEW = 4096
"""Values up to which all are looked at in any case."""

Floats = Float32[np.ndarray, " n"]


class Level(NamedTuple):
    """Groups of values in one array each: what is to be known of their finite values.

    Attributes:
      low, high: the lowest and the highest, float32[n]; +inf and -inf where a group has no finite value.
      total: the sum, float64[n].
    """

    low: Floats
    high: Floats
    total: Float64[np.ndarray, " n"]


class Pyramid(NamedTuple):
    """Numbers in a row that only ever grows, and what is to be known of them in groups.

    `append` gives the longer row and leaves the shorter one as it is. Both share their arrays, in which
    nothing before ``length`` ever changes: one thread may append while others read, without a lock.

    Append only to the newest one. An append that was broken off has changed nothing.

    Attributes:
      values: float32[capacity]; those before ``length`` are meant.
      length: how many there are.
      levels: groups of 32, 32², 32³, … values, in 0.52 bytes a value. Those that are complete are meant.
      finite: whether all of them are.
    """

    values: Floats
    length: int
    levels: tuple[Level, ...]
    finite: bool

    @classmethod
    def empty(cls) -> Pyramid:
        """The row of no values."""
        return cls(np.zeros(0, np.float32), 0, (), True)

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, room to grow included."""
        return self.values.nbytes + sum(array.nbytes for level in self.levels for array in level)

    def append(self, new: Floats) -> Pyramid:
        """The row with more values at its end. Amortised, costs what the new values cost."""
        length = self.length + len(new)
        values = put(self.values, self.length, new)
        levels: list[Level] = []
        below, size = Level(values, values, values), 1
        while length >= size * FAN:
            first, stop = self.length // (size * FAN), length // (size * FAN)
            old = self.levels[len(levels)] if len(levels) < len(self.levels) else _NOTHING
            if first == stop:  # no group has become complete, nor has any above
                levels += self.levels[len(levels) :]
                break
            children = slice(first * FAN, stop * FAN)
            parts = _finite(*(array[children] for array in below), sure=bool(levels))
            low, high, total = (part.reshape(-1, FAN) for part in parts)
            below = Level(
                put(old.low, first, low.min(axis=1)),
                put(old.high, first, high.max(axis=1)),
                put(old.total, first, total.sum(axis=1)),
            )
            size *= FAN
            levels.append(below)
        return Pyramid(values, length, tuple(levels), self.finite and bool(np.isfinite(new).all()))

    def summarize(self, edges: Int64[np.ndarray, " edges"]) -> Level:
        """What is to be known of each ``values[edges[j]:edges[j + 1]]``.

        Costs O(len(edges) · log(values)), about half a millisecond for 2,000 edges.

        Args:
          edges: int64[m + 1], in order, from 0 to ``length``.

        Returns:
          Arrays of m.
        """
        if len(edges) == 2 and edges[1] - edges[0] <= FEW:  # as when a picture is made again
            values = self.values[edges[0] : edges[1]]
            values = values if self.finite else values[np.isfinite(values)]
            if len(values):
                low, high = values.min(keepdims=True), values.max(keepdims=True)
                return Level(low, high, values.sum(dtype=np.float64, keepdims=True))
        found = Level(
            np.full(len(edges) - 1, np.inf, np.float32),
            np.full(len(edges) - 1, -np.inf, np.float32),
            np.zeros(len(edges) - 1),
        )
        level, sure = Level(self.values, self.values, self.values), self.finite
        start, stop = edges[:-1], edges[1:]
        for above in self.levels:
            if stop[-1] - start[0] <= max(FEW, (AT_ONCE if sure else AT_ONCE_MIXED) * len(start)):
                break
            _ends(level, sure, start, stop, found)
            level, start, stop, sure = above, -(-start // FAN), stop // FAN, True
        _middle(level, sure, start, stop, found)
        return found


_NOTHING = Level(np.zeros(0, np.float32), np.zeros(0, np.float32), np.zeros(0))
_HOW = (np.minimum, np.maximum, np.add)  # groups are joined, array by array of a Level


def put(array: Any, at: int, new: Shaped[np.ndarray, " n"]) -> Any:
    """The array with ``new`` written at a place: itself, or a copy with more room at its end."""
    stop = at + len(new)
    if stop > len(array):
        # Zeros cost no memory until they are written to. Rows of FAN values must fit in.
        room = max(64, stop + stop // 4)
        larger = np.zeros(room + -room % FAN, array.dtype)
        larger[:at] = array[:at]
        array = larger
    array[at:stop] = new
    return array


def _finite(low: Any, high: Any, total: Any, *, sure: bool) -> tuple[Any, Any, Any]:
    """Values for a minimum, a maximum and a sum, in which those that are not finite do not count."""
    if sure:
        return low, high, total.astype(np.float64, copy=False)
    known = np.isfinite(low)
    low, high = np.where(known, low, np.float32(np.inf)), np.where(known, high, np.float32(-np.inf))
    return low, high, np.where(known, total, np.float64(0))


def _ends(level: Level, sure: bool, start: Any, stop: Any, found: Level) -> None:
    """Counts what of ``level[start:stop]`` lies before the first whole row of FAN, and after the last.

    An edge cuts through one row. What lies left of it belongs to the column before, what lies right of it
    to the next one. Of a column that begins and ends in the same row all is counted as its beginning.
    """
    left, right = np.concatenate([start[:1], stop]), np.concatenate([start, stop[-1:]])
    row = left // FAN
    begin = FAN * np.arange(len(row))  # where each edge's row begins, once they lie one after another
    left, right = begin + left - row * FAN, begin + right - row * FAN
    same = row[1:] == row[:-1]
    first_stop = begin[1:].copy()
    first_stop[same] = left[1:][same] - FAN
    cuts = np.stack([begin[:-1], left[:-1], right[:-1], first_stop], axis=1).ravel()
    cuts = np.append(cuts, [begin[-1], left[-1]])
    row = np.minimum(row, len(level.low) // FAN - 1)  # past the end nothing is counted
    rows = [array.reshape(-1, FAN)[row].ravel() for array in level]
    cuts = np.minimum(cuts, len(rows[0]) - 1)
    # A row that a column begins with and has as a whole is left to the level above.
    head = (right[:-1] < first_stop) & (same | (right[:-1] > begin[:-1]))
    tail = ~same & (left[1:] > begin[1:])
    for join, known, values in zip(_HOW, found, _finite(*rows, sure=sure), strict=True):
        parts = join.reduceat(values, cuts)
        # reduceat gives the value at its beginning for a part that is empty
        join(known, parts[2::4], out=known, where=head)
        join(known, parts[4::4], out=known, where=tail)


def _middle(level: Level, sure: bool, start: Any, stop: Any, found: Level) -> None:
    """Counts all of ``level[start:stop]``."""
    filled = np.flatnonzero(start < stop)
    if not len(filled):
        return
    start, stop = start[filled], stop[filled]
    first, last = int(start[0]), int(stop[-1])
    adjacent = bool((start[1:] == stop[:-1]).all())
    cuts = start if adjacent else np.stack([start, stop], axis=1).ravel()[:-1]
    every = slice(None) if adjacent else slice(None, None, 2)
    values = _finite(*(array[first:last] for array in level), sure=sure)
    for join, known, row in zip(_HOW, found, values, strict=True):
        known[filled] = join(known[filled], join.reduceat(row, cuts - first)[every])
