"""Track: the values of one name on one branch, by step."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float32, Int64

from toolshed.run.pyramid import Pyramid, put

Floats = Float32[np.ndarray, " n"]
Steps = Int64[np.ndarray, " n"]


class Series(NamedTuple):
    """Values by step.

    Attributes:
      steps: int64[n], strictly increasing.
      values: float32[n], NaN and infinities as they came.
    """

    steps: Steps
    values: Floats


class Kept:
    """What was found out about values that will not change, by what it is: see `columns`."""

    __slots__ = ("columns",)

    def __init__(self) -> None:
        self.columns: dict[int, Any] = {}  # replaced, never changed: several threads read it


class Track(NamedTuple):
    """Values by step that only ever grow in number: a value of its own after each `append`, as `Pyramid`.

    Steps that lie evenly (each one, or every hundredth) take no memory. The first that does not makes an
    array of all, of 4 bytes a value, or 8 once a step passes 2³¹. With the values and the pyramid that is
    4.5, 8.5 or 12.5 bytes a value, and 8 for each that is not finite.

    Attributes:
      pyramid: the values.
      first, stride: the steps are ``first + stride · index``, where ``steps`` is None.
      steps: int32 or int64[capacity], where they do not lie evenly.
      odd: indices of the values that are NaN or infinite, int64[capacity].
      odd_count: how many of them there are.
      kept: shared by all that came of one `empty`.
    """

    pyramid: Pyramid
    first: int
    stride: int
    steps: Any
    odd: Steps
    odd_count: int
    kept: Kept

    @classmethod
    def empty(cls) -> Track:
        """The track of no values."""
        return cls(Pyramid.empty(), 0, 1, None, np.zeros(0, np.int64), 0, Kept())

    @property
    def length(self) -> int:
        """How many values there are."""
        return self.pyramid.length

    @property
    def last(self) -> int:
        """The last step, -1 where there is none."""
        if not self.length:
            return -1
        if self.steps is None:
            return self.first + self.stride * (self.length - 1)
        return int(self.steps[self.length - 1])

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays, room to grow included."""
        return self.pyramid.nbytes + self.odd.nbytes + (0 if self.steps is None else self.steps.nbytes)

    def append(self, steps: Steps, values: Floats) -> Track:
        """The track with more values; their steps must increase from the last one on."""
        length = self.length
        first, stride = self.first, self.stride
        if length < 2:
            head = np.concatenate([self.steps_at(np.arange(length)), steps[:2]])
            first, stride = int(head[0]), int(head[1] - head[0]) if len(head) > 1 else 1
        array = self.steps
        if array is None:
            expected = first + stride * np.arange(length, length + len(steps))
            if not np.array_equal(expected, steps):
                array = first + stride * np.arange(length)
        if array is not None:
            array = put(_narrow(array, int(steps[-1])), length, steps)
        odd = np.flatnonzero(~np.isfinite(values)) + length
        return Track(
            self.pyramid.append(values),
            first,
            stride,
            array,
            put(self.odd, self.odd_count, odd),
            self.odd_count + len(odd),
            self.kept,
        )

    def steps_at(self, index: Any) -> Any:
        """The steps of some values by their indices, int64 in the shape of ``index``."""
        if self.steps is None:
            return self.first + self.stride * index
        return self.steps[index].astype(np.int64)

    def before(self, steps: Steps) -> Steps:
        """For each step how many values lie before it: the index of the first one that does not."""
        if self.steps is None:
            # Many of these are asked for in each picture; np.clip takes five times as long.
            return np.minimum(np.maximum(-((self.first - steps) // self.stride), 0), self.length)
        # Of another type than the array, the steps would make searchsorted copy the whole array.
        kind = np.iinfo(self.steps.dtype)
        known = np.minimum(np.maximum(steps, kind.min), kind.max).astype(self.steps.dtype)
        found = np.searchsorted(self.steps[: self.length], known)
        return np.where(steps > kind.max, self.length, found)

    def place(self, step: int) -> int:
        """The same for one step."""
        if self.steps is None:
            return min(max(-((self.first - step) // self.stride), 0), self.length)
        return int(self.before(np.array([step]))[0])

    def cut(self, start: int, stop: int) -> Series:
        """The values from one index to before another, without copying them."""
        values = self.pyramid.values[start:stop]
        values.flags.writeable = False
        return Series(self.steps_at(np.arange(start, stop)), values)

    def finite_in(self, edges: Steps) -> Int64[np.ndarray, " columns"]:
        """How many finite values are in each ``edges[j]:edges[j + 1]``."""
        if not self.odd_count:
            return edges[1:] - edges[:-1]
        return np.diff(edges) - np.diff(np.searchsorted(self.odd[: self.odd_count], edges))

    def odd_in(self, edges: Steps) -> Int64[np.ndarray, " columns"]:
        """The index of the first value that is not finite in each ``edges[j]:edges[j + 1]``; else -1."""
        odd = self.odd[: self.odd_count]
        place = np.searchsorted(odd, edges)
        found = np.full(len(edges) - 1, -1)
        some = np.flatnonzero(place[:-1] < place[1:])
        found[some] = odd[place[some]]
        return found


def _narrow(array: Any, last: int) -> Any:
    """Steps in the smallest type that holds the last one; itself where that is its type already."""
    small = last <= np.iinfo(np.int32).max
    return array.astype(np.int32 if small else np.int64, copy=False)
