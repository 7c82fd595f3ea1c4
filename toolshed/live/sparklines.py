"""Sparklines: curves made of characters.

A Braille character has two dots side by side and four above each other, so that a line of text holds a
curve of some height. Where the terminal's encoding has no Braille, full stops and apostrophes stand for
the lower and the upper half of a line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np
from jaxtyping import Bool, Int64

from toolshed.run import Window

Row = list[tuple[str, str]]
"""A line of text: pieces, each with the name of its style."""

_BRAILLE = np.array([[1, 8], [2, 16], [4, 32], [64, 128]])  # which bit each of the dots is
_ASCII = {0: " ", 1: "'", 2: ".", 3: ":"}


class Curve(NamedTuple):
    """What is drawn: a series, thinned to at most `columns` columns, and the name of its style."""

    window: Window
    style: str


class Signs(NamedTuple):
    """The characters that an encoding has.

    Attributes:
      columns, rows: dots in a character, side by side and above each other.
      odd: stands where a value is not finite.
      mark: runs from top to bottom where something happened.
      bar, rest: parts of a progress bar.
      dot: stands between facts.
    """

    columns: int
    rows: int
    odd: str
    mark: str
    bar: str
    rest: str
    dot: str


UNICODE = Signs(2, 4, "×", "┊", "━", "─", " · ")
ASCII = Signs(1, 2, "x", "|", "#", "-", " | ")


def extent(curves: Iterable[Curve]) -> tuple[float, float] | None:
    """The lowest and the highest value of some curves; None where there is none."""
    windows = [curve.window for curve in curves if len(curve.window.steps)]
    if not windows:
        return None
    return min(float(w.low.min()) for w in windows), max(float(w.high.max()) for w in windows)


def sparkline(
    curves: Sequence[Curve],
    first: int,
    last: int,
    width: int,
    height: int,
    *,
    marks: Sequence[int] = (),
    signs: Signs = UNICODE,
) -> list[Row]:
    """Curves over one another, from the lowest to the highest value of all, as lines of text.

    Args:
      curves: where they coincide both are seen, in turns.
      first, last: the steps at the left and the right edge.
      width, height: in characters.
      marks: steps at which something happened.
      signs: what the curves are made of.
    """
    letters = np.full((height, width), " ", object)
    styles = np.full((height, width), "", object)
    for step in marks:
        if first <= step <= last:
            column = _column(np.array(step), first, last, width)
            letters[:, column], styles[:, column] = signs.mark, "mark"
    low, high = extent(curves) or (0.0, 0.0)
    filled = np.zeros((height, width), np.int64)
    for curve in curves:
        dots = _dots(curve.window, first, last, low, high, width * signs.columns, height * signs.rows)
        codes = _codes(dots, signs)
        shared = (filled > 0) & (np.arange(width) % 2 == 0)  # lines that coincide take turns
        styles[(codes > 0) & ~shared] = curve.style
        filled |= codes
    for place in np.argwhere(filled):
        code = int(filled[tuple(place)])
        letters[tuple(place)] = chr(0x2800 + code) if signs.rows == 4 else _ASCII[code]
    for curve in curves:
        columns = _column(curve.window.nonfinite, first, last, width)
        letters[0, columns], styles[0, columns] = signs.odd, "odd"
    return [_joined(row, style) for row, style in zip(letters, styles, strict=True)]


def _column(steps: Any, first: int, last: int, columns: int) -> Any:
    return (steps - first) * columns // (last - first + 1)


def _dots(
    window: Window, first: int, last: int, low: float, high: float, columns: int, rows: int
) -> Bool[np.ndarray, "rows columns"]:
    """Which dots a curve sets: each column from its lowest to its highest, with the next one in touch."""
    dots = np.zeros((rows, columns), bool)
    if not len(window.steps):
        return dots
    place = _column(window.steps, first, last, columns)
    lows, highs = np.full(columns, np.inf), np.full(columns, -np.inf)
    np.minimum.at(lows, place, window.low)
    np.maximum.at(highs, place, window.high)
    known = np.unique(place)
    every = np.arange(known[0], known[-1] + 1)
    lows, highs = np.interp(every, known, lows[known]), np.interp(every, known, highs[known])
    span = high - low
    if span > 0:
        bottom, top = (np.rint((edge - low) / span * (rows - 1)).astype(np.int64) for edge in (lows, highs))
    else:
        bottom, top = np.full((2, len(every)), rows // 2)
    here, there = slice(None, -1), slice(1, None)
    for upper, lower in ((here, there), (there, here)):
        middle = (bottom[upper] + top[lower]) // 2
        apart = bottom[upper] > top[lower] + 1
        bottom[upper] = np.where(apart, middle + 1, bottom[upper])
        top[lower] = np.where(apart, middle, top[lower])
    level = np.arange(rows)[::-1, None]
    dots[:, every] = (level >= bottom) & (level <= top)
    return dots


def _codes(dots: Bool[np.ndarray, "rows columns"], signs: Signs) -> Int64[np.ndarray, "height width"]:
    """Which dots of each character are set, as bits."""
    height, width = dots.shape[0] // signs.rows, dots.shape[1] // signs.columns
    parts = dots.reshape(height, signs.rows, width, signs.columns)
    weights = _BRAILLE if signs.rows == 4 else np.array([[1], [2]])
    return np.einsum("hrwc,rc->hw", parts.astype(np.int64), weights)


def _joined(letters: Any, styles: Any) -> Row:
    """Characters and their styles, neighbours of one style as one piece."""
    row: Row = []
    for letter, style in zip(letters, styles, strict=True):
        if row and row[-1][1] == style:
            row[-1] = (row[-1][0] + letter, style)
        else:
            row.append((letter, style))
    return row
