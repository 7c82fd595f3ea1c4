"""Lines: values by step, smoothed, and drawn with few points. Numbers alone, no drawing."""

from __future__ import annotations

from typing import Any

import numpy as np

COLUMNS = 1200
"""Places along a panel; of more values each place shows the lowest and the highest."""

Points = tuple[Any, Any]  # steps and values, as in a Series


def smooth(steps: Any, values: Any, weight: float, stride: float = 1.0) -> Any:
    """An exponential average over steps, in which the first values count no more than they should.

    Value t is ``Σ wᵍ xᵢ / Σ wᵍ`` over all i up to t whose xᵢ is finite, g the number of strides from i to
    t: the average that begins at 0, divided by what it would be for ones. Since it goes by steps, lines
    that are logged each step and each hundredth are smoothed over the same time. NaN at values that are
    not finite themselves.

    Args:
      steps: int[n], increasing.
      values: float[n].
      weight: w, how much of the average is left after one stride, from 0 to below 1.
      stride: steps.

    Returns:
      float64[n].

    References:
      D. Kingma and J. Ba, "Adam: a method for stochastic optimization", 2015, section 3: the division.
    """
    finite = np.isfinite(values)
    total, count = np.where(finite, values, 0.0).astype(np.float64), finite.astype(np.float64)
    back = 1
    # After the pass of 2ᵏ each sum has the last 2ᵏ⁺¹ values: its own, and those of the sum before them.
    while back < len(total):
        left = weight ** ((steps[back:] - steps[:-back]) / stride)
        if left.max() < 1e-12:
            break
        for sums in (total, count):
            sums[back:] += left * sums[:-back]
        back *= 2
    return np.where(finite, total / np.where(finite, count, 1.0), np.nan)


def stride_of(steps: Any) -> float:
    """How far neighbours lie apart, most of them."""
    return float(np.median(np.diff(steps)))


def smoothed(steps: Any, values: Any, smoothing: float, stride: float) -> Any:
    """The smoothed line; the values themselves where they lie so far apart that it would be the same."""
    if not smoothing or len(steps) < 2 or smoothing ** (stride_of(steps) / stride) < 0.02:
        return values
    return smooth(steps, values, smoothing, stride)


def outline(steps: Any, values: Any, columns: int = COLUMNS) -> Points:
    """A line with the same picture through far fewer points: the lowest and the highest of each column.

    Args:
      steps: int[n], increasing.
      values: float[n]; those that are not finite make gaps.
      columns: places along the axis.
    """
    values = np.where(np.isfinite(values), values, np.nan)
    if len(steps) <= 2 * columns:
        return steps, values
    column = ((steps - steps[0]) * (columns / (steps[-1] - steps[0] + 1))).astype(np.int64)
    starts = np.flatnonzero(np.diff(column, prepend=-1))
    # fmin and fmax pass over NaN, and give it where there is nothing else
    extremes = np.stack([np.fmin.reduceat(values, starts), np.fmax.reduceat(values, starts)], axis=1)
    extremes[1::2] = extremes[1::2, ::-1]  # down and up in turn, so that no line goes back and forth
    return np.repeat(steps[starts], 2), extremes.ravel()


def spread(steps: Any, most: int = 150) -> Any:
    """Steps, or where there are many the first of each of ``most`` equal parts."""
    if len(steps) <= most:
        return steps
    part = (steps - steps[0]) * most // (steps[-1] - steps[0] + 1)
    return steps[np.unique(part, return_index=True)[1]]


def alone(steps: Any, values: Any) -> Any:
    """Indices of the finite values that have none at another step before or after them, int64[k]."""
    ends = np.flatnonzero(np.diff(np.isfinite(values).astype(np.int8), prepend=0, append=0))
    first, last = ends[::2], ends[1::2] - 1
    return first[steps[first] == steps[last]]
