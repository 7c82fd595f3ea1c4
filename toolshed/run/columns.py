"""Columns: what is to be known of a track's values in columns that are equally wide in steps.

A picture of a growing line is made again and again, and all of its columns but the last are the same each
time. So those that are complete are kept, and a picture costs what has come since the one before.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Float64, Int64

from toolshed.run.track import Track

_WIDTHS = 4  # whose columns are kept: the whole line, and windows that somebody looks at


class Columns(NamedTuple):
    """Columns that lie one after another; the one of number c has the steps from c · width on.

    Attributes:
      begin: the number of the first one.
      low, high: lowest and highest finite value, float32[n]; +inf and -inf where there is none.
      total: the sum of the finite values, float64[n].
      finite: how many they are, int64[n].
      steps: the first step with any value, int64[n]; -1 where there is none.
      odd: the first step whose value is NaN or infinite, int64[n]; -1 where there is none.
    """

    begin: int
    low: Float32[np.ndarray, " n"]
    high: Float32[np.ndarray, " n"]
    total: Float64[np.ndarray, " n"]
    finite: Int64[np.ndarray, " n"]
    steps: Int64[np.ndarray, " n"]
    odd: Int64[np.ndarray, " n"]

    @property
    def end(self) -> int:
        """The number after that of the last one."""
        return self.begin + len(self.low)

    def part(self, begin: int, end: int) -> Columns:
        """The columns from one number to before another."""
        own = slice(begin - self.begin, end - self.begin)
        return Columns(begin, *(array[own] for array in self[1:]))

    def then(self, other: Columns) -> Columns:
        """These, and the others behind them."""
        return Columns(self.begin, *map(_joined, self[1:], other[1:]))


def columns_of(track: Track, start: int, stop: int, width: int) -> Columns:
    """The columns of a track's values from one index to before another, at least one.

    Reads what is kept with the track, and keeps more. Several threads may do so at once.

    Args:
      track: the values.
      start, stop: indices. Values outside do not count.
      width: of a column, in steps.
    """
    begin, last = (int(track.steps_at(index)) // width for index in (start, stop - 1))
    parts: list[Columns] = []
    if start > track.place(begin * width):  # the first column has more before
        edge = min(stop, track.place((begin + 1) * width))
        parts.append(_look(track, begin, np.array([start, edge])))
        begin += 1
    known = track.kept.columns.get(width)
    if known is not None and known.begin <= begin < known.end:
        parts.append(known.part(begin, min(known.end, last)))
        begin = parts[-1].end
    if begin <= last:
        numbers = np.arange(begin, last + 1)
        edges = np.append(track.before(numbers * width), stop)
        found = _look(track, begin, edges)
        parts.append(found)
        complete = found.part(begin, last)  # the last one may become more
        if known is not None and known.end == begin:
            complete = known.then(complete)
        if known is None or len(complete.low) > len(known.low):
            track.kept.columns = dict([*track.kept.columns.items(), (width, complete)][-_WIDTHS:])
    columns = parts[0]
    for part in parts[1:]:
        columns = columns.then(part)
    return columns


def _look(track: Track, begin: int, edges: Any) -> Columns:
    low, high, total = track.pyramid.summarize(edges)
    steps = np.where(edges[:-1] < edges[1:], track.steps_at(np.minimum(edges[:-1], track.length - 1)), -1)
    odd = np.full(len(steps), -1)
    if track.odd_count:
        places = track.odd_in(edges)
        some = places >= 0
        odd[some] = track.steps_at(places[some])
    return Columns(begin, low, high, total, track.finite_in(edges), steps, odd)


def _joined(one: Any, other: Any) -> Any:
    return np.concatenate((one, other))
