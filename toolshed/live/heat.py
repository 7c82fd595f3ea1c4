"""Heat: what a run's watches have seen, thinned to the cells of a screen, in bounded size."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float, Float32, Int64

from toolshed.live.frames import NAME, bind
from toolshed.live.scene import clip
from toolshed.run import LeafHistory
from toolshed.run.windows import column_width
from toolshed.views.panels import common_start

MAPS = 4
"""Patterns that are drawn: the first; a run may watch more."""
ROWS = 40
"""Arrays of a map that are drawn at once; of more one looks at a page."""
COLUMNS = 200
CELLS = 16_000
"""Cells of all maps together: with 4 bytes each an update stays below 70 kB."""


class Heat(NamedTuple):
    """One statistic of some arrays over time.

    Attributes:
      pattern: of the watch.
      statistic: which one.
      statistics: which there are.
      every: steps between two looks.
      paths: of the arrays, one a row.
      cut: how many characters all paths of the pattern begin with.
      start: how many arrays come before the first row.
      total: how many arrays there are.
      steps: the first step of each column, int64[columns].
      values: of each column the value of the largest magnitude, NaN before infinities before numbers;
        float32[rows, columns].
    """

    pattern: str
    statistic: str
    statistics: tuple[str, ...]
    every: int
    paths: tuple[str, ...]
    cut: int
    start: int
    total: int
    steps: Int64[np.ndarray, " columns"]
    values: Float32[np.ndarray, "rows columns"]


def heats(
    watched: Mapping[str, LeafHistory],
    settings: Mapping[str, Any],
    *,
    rows: int = ROWS,
    cells: int = CELLS,
    part: tuple[float, float] | None = None,
) -> tuple[Heat, ...]:
    """The maps of what is watched.

    Args:
      watched: by pattern.
      settings: what a person chose in the dashboard: ``watched`` has by pattern the ``statistic`` and the
        first row, ``start``.
      rows: of a map, at most.
      cells: of all maps together, at most.
      part: the first and the last step to be seen, None for all.
    """
    chosen = settings.get("watched")
    chosen = chosen if isinstance(chosen, Mapping) else {}
    shown = list(watched.values())[:MAPS]
    height = sum(min(len(history.paths), rows) for history in shown)
    columns = min(COLUMNS, cells // max(1, height))
    return tuple(_heat(history, chosen.get(history.pattern), rows, columns, part) for history in shown)


def _heat(
    history: LeafHistory, choice: Any, rows: int, columns: int, part: tuple[float, float] | None
) -> Heat:
    choice = choice if isinstance(choice, Mapping) else {}
    statistic, start = choice.get("statistic"), choice.get("start")
    statistic = statistic if statistic in history.statistics else history.statistics[0]
    total = len(history.paths)
    start = start if isinstance(start, int) and 0 <= start < total else 0
    steps, values = history.values(statistic)
    if part is not None:  # a look stands for the steps up to the next one
        own = slice(
            max(int(np.searchsorted(steps, part[0], "right")) - 1, 0),
            np.searchsorted(steps, part[1], "right"),
        )
        steps, values = steps[own], values[own]
    steps, values = thin(steps, values[:, start : start + rows], columns)
    return Heat(
        history.pattern,
        statistic,
        history.statistics,
        history.every,
        history.paths[start : start + rows],
        common_start(history.paths),
        start,
        total,
        steps,
        np.ascontiguousarray(values.T),
    )


def thin(
    steps: Int64[np.ndarray, " n"], values: Float[np.ndarray, "n rows"], columns: int
) -> tuple[Int64[np.ndarray, " m"], Float32[np.ndarray, "m rows"]]:
    """Values in at most so many columns, each with what is largest in magnitude in it."""
    if len(steps) > columns:
        width = column_width(int(steps[-1] - steps[0]) + 1, columns)
        starts = np.flatnonzero(np.diff(steps // width, prepend=-1))
        high, low = (pool.reduceat(values, starts, axis=0) for pool in (np.maximum, np.minimum))
        steps, values = steps[starts], np.where(high >= -low, high, low)  # both are NaN where there is one
    return steps, values.astype(np.float32)


def pack_heats(maps: tuple[Heat, ...], left_out: int) -> bytes:
    """The bytes of some maps, as `toolshed.live.frames` says.

    The header has ``left_out``, the number of patterns that are not drawn, and ``maps``. The arrays of each
    are its steps, uint32[columns] as offsets from the ``first``, and its values, float32[rows, columns].
    """
    header = {"left_out": left_out, "maps": [_header(one) for one in maps]}
    arrays = []
    for one in maps:
        first = int(one.steps[0]) if len(one.steps) else 0
        arrays += [(one.steps - first).astype("<u4"), one.values.astype("<f4")]
    return bind(header, arrays)


def _header(one: Heat) -> dict[str, Any]:
    return {
        "pattern": one.pattern,
        "statistic": one.statistic,
        "statistics": list(one.statistics),
        "every": one.every,
        "rows": [_short(path) for path in one.paths],
        "cut": one.cut if one.cut < NAME else 0,
        "start": one.start,
        "total": one.total,
        "first": int(one.steps[0]) if len(one.steps) else 0,
        "columns": len(one.steps),
    }


def _short(path: str) -> str:
    """A path of bounded length; what is left out is in the middle, for the end tells arrays apart."""
    return path if len(path) <= NAME else f"{clip(path, NAME // 2)}{path[-(NAME // 2) :]}"
