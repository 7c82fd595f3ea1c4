"""Frames: a scene as bytes for the widget, in as few as its values need.

A frame is, little-endian: the length of its header as uint32, four bytes of nothing, the header as JSON
(padded to a multiple of four), and the arrays of each line, one after another:

- ``steps``: uint32[n], offsets from the line's ``first``; left out where all after the first one lie
  ``every`` steps apart
- ``low``: float32[n]
- ``high`` and ``mean``: float32[n] each; left out where the line is ``flat``: one value a column
- ``bad``: uint32[k], offsets from the line's ``origin``: steps whose value is not finite

``frontend/src/frames.js`` reads it. Frames of other things begin alike: header, then arrays.
"""

from __future__ import annotations

import json
from collections.abc import Iterable
from typing import Any

import numpy as np

from toolshed.live.scene import Line, Scene, clip, plain

NAME = 120
"""Characters of a name that travel; more would not be seen."""


def pack(scene: Scene) -> bytes:
    """The bytes of a scene.

    Example:
      >>> from toolshed.live.scene import whole
      >>> from toolshed.run import History
      >>> history = History()
      >>> history.append("train/loss", range(1_000_000), np.zeros(1_000_000))
      >>> len(pack(whole(history))) < 60_000
      True
    """
    lines = [_line(line) for line in scene.lines]
    header = {
        "version": scene.version,
        "branch": clip(scene.branch, NAME),
        "first": scene.first,
        "last": scene.last,
        "left_out": len(scene.names) - sum(len(panel.lines) for panel in scene.panels),
        "panels": [
            {
                "title": _title(panel.title, panel.lines[0][0]),
                "shown": panel.shown,
                "lines": [{"id": place, "label": clip(label, NAME)} for place, label in panel.lines],
            }
            for panel in scene.panels
        ],
        "lines": [header for header, _ in lines],
    }
    return bind(header, [array for _, arrays in lines for array in arrays])


def bind(header: dict[str, Any], arrays: Iterable[np.ndarray]) -> bytes:
    """A frame: a header that JSON can hold, and arrays of four bytes a value."""
    text = json.dumps(header, separators=(",", ":"), allow_nan=False).encode()
    text += b" " * (-len(text) % 4)
    lengths = np.array([len(text), 0], "<u4").tobytes()
    return b"".join([lengths, text, *(array.tobytes() for array in arrays)])


def _line(line: Line) -> tuple[dict[str, Any], list[np.ndarray]]:
    """The header of a line, and its arrays."""
    steps, low, high, bad, mean = line.window
    first = int(steps[0]) if len(steps) else 0
    origin = int(bad[0]) if len(bad) else 0
    gaps = steps[2:] - steps[1:-1]
    every = int(gaps[0]) if len(gaps) and (gaps == gaps[0]).all() else 0
    flat = bool((low == high).all())
    arrays = [] if every else [_offsets(steps, first)]
    arrays += [low.astype("<f4")]
    arrays += [] if flat else [high.astype("<f4"), mean.astype("<f4")]
    header = {
        "id": line.place,
        "branch": clip(line.branch, NAME),
        "current": line.current,
        "n": len(steps),
        "first": first,
        "second": int(steps[1]) if every else 0,
        "every": every,
        "flat": flat,
        "origin": origin,
        "bad": len(bad),
        "last": plain(line.last),
    }
    return header, [*arrays, _offsets(bad, origin)]


def _title(title: str, place: int) -> str:
    """A title of bounded length that is still no other panel's."""
    return title if len(title) <= NAME else f"{clip(title, NAME)} ({place})"


def _offsets(steps: np.ndarray, origin: int) -> np.ndarray:
    return (steps - origin).astype("<u4")
