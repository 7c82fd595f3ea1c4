"""Curves: values by step as a matplotlib figure, a panel for each metric."""

from __future__ import annotations

from collections.abc import Collection, Iterable, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from toolshed.errors import ToolshedError
from toolshed.views.lines import Points, alone, outline, smoothed, spread, stride_of
from toolshed.views.look import DARK, KINDS, LIGHT, Look, canvas, dress, explain, scale, themed
from toolshed.views.panels import Panel, arrange, printable, split_of

MOST_NOTES = 10


class Mark(NamedTuple):
    """Something that happened at a step, drawn across all panels.

    Attributes:
      step: steps done when it happened.
      kind: what it was: edited, model_edited, branched, saved, nonfinite, interrupted or error; marks of
        other kinds are left out.
      text: a line for people; text, never markup. Without it the mark has no number.
    """

    step: int
    kind: str
    text: str = ""


@themed
def curves(
    series: Mapping[str, Points],
    *,
    marks: Iterable[Mark] = (),
    others: Mapping[str, Sequence[Points]] | None = None,
    log: bool | Collection[str] = False,
    smoothing: float = 0.0,
    dark: bool | None = None,
) -> Any:
    """A matplotlib Figure with a panel for each metric: train and eval together, marks across all.

    It belongs to no pyplot state and shows itself as the value of a cell; ``figure.savefig`` writes it.
    Values that are NaN or infinite are crosses at the top of their panel, and on a log scale those that
    are 0 or below are triangles at its bottom. Lines of more than some thousand values are drawn by the
    minimum and maximum of each place.

    Args:
      series: steps int[n] and values float[n] by name, as a `toolshed.run.Series`.
      marks: what happened when. Those with a text are numbered, and the texts stand below.
      others: lines of other branches by name, drawn faintly.
      log: log scale for all panels, or the titles of those that are to have one.
      smoothing: from 0 to below 1, the weight in `smooth`, with a panel's most frequent line as stride; the
        line as it was logged stays faintly visible.
      dark: for a dark ground; by default for a light one, and in a notebook as its theme is.

    Raises:
      ToolshedError: ``smoothing`` is no such number.

    References:
      M. Okabe and K. Ito, "Color Universal Design: how to make figures and presentations that are friendly
      to colorblind people", 2008: the palette.
    """
    if not 0 <= smoothing < 1:
        raise ToolshedError(f"smoothing={smoothing}; expected a number from 0 to below 1, such as 0.9.")
    look = DARK if dark else LIGHT
    panels, others = arrange(series), others or {}
    marks = sorted((mark for mark in marks if mark.kind in KINDS), key=lambda mark: mark.step)
    noted = [mark for mark in marks if mark.text]
    limits = _limits([*series.values(), *(line for lines in others.values() for line in lines)], marks)
    notes = _write(noted)
    figure, grid = canvas(max(1, len(panels)), len(notes), look)
    legend: dict[str, Any] = {}
    for axes, panel in zip(grid, panels, strict=False):
        logarithmic = log if isinstance(log, bool) else panel.title in log
        _draw(axes, panel, series, others, look, smoothing, logarithmic, legend)
        unit = scale(axes, panel, logarithmic)
        dress(axes, panel, unit, look, 11 if noted else 5)
        axes.set_xlim(*limits)
    if panels:
        _draw_marks(grid, marks, look, legend)
        for axes in grid:
            _number(axes, noted[:MOST_NOTES], look)
    else:
        grid[0].set_axis_off()
        grid[0].text(0.5, 0.5, "no values yet", ha="center", va="center", color=look.ink, fontsize=9)
    explain(figure, legend, notes, look)
    return figure


# --- one panel --------------------------------------------------------------------------------------


def _draw(
    axes: Any,
    panel: Panel,
    series: Mapping[str, Points],
    others: Mapping[str, Sequence[Points]],
    look: Look,
    smoothing: float,
    logarithmic: bool,
    legend: dict[str, Any],
) -> None:
    """The lines of a panel, from the faintest to the strongest."""
    lines = {name: (np.asarray(series[name][0]), np.asarray(series[name][1])) for name in panel.names}
    stride = min((stride_of(steps) for steps, _ in lines.values() if len(steps) > 1), default=1.0)
    for name in panel.names:
        for steps, values in others.get(name, ()):
            line = _line(axes, steps, smoothed(steps, values, smoothing, stride), None, look.faint, 0.9)
            line.set(zorder=2)
            legend.setdefault("other branches", line)
            _draw_odd(axes, steps, values, look.faint, logarithmic, {})
    for name, (steps, values) in lines.items():
        split = split_of(name)
        color = look.splits[split]
        shown = smoothed(steps, values, smoothing, stride)
        if shown is not values:
            (raw,) = axes.plot(*outline(steps, values), color=color, lw=0.8, alpha=look.alpha, zorder=2.5)
            legend.setdefault("as logged", raw)
        width = 1.4 if shown is not values or len(steps) < 600 else 1.0  # noise needs no weight
        line = _line(axes, steps, shown, split, color, width)
        if split:
            legend.setdefault(split, line)
        _draw_odd(axes, steps, values, color, logarithmic, legend)


def _line(axes: Any, steps: Any, values: Any, split: str | None, color: str, width: float) -> Any:
    """One line. That of eval has points on it, so that it is told apart without colour too."""
    x, y = outline(steps, values)
    lonely = alone(x, y)  # a point between two gaps would not be seen without a sign
    axes.plot(x[lonely], y[lonely], ls="", marker="o", ms=2.2, color=color, zorder=3)
    points = {"marker": "o", "ms": 3.2, "markevery": max(1, len(x) // 24)} if split == "eval" else {}
    (line,) = axes.plot(x, y, color=color, lw=width, solid_joinstyle="round", zorder=3, **points)
    return line


def _draw_odd(
    axes: Any, steps: Any, values: Any, color: str, logarithmic: bool, legend: dict[str, Any]
) -> None:
    """Signs at the edges of a panel for values that no line can show."""
    below = logarithmic & np.isfinite(values) & (values <= 0)
    signs = (
        ("NaN or infinite", steps[~np.isfinite(values)], 0.96, "x"),
        ("0 or below", steps[below], 0.04, "v"),
    )
    for label, where, height, marker in signs:
        if len(where):
            # x in steps, y in parts of the panel's height
            (sign,) = axes.plot(
                spread(where),
                np.full(len(spread(where)), height),
                transform=axes.get_xaxis_transform(),
                ls="",
                marker=marker,
                ms=4,
                mew=1.1,
                color=color,
                zorder=4,
                scalex=False,
                scaley=False,
            )
            legend.setdefault(label, sign)


# --- marks across all panels ------------------------------------------------------------------------


def _draw_marks(grid: Sequence[Any], marks: Sequence[Mark], look: Look, legend: dict[str, Any]) -> None:
    """A line for each mark in each panel."""
    known = {"ink": look.ink, **look.marks}
    for kind, (label, color, style) in KINDS.items():
        where = spread(np.array([mark.step for mark in marks if mark.kind == kind]), 60)
        height = 1.0 if len(where) <= 30 else 0.06  # many would hide the curves: ticks at the bottom
        for axes in grid:
            for step in where:
                line = axes.axvline(
                    step, 0, height, color=known[color], ls=style, lw=0.9, alpha=0.8, zorder=1.5
                )
                legend.setdefault(label, line)


def _write(noted: Sequence[Mark]) -> list[str]:
    """The texts of marks, a numbered line for each, and how many more there are."""
    notes = [
        f"{number}  step {mark.step:,}: {printable(mark.text, 110)}"
        for number, mark in enumerate(noted[:MOST_NOTES], 1)
    ]
    return notes if len(noted) <= MOST_NOTES else [*notes, f"and {len(noted) - MOST_NOTES:,} more"]


def _number(axes: Any, noted: Sequence[Mark], look: Look) -> None:
    """The numbers of marks, above their lines; those of neighbours as one: ``2–4``."""
    near = (axes.get_xlim()[1] - axes.get_xlim()[0]) * 0.04
    groups: list[list[int]] = []
    for index, mark in enumerate(noted):
        if groups and mark.step - noted[groups[-1][-1]].step < near:
            groups[-1].append(index)
        else:
            groups.append([index])
    for group in groups:
        first, last = group[0] + 1, group[-1] + 1
        axes.text(
            (noted[group[0]].step + noted[group[-1]].step) / 2,
            1.01,
            f"{first}" if first == last else f"{first}–{last}",
            transform=axes.get_xaxis_transform(),
            ha="center",
            va="bottom",
            fontsize=6,
            color=look.ink,
        )


def _limits(lines: Sequence[Points], marks: Sequence[Mark]) -> tuple[float, float]:
    """The first and the last step of all, with a little room on both sides."""
    ends = [float(steps[end]) for steps, _ in lines if len(steps) for end in (0, -1)]
    ends += [float(mark.step) for mark in marks]
    first, last = (min(ends), max(ends)) if ends else (0.0, 1.0)
    room = 0.02 * (last - first) or 0.5
    return first - room, last + room
