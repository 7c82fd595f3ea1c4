"""Drawing: lines, areas, shapes and texts on a sheet, written as SVG; `raster` makes a PNG of the same."""

from __future__ import annotations

import base64
from collections.abc import Sequence
from typing import NamedTuple
from xml.sax.saxutils import escape

import numpy as np
from jaxtyping import Float, UInt8

from toolshed.live.png import encode
from toolshed.views.panels import printable

Points = Float[np.ndarray, "n 2"]


class Line(NamedTuple):
    """A line through points, in pixels from the top left corner."""

    points: Points
    color: str
    width: float = 1.0
    opacity: float = 1.0
    dashed: bool = False


class Shape(NamedTuple):
    """A filled polygon."""

    points: Points
    color: str
    opacity: float = 1.0


class Text(NamedTuple):
    """A line of text, whose first (or ``end``: last, or ``middle``) letter stands on a point."""

    x: float
    y: float
    text: str
    color: str
    size: int = 11
    anchor: str = "start"
    bold: bool = False


class Bitmap(NamedTuple):
    """Pixels, red, green and blue, laid over a part of the sheet; each keeps its sharp edges."""

    x: float
    y: float
    width: float
    height: float
    pixels: UInt8[np.ndarray, "rows columns 3"]


Item = Line | Shape | Text | Bitmap


class Drawing(NamedTuple):
    """A sheet of paper and what is drawn on it, first things first."""

    width: int
    height: int
    items: Sequence[Item]


def to_svg(drawing: Drawing) -> str:
    """The drawing as SVG. All texts are text, without what XML has no place for."""
    size = f'width="{drawing.width}" height="{drawing.height}"'
    box = f'viewBox="0 0 {drawing.width} {drawing.height}"'
    font = "font-family=\"system-ui, -apple-system, 'Segoe UI', Roboto, 'DejaVu Sans', sans-serif\""
    paper = f'<rect {size} rx="6" fill="#ffffff"/>'
    body = "".join(map(_item, drawing.items))
    return f'<svg xmlns="http://www.w3.org/2000/svg" {size} {box} {font}>{paper}{body}</svg>'


def _item(item: Item) -> str:
    if isinstance(item, Text):
        style = f'font-size="{item.size}" fill="{item.color}"'
        if item.anchor != "start":
            style += f' text-anchor="{item.anchor}"'
        if item.bold:
            style += ' font-weight="600"'
        return f'<text x="{item.x:g}" y="{item.y:g}" {style}>{escape(printable(item.text))}</text>'
    if isinstance(item, Bitmap):
        box = f'x="{item.x:g}" y="{item.y:g}" width="{item.width:g}" height="{item.height:g}"'
        data = base64.b64encode(encode(item.pixels)).decode()
        style = 'preserveAspectRatio="none" style="image-rendering:pixelated"'
        return f'<image {box} {style} href="data:image/png;base64,{data}"/>'
    opacity = "" if item.opacity == 1 else f' opacity="{item.opacity:g}"'
    if isinstance(item, Shape):
        return f'<path d="{_path(item.points)}z" fill="{item.color}"{opacity}/>'
    dashed = ' stroke-dasharray="3 3"' if item.dashed else ""
    style = f'fill="none" stroke="{item.color}" stroke-width="{item.width:g}" stroke-linejoin="round"'
    return f'<path d="{_path(item.points)}" {style}{opacity}{dashed}/>'


def _path(points: Points) -> str:
    """Points as SVG's path, a tenth of a pixel fine, each relative to the one before."""
    tenths = np.round(points * 10).astype(np.int64)
    moves = np.diff(tenths, axis=0).tolist()
    first = "{:g} {:g}".format(*(tenths[0] / 10))
    return f"M{first}l" + " ".join(f"{x / 10:g} {y / 10:g}" for x, y in moves) if moves else f"M{first}h0"
