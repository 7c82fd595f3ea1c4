"""A heat map in the picture of a run: names, coloured cells, steps, and the scale of the colours."""

from __future__ import annotations

import math
from collections.abc import Iterator

import numpy as np
from jaxtyping import Float, UInt8

from toolshed.live import ticks
from toolshed.live.chart import HAIR, INK, MUTED
from toolshed.live.drawing import Bitmap, Item, Line, Text
from toolshed.live.heat import Heat
from toolshed.views.panels import printable, short

CELLS = 8000
"""Cells of all maps of a picture."""
ROWS = 24
"""Rows of a map in a picture."""

# Cividis, every eighth part: Nuñez, Anderton, Renslow, Optimizing colormaps with consideration for color
# vision deficiency, 2018.
_CIVIDIS = np.array(
    [
        [0, 34, 78], [18, 53, 112], [59, 73, 108], [87, 93, 109], [112, 113, 115],
        [138, 134, 120], [165, 156, 116], [195, 179, 105], [254, 232, 56],
    ]
)  # fmt: skip
_BAD, _ZERO, _NONE = (196, 22, 28), (225, 227, 230), (250, 250, 250)
_FINE = 360  # pixels from left to right
_LEFT, _HEAD, _FOOT, _ROW = 190, 26, 44, 12
_SCALE = 120


def height_of(one: Heat) -> int:
    """How high the map is, in pixels."""
    return _HEAD + _ROW * max(len(one.paths), 1) + _FOOT


def draw_heat(one: Heat, x: float, y: float, width: float, start: float, stop: float) -> Iterator[Item]:
    """What a map is made of.

    Args:
      one: the map.
      x, y: its top left corner, in pixels.
      width: in pixels; it is `height_of(one)` high.
      start, stop: the first and the last step of the axis.
    """
    low, high = scale_of(one.values)
    left, top, tall = x + _LEFT, y + _HEAD, _ROW * max(len(one.paths), 1)
    more = "" if one.total == len(one.paths) else f", {len(one.paths):,} of {one.total:,} arrays"
    yield Text(x, y + 14, f"{printable(one.pattern, 60)} · {one.statistic}{more}", INK, 12, bold=True)
    for row, path in enumerate(one.paths):
        name = printable(path[one.cut :], 30)
        yield Text(left - 6, top + _ROW * row + 9.5, name, MUTED, 10, "end")
    yield Bitmap(left, top, width - _LEFT, tall, pixels(one, start, stop, low, high))
    for at, text in ticks.linear(start, stop, 8, whole=True):
        place = left + (at - start) / (stop - start) * (width - _LEFT)
        yield Line(np.array([[place, top + tall], [place, top + tall + 3]]), HAIR)
        yield Text(place, top + tall + 14, text, MUTED, 10, "middle")
    shades = _color(np.linspace(0, 1, _SCALE))[None]
    yield Bitmap(left, top + tall + 22, _SCALE, 8, shades)
    yield Text(left - 6, top + tall + 30, short(10.0**low, 2), MUTED, 10, "end")
    yield Text(left + _SCALE + 6, top + tall + 30, f"{short(10.0**high, 2)}; striped: NaN, ∞", MUTED, 10)


def scale_of(values: Float[np.ndarray, "rows columns"]) -> tuple[float, float]:
    """The ends of the scale: log10 of magnitudes, in halves of a decade."""
    sizes = np.abs(values[np.isfinite(values) & (values != 0)])
    if not sizes.size:
        return -1.0, 0.0
    low = math.floor(2 * math.log10(sizes.min())) / 2
    return low, max(math.ceil(2 * math.log10(sizes.max())) / 2, low + 0.5)


def pixels(
    one: Heat, start: float, stop: float, low: float, high: float
) -> UInt8[np.ndarray, "rows columns 3"]:
    """The cells in colours: what is not finite striped in red and white, zeros grey, the unknown pale."""
    rows = max(len(one.paths), 1)
    sheet = np.full((rows, _FINE, 3), _NONE, np.uint8)
    if not len(one.steps):
        return sheet
    steps = start + (stop - start) * (np.arange(_FINE) + 0.5) / _FINE
    column = np.searchsorted(one.steps, steps, "right") - 1
    known = (column >= 0) & (steps < one.steps[-1] + one.every)
    values = one.values[:, column[known]]
    with np.errstate(divide="ignore", invalid="ignore"):
        share = (np.log10(np.abs(values)) - low) / (high - low)
    colors = _color(np.nan_to_num(np.clip(share, 0, 1)))
    colors[values == 0] = _ZERO
    colors[~np.isfinite(values)] = _BAD
    striped = ~np.isfinite(values) & (np.flatnonzero(known) % 3 == 0)
    colors[striped] = 255
    sheet[:, known] = colors
    return sheet


def _color(share: Float[np.ndarray, "*shape"]) -> UInt8[np.ndarray, "*shape 3"]:
    parts = [np.interp(share, np.linspace(0, 1, len(_CIVIDIS)), part) for part in _CIVIDIS.T]
    return np.round(np.stack(parts, axis=-1)).astype(np.uint8)
