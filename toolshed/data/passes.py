"""Batches for a given number of steps out of any iterable, over as many passes as it takes."""

from __future__ import annotations

import warnings
from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from toolshed.errors import DataError, ExhaustedWarning


def feed(data: Iterable[Any], steps: int | None) -> Iterator[Any]:
    """Yields ``steps`` batches, iterating ``data`` again at its end; or one pass where steps is None.

    Raises:
      DataError: there is no batch at all, or ``data`` cannot be iterated.
    """
    if steps is not None:
        if not isinstance(steps, (int, np.integer)):
            raise DataError(f"steps is {steps!r}; expected a whole number, or None for one pass.")
        if steps < 0:
            raise DataError(f"steps is {steps}; expected at least 0.")
    if isinstance(data, Mapping):
        raise DataError(
            f"Expected an iterable of batches, got one dict with {', '.join(map(str, data)) or 'no entry'}."
            " For a single batch pass [batch]; for arrays, toolshed.data.from_arrays."
        )
    if not isinstance(data, Iterable):
        raise DataError(f"Expected an iterable of batches, got {type(data).__name__}.")
    return _feed(data, steps)


def _feed(data: Iterable[Any], steps: int | None) -> Iterator[Any]:
    done, passes_end = 0, None
    while steps != done and passes_end != done:
        passes_end = done
        for batch in data:
            done += 1
            yield batch
            if done == steps:
                return
        if steps is None:
            break
    if done == 0 and steps != 0:
        raise DataError(
            "The data gave no batch. If it is a generator, it is used up: pass something that can be"
            " iterated again, such as toolshed.data.from_arrays or a list."
        )
    if steps is not None and done < steps:
        warnings.warn(
            f"The data ended after {done} of {steps} steps and cannot be iterated again. Pass something"
            " that can, such as toolshed.data.from_arrays or a list.",
            ExhaustedWarning,
            stacklevel=3,
        )
