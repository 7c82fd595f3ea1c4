"""Flow: how large gradients and updates are, layer by layer and over time."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np

from toolshed.errors import ToolshedError
from toolshed.insight import LeafStatistics, leaf_statistics
from toolshed.training import Context
from toolshed.views.lines import Points, outline
from toolshed.views.look import DARK, LIGHT, Look, name_axes, sheet, themed
from toolshed.views.panels import common_start, printable, short

MOST_ROWS = 60
"""Layers that have their names beside them."""


@themed
def gradient_flow(grads: Any, *, title: str = "gradient flow", dark: bool | None = None) -> Any:
    """The size of the gradient of each parameter, from the first layer down to the last.

    A dot is the root mean square, the line goes up to the largest magnitude, a cross marks what is not
    finite, a ring what is all zeros. Where it falls by powers of ten from one layer to the next, gradients
    vanish.

    Args:
      grads: a Context, or a tree of gradients, or `toolshed.insight.leaf_statistics` of one. jax sorts the
        keys of dicts; a Context knows the order of the model. Measuring waits for the device.
      title: above the figure.
      dark: for a dark ground.

    Raises:
      ToolshedError: there is no array of numbers in it.
    """
    look = DARK if dark else LIGHT
    order: dict[str, int] = {}
    if isinstance(grads, Context):
        order = {path: place for place, path in enumerate(grads.params)}
        grads = grads.grads
    found = grads if isinstance(grads, LeafStatistics) else leaf_statistics(grads)
    leaves = [leaf for leaf in found.values() if leaf.kind == "numbers" and leaf.count]
    leaves.sort(key=lambda leaf: order.get(leaf.path, len(order)))
    if not leaves:
        raise ToolshedError("There is no array of numbers to draw. Pass the Context of a step.")
    figure, axes = sheet(6.4, 0.9 + 0.17 * min(len(leaves), MOST_ROWS), look)
    rows = np.arange(len(leaves))
    rms, most = (np.array([getattr(leaf, name) for leaf in leaves]) for name in ("rms", "absmax"))
    seen = np.isfinite(rms) & (rms > 0)
    low = rms[seen].min() / 3 if seen.any() else 1e-8
    axes.set_xscale("log")
    axes.hlines(rows[seen], rms[seen], most[seen], color=look.splits["train"], lw=1.4, alpha=0.45)
    axes.plot(rms[seen], rows[seen], "o", ms=4, color=look.splits["train"], label="root mean square")
    signs = (
        ("all zeros", np.array([leaf.zeros == leaf.count for leaf in leaves]), "o", "none"),
        ("NaN or infinite", np.array([not leaf.finite for leaf in leaves]), "x", None),
    )
    for label, where, marker, face in signs:
        if where.any():
            color = look.splits["eval"]
            axes.plot(
                np.full(where.sum(), low),
                rows[where],
                marker,
                ms=5,
                color=color,
                mfc=face or color,
                label=label,
            )
    _name_rows(axes, [leaf.path for leaf in leaves])
    name_axes(axes, look, title=title, x="magnitude of the gradient: root mean square to largest")
    _legend(axes, look)
    return figure


def _name_rows(axes: Any, names: list[str]) -> None:
    """Names beside the rows; of many rows some."""
    step = -(-len(names) // MOST_ROWS)
    shown = names[::step]
    axes.set_yticks(range(0, len(names), step))
    start = common_start(names)
    axes.set_yticklabels([printable(name[start:], 44) for name in shown], parse_math=False)
    axes.tick_params(axis="y", labelsize=6.5)
    axes.set_ylim(len(names) - 0.5, -0.5)
    axes.grid(False, axis="y")


def _legend(axes: Any, look: Look) -> None:
    labels = axes.get_legend_handles_labels()[1]
    if len(labels) > 1:
        axes.figure.legend(
            frameon=False, fontsize=7, labelcolor=look.ink, loc="outside upper right", ncols=len(labels)
        )


@themed
def update_ratios(
    ratios: Mapping[str, Points], *, title: str = "size of updates", dark: bool | None = None
) -> Any:
    """‖update‖ / ‖parameter‖ of each parameter over time; the band from 1e-4 to 1e-2 is usual.

    Args:
      ratios: steps int[n] and ratios float[n] by path, such as `toolshed.insight.update_ratio` gives for
        one step. In the order of the model: colours go from its first parameter to its last.
      title: above the figure.
      dark: for a dark ground.

    Raises:
      ToolshedError: there is nothing in it.

    References:
      A. Karpathy, A Recipe for Training Neural Networks (2019), for the rule of thumb.
    """
    look = DARK if dark else LIGHT
    if not ratios:
        raise ToolshedError("There are no ratios to draw. Pass {path: (steps, ratios)}.")
    figure, axes = sheet(6.4, 3.2, look)
    axes.set_yscale("log", nonpositive="mask")
    axes.axhspan(1e-4, 1e-2, color=look.marks["keep"], alpha=0.12, lw=0)
    axes.axhline(1e-3, color=look.marks["keep"], lw=0.9, ls=(0, (4, 3)))
    start = common_start(list(ratios))
    for (path, (steps, values)), color in zip(ratios.items(), _shades(len(ratios), bool(dark)), strict=True):
        x, y = outline(np.asarray(steps), np.asarray(values, np.float64))
        marker = "o" if len(x) < 3 else None
        axes.plot(x, y, color=color, lw=1.1, label=printable(path[start:], 36), marker=marker, ms=3)
    name_axes(axes, look, title=title, x="step", y="‖update‖ / ‖parameter‖")
    handles, labels = axes.get_legend_handles_labels()
    keep = np.unique(np.linspace(0, len(labels) - 1, min(len(labels), 14)).astype(int))
    legend = axes.legend(
        [handles[i] for i in keep],
        [labels[i] for i in keep],
        frameon=False,
        fontsize=6.5,
        labelcolor=look.ink,
        loc="center left",
        bbox_to_anchor=(1, 0.5),
    )
    for text in legend.get_texts():
        text.set_parse_math(False)
    axes.yaxis.set_major_formatter(lambda value, _: short(value).replace("-", "−"))
    return figure


def _shades(count: int, dark: bool) -> Any:
    """Colours from the first to the last, none too near to the ground."""
    import matplotlib

    low, high = (0.25, 1.0) if dark else (0.0, 0.8)
    return matplotlib.colormaps["viridis"](np.linspace(low, high, count))
