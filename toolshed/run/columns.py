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
_MOST = 4096  # columns of a width that are kept: the last ones, as a window may move on with a line


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
        return Columns(self.begin, *map(np.concatenate, zip(self[1:], other[1:], strict=True)))


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
    if known is not None and known.begin <= begin < min(known.end, last):
        parts.append(known.part(begin, min(known.end, last)))
        begin = parts[-1].end
    if begin <= last:
        numbers = np.arange(begin, last + 1)
        edges = np.append(track.before(numbers * width), stop)
        found = _look(track, begin, edges)
        parts.append(found)
        if begin < last:  # the last one may become more
            _keep(track, width, known, found.part(begin, last))
    columns = parts[0]
    for part in parts[1:]:
        columns = columns.then(part)
    return columns


def together(parts: list[Columns]) -> Columns:
    """The columns of a line in several parts, of which the end of one and the next may share a column.

    Args:
      parts: in their order, at least one.
    """
    if len(parts) == 1:
        return parts[0]
    begin, count = parts[0].begin, parts[-1].end - parts[0].begin
    low, steps, odd = np.full(count, np.inf, np.float32), np.full(count, -1), np.full(count, -1)
    high, total, finite = -low, np.zeros(count), np.zeros(count, np.int64)
    for part in parts:
        own = slice(part.begin - begin, part.end - begin)
        np.minimum(low[own], part.low, out=low[own])
        np.maximum(high[own], part.high, out=high[own])
        total[own] += part.total
        finite[own] += part.finite
        for known, found in ((steps[own], part.steps), (odd[own], part.odd)):
            np.copyto(known, found, where=known < 0)
    return Columns(begin, low, high, total, finite, steps, odd)


def _keep(track: Track, width: int, known: Columns | None, complete: Columns) -> None:
    """Keeps complete columns, at least one: behind the known ones, or where they are more, in their place."""
    if known is not None:
        if known.end == complete.begin:
            complete = known.then(complete)
        elif len(complete.low) <= len(known.low):
            return
    complete = complete.part(max(complete.begin, complete.end - _MOST), complete.end)
    complete = Columns(complete.begin, *map(np.copy, complete[1:]))  # whoever asked may write to theirs
    others = [(other, columns) for other, columns in track.kept.columns.items() if other != width]
    track.kept.columns = dict([*others, (width, complete)][-_WIDTHS:])


def _look(track: Track, begin: int, edges: Any) -> Columns:
    low, high, total = track.pyramid.summarize(edges)
    steps = np.where(edges[:-1] < edges[1:], track.steps_at(np.minimum(edges[:-1], track.length - 1)), -1)
    odd = np.full(len(steps), -1)
    if track.odd_count:
        places = track.odd_in(edges)
        some = places >= 0
        odd[some] = track.steps_at(places[some])
    return Columns(begin, low, high, total, track.finite_in(edges), steps, odd)
