"""Compared: several runs as one matplotlib figure, a panel for each value and a line for each run."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import numpy as np

from toolshed.errors import ToolshedError
from toolshed.views.lines import Points, outline, smoothed, stride_of
from toolshed.views.look import DARK, LIGHT, canvas, dress, explain, scale
from toolshed.views.panels import Panel, in_order, printable

_COLORS = ("#0072B2", "#D55E00", "#009E73", "#CC79A7", "#E69F00", "#56B4E9")
_STYLES: tuple[Any, ...] = ("-", (0, (5, 2)), (0, (1, 1.5)), (0, (5, 1.5, 1, 1.5)))
MOST = len(_COLORS) * len(_STYLES)
"""Runs that can be told apart."""


def compare_curves(
    runs: Mapping[str, Mapping[str, Points]],
    *,
    log: bool | Collection[str] = False,
    smoothing: float = 0.0,
    dark: bool = False,
) -> Any:
    """A matplotlib Figure in which the same values of several runs lie over each other.

    Each run has a colour, of the palette of Okabe and Ito, and after six runs another style of line, in all
    panels. Train and eval have panels of their own.

    Args:
      runs: steps int[n] and values float[n] by name, for each run by what it is called.
      log: log scale for all panels, or the names of those that are to have one.
      smoothing: from 0 to below 1, as in `curves`.
      dark: for a dark ground.

    Raises:
      ToolshedError: there are more runs than can be told apart, or ``smoothing`` is no such number.
    """
    if len(runs) > MOST:
        raise ToolshedError(f"{len(runs)} runs at once; expected at most {MOST}, which can be told apart.")
    if not 0 <= smoothing < 1:
        raise ToolshedError(f"smoothing={smoothing}; expected a number from 0 to below 1, such as 0.9.")
    look = DARK if dark else LIGHT
    names = in_order(dict.fromkeys(name for series in runs.values() for name in series))
    figure, grid = canvas(max(1, len(names)), 0, look)
    legend: dict[str, Any] = {}
    for axes, name in zip(grid, names, strict=False):
        for number, (label, series) in enumerate(runs.items()):
            if name in series:
                steps, values = (np.asarray(part) for part in series[name])
                stride = stride_of(steps) if len(steps) > 1 else 1.0
                (line,) = axes.plot(
                    *outline(steps, smoothed(steps, values, smoothing, stride)),
                    color=_COLORS[number % len(_COLORS)],
                    ls=_STYLES[number // len(_COLORS)],
                    lw=1.2,
                    marker="o" if len(steps) == 1 else None,
                    ms=3,
                )
                legend.setdefault(printable(label, 40).replace("$", r"\$"), line)
        panel = Panel(name, (name,))
        unit = scale(axes, panel, log if isinstance(log, bool) else name in log)
        dress(axes, panel, unit, look, 5)
    if not names:
        grid[0].set_axis_off()
        grid[0].text(0.5, 0.5, "no values in common", ha="center", va="center", color=look.ink, fontsize=9)
    explain(figure, legend, [], look)
    return figure
