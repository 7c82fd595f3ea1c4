"""A drawing as PNG, with numpy and zlib alone: for what shows neither widgets nor HTML."""

from __future__ import annotations

from typing import Any

import numpy as np
from jaxtyping import Bool, Float

from toolshed.live.drawing import Bitmap, Drawing, Item, Line, Shape, Text
from toolshed.live.glyphs import HEIGHT, write
from toolshed.live.png import encode
from toolshed.views.panels import printable

FINE = 2
"""Dots of the drawing board for each pixel of the picture, across and down: edges come out smooth."""

Board = Float[np.ndarray, "rows columns 3"]
Points = Float[np.ndarray, "n 2"]
Dots = Bool[np.ndarray, "h w"]


def to_png(drawing: Drawing) -> bytes:
    """The drawing as PNG."""
    board = np.ones((drawing.height * FINE, drawing.width * FINE, 3), np.float32)
    for item in drawing.items:
        _paint(board, item)
    shape = (drawing.height, FINE, drawing.width, FINE, 3)
    return encode(np.round(255 * board.reshape(shape).mean(axis=(1, 3))).astype(np.uint8))


def _paint(board: Board, item: Item) -> None:
    if isinstance(item, Text):
        _paint_text(board, item)
    elif isinstance(item, Bitmap):
        _paint_bitmap(board, item)
    elif isinstance(item, Shape):
        _blend(board, *_inside(item.points * FINE, board.shape), item.color, item.opacity)
    else:
        _blend(board, *_along(item, board.shape), item.color, item.opacity)


def _blend(board: Board, where: Dots, left: int, top: int, color: str, opacity: float) -> None:
    """Lays a colour over the dots of a part of the board."""
    part = board[top : top + where.shape[0], left : left + where.shape[1]]
    paint = np.array([int(color[i : i + 2], 16) / 255 for i in (1, 3, 5)], np.float32)
    part[where] += opacity * (paint - part[where])


def _along(line: Line, shape: Any) -> tuple[Dots, int, int]:
    """The dots along a line: small steps on each of its parts, with a round brush."""
    points = line.points * FINE
    deltas = np.diff(points, axis=0)
    counts = np.maximum(np.ceil(np.abs(deltas).max(axis=1, initial=0)), 1).astype(int)
    part = np.repeat(np.arange(len(counts)), counts)
    share = (np.arange(counts.sum()) - np.repeat(np.cumsum(counts) - counts, counts)) / counts[part]
    places = np.concatenate([points[part] + share[:, None] * deltas[part], points[-1:]])
    if line.dashed:
        places = places[np.arange(len(places)) // (3 * FINE) % 2 == 0]
    radius = line.width * FINE / 2
    reach = np.arange(-int(radius), int(radius) + 1)
    brush = np.array([(x, y) for x in reach for y in reach if x * x + y * y <= radius * radius + 0.3])
    dots = np.floor(places[:, None, :] + brush[None]).astype(int).reshape(-1, 2)
    dots = dots[((dots >= 0) & (dots < [shape[1], shape[0]])).all(axis=1)]
    if not len(dots):
        return np.zeros((0, 0), bool), 0, 0
    left, top = dots.min(axis=0).tolist()
    where = np.zeros((dots[:, 1].max() - top + 1, dots[:, 0].max() - left + 1), bool)
    where[dots[:, 1] - top, dots[:, 0] - left] = True
    return where, left, top


def _inside(points: Points, shape: Any) -> tuple[Dots, int, int]:
    """The dots inside a polygon: those with an odd number of its edges above them."""
    (left, top), (right, bottom) = np.floor(points.min(0)).astype(int), np.ceil(points.max(0)).astype(int)
    left, top = max(int(left), 0), max(int(top), 0)
    right, bottom = min(int(right) + 1, shape[1]), min(int(bottom) + 1, shape[0])
    if right <= left or bottom <= top:
        return np.zeros((0, 0), bool), 0, 0
    crossed = np.zeros((bottom - top + 1, right - left), np.int32)
    for start, stop in zip(points, np.roll(points, -1, axis=0), strict=True):
        (x0, y0), (x1, y1) = sorted([start.tolist(), stop.tolist()])
        columns = np.arange(max(int(np.ceil(x0 - 0.5)), left), min(int(np.ceil(x1 - 0.5)), right))
        if not len(columns) or x0 == x1:
            continue
        rows = y0 + (columns + 0.5 - x0) * (y1 - y0) / (x1 - x0)
        first = np.clip(np.ceil(rows - 0.5), top, bottom).astype(int) - top
        crossed[first, columns - left] += 1
    return np.cumsum(crossed, axis=0)[:-1] % 2 == 1, left, top


def _paint_bitmap(board: Board, item: Bitmap) -> None:
    left, top = round(item.x * FINE), round(item.y * FINE)
    part = board[top : top + round(item.height * FINE), left : left + round(item.width * FINE)]
    rows, columns = (
        np.arange(size) * count // max(size, 1)
        for size, count in zip(part.shape[:2], item.pixels.shape[:2], strict=True)
    )
    part[:] = item.pixels[rows[:, None], columns] / 255


def _paint_text(board: Board, text: Text) -> None:
    dots = write(printable(text.text))
    scale = max(round(text.size * FINE / 11), 1)
    where = dots.repeat(scale, axis=0).repeat(scale, axis=1)
    if text.bold:
        where[:, 1:] |= where[:, :-1]
    start = {"start": 0, "middle": where.shape[1] / 2, "end": where.shape[1]}[text.anchor]
    left, top = round(text.x * FINE - start), round(text.y * FINE) - HEIGHT * scale
    inner = where[max(-top, 0) :, max(-left, 0) :]
    inner = inner[: max(board.shape[0] - max(top, 0), 0), : max(board.shape[1] - max(left, 0), 0)]
    _blend(board, inner, max(left, 0), max(top, 0), text.color, 1.0)
