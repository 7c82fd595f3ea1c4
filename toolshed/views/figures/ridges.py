"""Ridges: many histograms in one drawing, one behind the other."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolshed.errors import ToolshedError
from toolshed.insight import LeafStatistics
from toolshed.insight.measure import BINS, BINS_A_SIGN, SMALLEST
from toolshed.views.look import DARK, LIGHT, name_axes, sheet, themed
from toolshed.views.panels import common_start, printable

MOST_RIDGES = 60


@themed
def ridges(
    histograms: LeafStatistics | Mapping[Any, Any], *, title: str = "histograms", dark: bool | None = None
) -> Any:
    """Histograms on a signed logarithmic scale, each a ridge; the first at the back, on top.

    The layers of a model at one step, or one layer at many steps. Heights are shares, each ridge by itself,
    so that its shape can be seen. Zeros stand in the middle.

    Args:
      histograms: `toolshed.insight.leaf_statistics`, or counts int[49] by name, as
        ``LeafSummary.histogram`` has them, or by step, as ``run.histograms(path)`` gives them.
      title: above the figure.
      dark: for a dark ground.

    Raises:
      ToolshedError: there is none with a value in it, or one is no such histogram.
    """
    look = DARK if dark else LIGHT
    rows = _rows(histograms)
    figure, axes = sheet(6.4, 1.0 + 0.24 * len(rows), look)
    x = np.arange(BINS)
    colors = _colors(len(rows), bool(dark))
    for place, (counts, color) in enumerate(zip(rows.values(), colors, strict=True)):
        height = 1.9 * counts / counts.max()
        base = -float(place)
        axes.fill_between(x, base, base + height, color=color, alpha=0.75, lw=0, zorder=place + 2, step="mid")
        axes.step(x, base + height, where="mid", color=look.ground, lw=0.8, zorder=place + 2)
    axes.set_yticks([-float(place) for place in range(len(rows))])
    start = common_start(list(rows))
    axes.set_yticklabels([printable(name[start:], 44) for name in rows], parse_math=False)
    axes.tick_params(axis="y", labelsize=6.5)
    axes.set_ylim(-len(rows) + 0.6, 2.0)
    axes.grid(False, axis="y")
    _ticks(axes)
    name_axes(axes, look, title=title, x="value, logarithmic to both sides of 0")
    return figure


def _rows(histograms: Any) -> dict[str, Any]:
    if isinstance(histograms, LeafStatistics):
        histograms = {path: leaf.histogram for path, leaf in histograms.items()}
    rows: dict[str, Any] = {}
    for name, counts in histograms.items():
        counts = np.asarray(counts, np.float64)
        if counts.shape != (BINS,):
            raise ToolshedError(
                f"The histogram of {name} has the shape {counts.shape}; expected ({BINS},), as"
                " leaf_statistics(tree)[path].histogram has it."
            )
        if counts.sum():
            rows[str(name)] = counts
    if not rows:
        raise ToolshedError("There is no histogram with a finite value in it.")
    keep = np.unique(np.linspace(0, len(rows) - 1, min(len(rows), MOST_RIDGES)).astype(int))
    names = list(rows)
    return {names[place]: rows[names[place]] for place in keep}


def _ticks(axes: Any) -> None:
    """Powers of ten to both sides, at the borders of the bins, which go by powers of 4."""
    middle = BINS // 2
    powers = np.array([-8, -4, 0, 4])
    # bin middle + 1 + k holds magnitudes up to 2 ** (SMALLEST + 2 k)
    right = middle + 0.5 + 1 + (powers / np.log10(2) - SMALLEST) / 2
    labels = [f"1e{power}".replace("-", "−") if power else "1" for power in powers]
    axes.set_xticks([*(2 * middle - right)[::-1], middle, *right])
    axes.set_xticklabels([*(f"−{label}" for label in labels[::-1]), "0", *labels])
    axes.set_xlim(middle - BINS_A_SIGN - 0.5, middle + BINS_A_SIGN + 0.5)


def _colors(count: int, dark: bool) -> Any:
    import matplotlib

    low, high = (0.35, 0.95) if dark else (0.1, 0.75)
    return matplotlib.colormaps["viridis"](np.linspace(low, high, count))
