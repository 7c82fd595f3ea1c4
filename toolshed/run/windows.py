"""Windows: values by step, thinned to the columns of a screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from toolshed.run.columns import columns_of
from toolshed.run.track import Series, Track


class Window(NamedTuple):
    """A series thinned to a screen, in columns that are equally wide in steps.

    Attributes:
      steps: the first step of each column, int64[m]. A column without a finite value is left out.
      low, high: lowest and highest finite value of each column, float32[m]; equal where it has one.
      nonfinite: steps whose value is NaN or infinite, int64[k]: all of them, or the first of each column.
      mean: the mean of each column's finite values, float32[m].
    """

    steps: Int64[np.ndarray, " m"]
    low: Float32[np.ndarray, " m"]
    high: Float32[np.ndarray, " m"]
    nonfinite: Int64[np.ndarray, " k"]
    mean: Float32[np.ndarray, " m"]


class Piece(NamedTuple):
    """A part of a line: the values of one track from one index to before another, at least one."""

    track: Track
    start: int
    stop: int

    @property
    def first_step(self) -> int:
        """The step of its first value."""
        return int(self.track.steps_at(self.start))

    @property
    def last_step(self) -> int:
        """The step of its last value."""
        return int(self.track.steps_at(self.stop - 1))

    @property
    def series(self) -> Series:
        """Its values."""
        return self.track.cut(self.start, self.stop)


def join(pieces: Iterable[Piece]) -> Series:
    """All values of a line. Of a single piece they are not copied."""
    parts = [piece.series for piece in pieces]
    if len(parts) == 1:
        return parts[0]
    steps = [np.zeros(0, np.int64), *(part.steps for part in parts)]
    values = [np.zeros(0, np.float32), *(part.values for part in parts)]
    return Series(np.concatenate(steps), np.concatenate(values))


def thin(pieces: list[Piece], points: int) -> Window:
    """The window of a line that shows all its values in at most so many columns.

    Args:
      pieces: in the order of their steps.
      points: columns, at least 2. A line of no more values is given as it is.
    """
    if sum(piece.stop - piece.start for piece in pieces) <= points:
        return _whole(join(pieces))
    first, last = pieces[0].first_step, pieces[-1].last_step
    width = column_width(last - first + 1, points)
    origin = first // width
    count = last // width - origin + 1
    steps, odd = np.full(count, -1), np.full(count, -1)
    low = np.full(count, np.inf, np.float32)
    high, total, finite = -low, np.zeros(count), np.zeros(count, np.int64)
    for piece in pieces:
        columns = columns_of(*piece, width)
        own = slice(columns.begin - origin, columns.end - origin)
        np.minimum(low[own], columns.low, out=low[own])
        np.maximum(high[own], columns.high, out=high[own])
        total[own] += columns.total
        finite[own] += columns.finite
        for known, found in ((steps[own], columns.steps), (odd[own], columns.odd)):
            np.copyto(known, found, where=known < 0)
    some = finite > 0
    mean = (total[some] / finite[some]).astype(np.float32)
    return Window(steps[some], low[some], high[some], odd[odd >= 0], mean)


def column_width(span: int, points: int) -> int:
    """Steps in a column, so that at most ``points`` of them cover ``span`` steps from anywhere on.

    It is 1, 2, 3, or 4, 5, 6 or 7 times a power of two, and columns begin at its multiples. So they stay
    the same while a line grows or the window moves by a little, and the picture does not flicker.
    """
    width = -(-span // (points - 1))
    coarse = max(0, width.bit_length() - 3)
    return -(-width >> coarse) << coarse if coarse else width


def _whole(series: Series) -> Window:
    finite = np.isfinite(series.values)
    values = series.values[finite]
    return Window(series.steps[finite], values, values, series.steps[~finite], values)
