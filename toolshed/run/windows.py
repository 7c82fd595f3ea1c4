"""Windows: values by step, thinned to the columns of a screen."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from toolshed.run.columns import columns_of, together
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
    _, low, high, total, finite, steps, odd = together([columns_of(*piece, width) for piece in pieces])
    some = finite > 0
    if not some.all():
        low, high, total, finite, steps = (array[some] for array in (low, high, total, finite, steps))
    return Window(steps, low, high, odd[odd >= 0], (total / finite).astype(np.float32))


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
