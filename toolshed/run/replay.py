"""Replay: whether steps that were made again came out as they did the first time, and what is still whole."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, NamedTuple

import jax
import numpy as np

from toolshed.paths import flatten
from toolshed.run.track import Series
from toolshed.state import TrainState
from toolshed.training.tape import Rows


class Difference(NamedTuple):
    """The first loss that came out differently.

    Attributes:
      step: the number of steps done with it.
      before: the loss of the first time.
      now: that of the second time.
    """

    step: int
    before: float
    now: float


def first_difference(known: Series, made_again: Iterable[Rows]) -> Difference | None:
    """The first step whose loss is not the known one, bit for bit; None where all are."""
    for rows in made_again:
        at = np.searchsorted(known.steps, rows.steps + 1)
        there = at < len(known.steps)
        before, now = known.values[at[there]], rows.values[there, 0]
        wrong = np.flatnonzero(~((before == now) | (np.isnan(before) & np.isnan(now))))
        if len(wrong):
            first = wrong[0]
            return Difference(int(rows.steps[there][first]) + 1, float(before[first]), float(now[first]))
    return None


def first_leaf(before: TrainState, now: TrainState) -> str | None:
    """The path of the first leaf that differs between two states of one model; None where none does."""
    again = _changing(now)
    for path, leaf in _changing(before).items():
        if not np.array_equal(np.asarray(leaf), np.asarray(again[path]), equal_nan=True):
            return path
    return None


def is_whole(state: Callable[[], TrainState]) -> bool:
    """Whether all arrays of a state can be read. Waits for the device."""
    try:
        there = state()
        there.check_alive()
        jax.block_until_ready(there)
    except Exception:  # what the device raises has no type of its own
        return False
    return True


def _changing(state: TrainState) -> dict[str, Any]:
    """The leaves that a step changes by their paths, parameters first."""
    parts = ("params", "model_state", "opt_state")
    return {path: leaf for name in parts for path, leaf in flatten({name: getattr(state, name)}).items()}
