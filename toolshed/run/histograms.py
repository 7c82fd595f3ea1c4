"""Histograms of one array over time, out of the states that a run's timeline keeps."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
from jaxtyping import Int64

from toolshed import paths
from toolshed.errors import RunError
from toolshed.insight import leaf_statistics
from toolshed.run.control import Control
from toolshed.run.engine import Engine
from toolshed.run.timeline import Snapshot
from toolshed.state import TrainState

KEPT = ("params", "opt_state", "model_state")
"""What a snapshot holds as it is. All else is computed again, in the one step after it."""


def histograms_over_time(
    engine: Engine, control: Control, path: str, most: int
) -> dict[int, Int64[np.ndarray, "49"]]:
    """The counts of an array by step; see `Run.histograms`.

    The run's thread is asked for one after another, so that a training waits for no more than one step
    between two of its own.
    """
    branch, steps = control.ask(lambda: (engine.timeline.current, _steps(engine, path, most)))
    found = {}
    for step in steps:
        counts = control.ask(lambda step=step: _counts(engine, path, step, branch), moves=True)
        if counts is not None:
            found[step] = counts
    return found


def _steps(engine: Engine, path: str, most: int) -> list[int]:
    """Steps at which the array can be had at once: at most so many, evenly spread."""
    kept = {snapshot.step for snapshot in _snapshots(engine)}
    if _is_kept(path):
        every = sorted({*kept, engine.step})
    else:
        every = sorted(step + 1 for step in kept if step < engine.timeline.here.head)
    if not every:
        raise RunError(f"No step was made yet, so there is nothing to be seen of {path}.")
    chosen = np.unique(np.linspace(0, len(every) - 1, min(len(every), most)).astype(int))
    return [every[place] for place in chosen]


def _snapshots(engine: Engine) -> Iterator[Snapshot]:
    """The snapshots in memory on the line that leads to the present branch, with all edits of their step."""
    part, end = engine.timeline.here, engine.timeline.here.head
    while True:
        yield from (one for one in part.snapshots if isinstance(one, Snapshot) and one.step <= end)
        if part.parent is None:
            return
        part, end = engine.timeline.segments[part.parent], min(end, part.start)


def _counts(engine: Engine, path: str, step: int, branch: str) -> Int64[np.ndarray, "49"] | None:
    """The histogram at a step; None where its snapshot is gone meanwhile."""
    if not _is_kept(path):
        leaf = engine.explain(step, branch)[path]
        if not hasattr(leaf, "dtype"):
            raise RunError(f"{path} is no array but {paths.describe(leaf)}; name one of the arrays in it.")
        return leaf_statistics({path: leaf})[path].histogram
    state = engine.live_state() if step == engine.step else _kept_at(engine, step)
    if state is None:
        return None
    leaves: dict[str, Any] = paths.flatten({_field(path): getattr(state, _field(path))})
    if path not in leaves:
        raise paths.missing(path, leaves, "this state")
    return leaf_statistics({path: leaves[path]})[path].histogram


def _kept_at(engine: Engine, step: int) -> TrainState | None:
    return next((one.state for one in _snapshots(engine) if one.step == step), None)


def _field(path: str) -> str:
    return path.partition("/")[0]


def _is_kept(path: str) -> bool:
    return _field(path) in KEPT
