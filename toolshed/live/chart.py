"""One panel of the picture: axes, lines, marks and a legend, as what a drawing is made of."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Float

from toolshed.live import ticks
from toolshed.live.drawing import Item, Line, Shape, Text
from toolshed.live.panels import Panel
from toolshed.live.scene import Line as Curve
from toolshed.live.scene import clip
from toolshed.views.panels import SPLITS, short

COLORS = ("#0072b2", "#d55e00", "#00805f", "#b4508c")
INK, MUTED, HAIR, ALARM = "#1f2328", "#666c74", "#e3e5e8", "#b3261e"
HEIGHT = 190

_LEFT, _RIGHT, _HEAD, _FOOT = 54, 14, 28, 34
_FEW = 30  # points up to which each gets a dot
_ROUND = np.array([[math.cos(a), math.sin(a)] for a in np.linspace(0, 2 * math.pi, 13)[:-1]])
_MARKS = {
    "edited": (np.array([[-1, 1], [1, 1], [0, -0.9]]), INK, True),
    "model_edited": (np.array([[-1, -1], [1, -1], [1, 1], [-1, 1]]), INK, True),
    "branched": (np.array([[-0.8, -1], [0.9, 0], [-0.8, 1]]), INK, True),
    "saved": (np.array([[0, -1.1], [1.1, 0], [0, 1.1], [-1.1, 0]]), INK, False),
    "interrupted": (np.array([[-0.7, -1], [0.7, -1], [0.7, 1], [-0.7, 1]]), INK, False),
    "error": (1.1 * _ROUND, ALARM, True),
}
_CROSS = [np.array([[-1.0, -1.0], [1.0, 1.0]]), np.array([[-1.0, 1.0], [1.0, -1.0]])]

Values = Float[np.ndarray, " n"]


class Sight(NamedTuple):
    """What a panel shows, and how.

    Attributes:
      panel: its title and lines.
      curves: the lines' values, those of other branches too.
      marks: what happened, as `scene.marks` gives it.
      start, stop: the first and the last step.
      log: whether the y axis is logarithmic.
    """

    panel: Panel
    curves: Sequence[Curve]
    marks: Sequence[Mapping[str, Any]]
    start: float
    stop: float
    log: bool


class _Axes(NamedTuple):
    """Where a plot lies, in pixels, and what it spans."""

    x: float
    y: float
    width: float
    height: float
    start: float
    stop: float
    low: float
    high: float
    log: bool

    def across(self, steps: Any) -> Values:
        return self.x + (np.asarray(steps, np.float64) - self.start) / (self.stop - self.start) * self.width

    def down(self, values: Any) -> Values:
        values, low, high = np.asarray(values, np.float64), self.low, self.high
        if self.log:
            values, low, high = np.log10(np.maximum(values, low)), math.log10(low), math.log10(high)
        return self.y + self.height - (values - low) / (high - low) * self.height


def draw_panel(sight: Sight, x: float, y: float, width: float) -> Iterator[Item]:
    """What a panel is made of.

    Args:
      sight: what it shows.
      x, y: its top left corner, in pixels.
      width: in pixels; it is `HEIGHT` high.
    """
    low, high = _span(sight.curves, log=sight.log)
    plot = (x + _LEFT, y + _HEAD, width - _LEFT - _RIGHT, HEIGHT - _HEAD - _FOOT)
    axes = _Axes(*plot, sight.start, sight.stop, low, high, sight.log)
    colors = {
        place: COLORS[SPLITS.index(label) if label in SPLITS else i % len(COLORS)]
        for i, (place, label) in enumerate(sight.panel.lines)
    }
    yield from _grid(axes)
    for curve in sorted(sight.curves, key=lambda curve: curve.current):
        yield from _curve(axes, curve, colors[curve.place])
    yield from _marks(axes, sight)
    yield from _legend(sight, colors, x, y + 14, width)


def _span(curves: Sequence[Curve], *, log: bool) -> tuple[float, float]:
    """The ends of the y axis: a little more than the lowest and the highest value."""
    values = np.concatenate(
        [np.zeros(0), *(each for curve in curves for each in (curve.window.low, curve.window.high))]
    )
    if log:
        values = values[values > 0]
    if not len(values):
        return (0.1, 1.0) if log else (0.0, 1.0)
    low, high = float(values.min()), float(values.max())
    if log:
        pad = max((high / low) ** 0.07, 1.02)
        return low / pad, high * pad
    pad = 0.07 * (high - low) or 0.05 * abs(high) or 1.0
    return low - pad, high + pad


def _grid(axes: _Axes) -> Iterator[Item]:
    bottom, right = axes.y + axes.height, axes.x + axes.width
    places = ticks.logarithmic(axes.low, axes.high) if axes.log else ticks.linear(axes.low, axes.high, 5)
    for at, text in places:
        y = float(axes.down(at))
        yield Line(np.array([[axes.x, y], [right, y]]), HAIR)
        yield Text(axes.x - 6, y + 3.5, text, MUTED, 10, "end")
    for at, text in ticks.linear(axes.start, axes.stop, 6, whole=True):
        x = float(axes.across(at))
        yield Line(np.array([[x, axes.y], [x, bottom]]), HAIR)
        yield Text(x, bottom + 14, text, MUTED, 10, "middle")


def _curve(axes: _Axes, curve: Curve, color: str) -> Iterator[Item]:
    steps, low, high, _, mean = curve.window
    if not len(steps):
        return
    x, strength = axes.across(steps), 1.0 if curve.current else 0.35
    if not np.array_equal(low, high):
        top, bottom = np.stack([x, axes.down(high)], 1), np.stack([x, axes.down(low)], 1)
        yield Shape(np.concatenate([top, bottom[::-1]]), color, 0.28 * strength)
    middle = np.stack([x, axes.down(mean)], 1)
    yield Line(middle, color, 1.5 if curve.current else 1.0, strength)
    if curve.current and len(steps) <= _FEW:
        for point in middle:
            yield Shape(point + 2.2 * _ROUND, color)


def _marks(axes: _Axes, sight: Sight) -> Iterator[Item]:
    for mark in sight.marks:
        inside = axes.start <= mark["step"] <= axes.stop
        if mark["kind"] not in _MARKS or not inside:
            continue
        shape, color, line = _MARKS[mark["kind"]]
        strength = 0.35 if mark["faint"] else 0.9
        point = np.array([float(axes.across(mark["step"])), axes.y - 1])
        if line:
            ends = np.array([[point[0], axes.y + 4], [point[0], axes.y + axes.height]])
            yield Line(ends, color, 1, 0.4 * strength, dashed=True)
        yield Shape(point + 4 * shape, color, strength)
    for curve in sight.curves:
        last = -math.inf
        for x in axes.across(curve.window.nonfinite).tolist():
            if curve.current and x - last >= 3:
                last = x
                for stroke in _CROSS:
                    yield Line(np.array([x, axes.y + 9]) + 3 * stroke, ALARM, 1.5)


def _legend(sight: Sight, colors: dict[int, str], x: float, y: float, width: float) -> Iterator[Item]:
    """The panel's title, and its lines' names with their newest values."""
    labels, right = dict(sight.panel.lines), x + width
    for curve in sorted((one for one in sight.curves if one.current), key=lambda one: -one.place):
        text = f"{clip(labels[curve.place], 16)} {'–' if curve.last is None else short(curve.last)}"
        right -= 6.1 * len(text) + 28
        yield Line(np.array([[right, y - 4], [right + 10, y - 4]]), colors[curve.place], 3)
        yield Text(right + 15, y, text, INK, 11)
    room = max(int((right - x) / 7.2) - 1, 4)
    yield Text(x, y, clip(sight.panel.title, room), INK, 12, bold=True)
