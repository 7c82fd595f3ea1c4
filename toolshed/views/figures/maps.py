"""Maps: numbers in rows and columns as colours: activations, attention, statistics over time, confusion."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from toolshed import paths
from toolshed.errors import ToolshedError
from toolshed.views.look import DARK, LIGHT, Look, name_axes, sheet, themed
from toolshed.views.panels import common_start, printable, short

MOST_NAMES = 60
"""Rows or columns that have names beside them."""
MOST_CELLS = 20
"""Rows of a matrix in whose cells the numbers are written."""


@themed
def heat_map(
    values: Any,
    *,
    rows: Sequence[Any] | None = None,
    columns: Sequence[Any] | None = None,
    title: str = "",
    x: str = "",
    y: str = "",
    unit: str = "",
    log: bool = False,
    dark: bool | None = None,
) -> Any:
    """A matrix as colours: activations of units by example, attention of one position to others.

    Values of both signs have a scale around 0, others one from the smallest to the largest. What is not
    finite is hatched.

    Args:
      values: float[rows, columns]; a named array is taken by its axes' order.
      rows: names beside the rows, from the top.
      columns: names below the columns.
      title: above the figure.
      x: what the columns are.
      y: what the rows are.
      unit: what the colours are.
      log: colours by log10 of the magnitude.
      dark: for a dark ground.

    Raises:
      ToolshedError: that is no matrix, or there are more or fewer names than rows or columns.
    """
    look = DARK if dark else LIGHT
    matrix = _matrix(values)
    for names, size, what in ((rows, matrix.shape[0], "rows"), (columns, matrix.shape[1], "columns")):
        if names is not None and len(names) != size:
            raise ToolshedError(f"There are {len(names)} names for {size} {what}; expected one each.")
    figure, axes = _drawn(matrix, look, log=log, unit=unit, shape=_size(matrix.shape))
    _name(axes, "y", rows, matrix.shape[0])
    _name(axes, "x", columns, matrix.shape[1])
    name_axes(axes, look, title=title, x=x, y=y)
    return figure


@themed
def history_map(
    history: Any, statistic: str | None = None, *, title: str | None = None, dark: bool | None = None
) -> Any:
    """A statistic of many arrays over time: a row for each, from left to right in steps, log10 as colours.

    Args:
      history: what ``run.watch(pattern)`` gives.
      statistic: one of ``history.statistics``; by default the first.
      title: above the figure; by default the pattern and the statistic.
      dark: for a dark ground.

    Raises:
      ToolshedError: nothing was seen yet, or there is no such statistic.
    """
    look = DARK if dark else LIGHT
    statistic = statistic or history.statistics[0]
    if statistic not in history.statistics:
        known = ", ".join(history.statistics)
        raise ToolshedError(f"There is no {statistic!r} in this watch; it has {known}.")
    steps, values = history.values(statistic)
    if not len(steps):
        raise ToolshedError(f"Nothing was seen of {history.pattern!r} yet. Train for some steps first.")
    start = common_start(history.paths)
    names = [path[start:] for path in history.paths]
    height = 0.9 + 0.17 * min(max(len(names), 4), MOST_NAMES)
    figure, axes = _drawn(
        np.asarray(values).T, look, log=True, unit=f"log10 {statistic}", shape=(6.4, height)
    )
    _name(axes, "y", names, len(names))
    places = np.unique(np.linspace(0, len(steps) - 1, min(len(steps), 6)).astype(int))
    axes.set_xticks(places)
    axes.set_xticklabels([f"{int(steps[place]):,}" for place in places])
    name_axes(axes, look, title=title or f"{history.pattern} · {statistic}", x="step")
    return figure


@themed
def confusion_matrix(
    counts: Any,
    *,
    labels: Sequence[Any] | None = None,
    title: str = "",
    dark: bool | None = None,
) -> Any:
    """How often each class (row) was taken for each (column), in shares of its row as colours.

    Args:
      counts: numbers or shares [classes, classes], as `toolshed.metrics.ConfusionMatrix` computes them.
      labels: names of the classes.
      title: above the figure.
      dark: for a dark ground.

    Raises:
      ToolshedError: that is no square matrix, or there are more or fewer labels than classes.
    """
    look = DARK if dark else LIGHT
    matrix = _matrix(counts)
    n = matrix.shape[0]
    if matrix.shape != (n, n):
        raise ToolshedError(f"The matrix is {matrix.shape[0]} by {matrix.shape[1]}; expected a square one.")
    if labels is not None and len(labels) != n:
        raise ToolshedError(f"There are {len(labels)} labels for {n} classes; expected one each.")
    whole = matrix.sum(axis=1, keepdims=True)
    shares = np.divide(matrix, whole, out=np.zeros_like(matrix), where=whole != 0)
    side = min(max(2.6, 0.42 * n + 1.2), 8)
    figure, axes = _drawn(shares, look, unit="share of the row", shape=(side + 0.7, side), limits=(0.0, 1.0))
    if n <= MOST_CELLS:
        _write_cells(axes, matrix, shares)
    _name(axes, "y", labels, n)
    _name(axes, "x", labels, n)
    name_axes(axes, look, title=title, x="predicted", y="true")
    return figure


# --- one map ------------------------------------------------------------------------------------------


def _matrix(values: Any) -> np.ndarray:
    values = values.unwrap(*values.named_shape) if hasattr(values, "named_shape") else values
    matrix = np.asarray(values)
    if matrix.ndim != 2 or not matrix.size or matrix.dtype == object:
        raise ToolshedError(f"Expected a matrix of numbers, got {paths.describe(values)}.")
    return matrix.astype(np.float64)


def _size(shape: tuple[int, ...]) -> tuple[float, float]:
    """A figure in inches whose cells are nearly square where there are few."""
    rows, columns = shape
    return min(max(3.2, 0.16 * columns + 1.6), 8.0), min(max(2.2, 0.16 * rows + 1.0), 8.0)


def _drawn(
    matrix: np.ndarray,
    look: Look,
    *,
    shape: tuple[float, float],
    unit: str = "",
    log: bool = False,
    limits: tuple[float, float] | None = None,
) -> tuple[Any, Any]:
    """The figure with the matrix, and the scale of its colours."""
    import matplotlib

    if log:
        with np.errstate(divide="ignore", invalid="ignore"):
            matrix = np.log10(np.abs(matrix))
    shown = np.ma.masked_invalid(matrix)
    figure, axes = sheet(*shape, look)
    axes.grid(False)
    low, high = limits or (float(shown.min()), float(shown.max())) if shown.count() else (0.0, 1.0)
    is_signed = limits is None and not log and low < 0 < high
    if is_signed:
        low, high = -max(-low, high), max(-low, high)
    # on a dark ground nothing is dark; "berlin" came with matplotlib 3.10
    signed = "berlin" if look == DARK and "berlin" in matplotlib.colormaps else "RdBu_r"
    colors = matplotlib.colormaps[signed if is_signed else "viridis"]
    axes.patch.set(hatch="////", edgecolor=look.faint, lw=0)
    image = axes.imshow(
        shown, cmap=colors, vmin=low, vmax=high, aspect="auto", interpolation="nearest", zorder=2
    )
    bar = figure.colorbar(image, ax=axes, fraction=0.04, pad=0.02)
    bar.outline.set_visible(False)
    bar.ax.tick_params(labelsize=7, labelcolor=look.ink, length=0)
    bar.set_label(printable(unit, 40), fontsize=7.5, color=look.ink)
    axes.tick_params(axis="x", length=0)
    return figure, axes


def _name(axes: Any, side: str, names: Sequence[Any] | None, count: int) -> None:
    """Names beside rows or below columns; without names their numbers, of many some."""
    step = -(-count // (MOST_NAMES if names is not None else 12))
    places = list(range(0, count, step))
    words = [str(place) if names is None else printable(str(names[place]), 40) for place in places]
    axis = axes.yaxis if side == "y" else axes.xaxis
    axis.set_ticks(places)
    is_long = side == "x" and max(map(len, words)) > 3 and len(words) > 6
    turned = {"rotation": 60, "ha": "right"} if is_long else {}
    axis.set_ticklabels(words, parse_math=False, **turned)
    axis.set_tick_params(labelsize=6.5)


def _write_cells(axes: Any, matrix: np.ndarray, shares: np.ndarray) -> None:
    """The numbers in the cells, dark on light colours and light on dark ones."""
    for (row, column), value in np.ndenumerate(matrix):
        if value:
            ink = "#000000" if shares[row, column] > 0.55 else "#ffffff"
            axes.text(
                column, row, short(value, 3), ha="center", va="center", fontsize=6.5, color=ink, zorder=3
            )
