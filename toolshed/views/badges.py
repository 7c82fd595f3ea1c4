"""Badges: what is known of a leaf, or of all below a node, in a few characters of text.

A badge is words with a kind; what the kinds look like stands in `toolshed.views.drawn`.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np

from toolshed.insight.leaves import ABSTRACT, DELETED, KEY, TRACED
from toolshed.views.outline import Node
from toolshed.views.totals import Total, strangeness
from toolshed.views.trees import format_bytes

BARS = " ▁▂▃▄▅▆▇█"
_NO_NUMBERS = {KEY: "random key", DELETED: "deleted: given to a step that donates", TRACED: "traced", ABSTRACT: "no values"}

_WHOLE = ("int", "uint", "bool")


class Badge(NamedTuple):
    """A few words on a node.

    Attributes:
      kind: ``quiet``, ``norm``, ``good``, ``odd``, ``bad``, ``chart`` or ``note``.
      text: the words.
    """

    kind: str
    text: str


def alarms(node: Node) -> list[Badge]:
    """How many values at or below a node are not finite."""
    counts = ((node.total.nan, "NaN"), (node.total.inf, "Inf"))
    return [Badge("bad", f" {name} ×{count:,} ") for count, name in counts if count]


def badges(node: Node) -> list[Badge]:
    """What is known of a node whose total is filled, in columns that are as wide on every line."""
    total = node.total
    if not total.leaves:
        return []
    size = format_bytes(total.bytes) if total.bytes else ""
    made = [Badge("quiet", f"{size:>9}"), Badge("norm", f"  {_norm(total):<13}"), _ratio(total, node.array is None)]
    if total.what:
        made.append(Badge("note", total.what))
    elif total.summary is not None:
        made += _of_leaf(total)
    else:
        arrays = f"{total.leaves:,} array{'s' if total.leaves != 1 else ''}"
        made.append(Badge("quiet", f"{arrays} · {total.count:,} value{'s' if total.count != 1 else ''}"))
    return made


def _norm(total: Total) -> str:
    """The length of all values; of a single value that itself, of whole numbers their range."""
    summary = total.summary
    if math.isnan(total.square):
        return ""
    if summary is None:
        return f"‖·‖ {short(total.norm)}"
    if summary.count == 1:
        return f"= {short(summary.mean)}"
    if summary.description.startswith(_WHOLE):
        return f"{short(summary.min)} … {short(summary.max)}"
    return f"‖·‖ {short(total.norm)}"


def _of_leaf(total: Total) -> list[Badge]:
    summary = total.summary
    assert summary is not None
    if summary.kind in _NO_NUMBERS:
        return [Badge("note", _NO_NUMBERS[summary.kind])]
    if summary.count <= 1 or not summary.histogram.any() or summary.description.startswith(_WHOLE):
        return []
    if summary.zeros == summary.count:
        return [Badge("odd", " all 0 ")]
    zeros = [Badge("quiet", f" {summary.sparsity:.0%} zeros")] if summary.sparsity >= 0.5 else []
    return [Badge("chart", sparkline(summary.histogram)), *zeros]


def _ratio(total: Total, is_worst: bool) -> Badge:
    """The size of an update beside its parameter; about 1e-3 is usual. Of a node, if it is unusual."""
    away = strangeness(total.ratio)
    if away < 0 or (is_worst and away <= 1):
        return Badge("quiet", "")
    kind = "good" if away <= 1 else "odd" if away <= 2 else "bad"
    ratio = total.ratio
    number = "0" if ratio == 0 else "∞" if math.isinf(ratio) else f"{ratio:.0e}".replace("e-0", "e-")
    arrow = "" if kind == "good" else "▲" if ratio > 1e-3 else "▼"
    return Badge(kind, f" Δ/θ {number}{arrow} ")


def short(value: float) -> str:
    """A number in three digits: ``0.0123``, ``1.2e-8``."""
    text = f"{value:.3g}"
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def sparkline(histogram: np.ndarray) -> str:
    """A signed logarithmic histogram in 25 characters, with 0 in the middle and a logarithmic height.

    Args:
      histogram: as `toolshed.insight.LeafSummary` has it, int64[49]; two bins make one character.
    """
    middle = len(histogram) // 2
    below = histogram[:middle].reshape(-1, 2).sum(axis=1)
    above = histogram[middle + 1 :].reshape(-1, 2).sum(axis=1)
    heights = np.concatenate([below, histogram[middle : middle + 1], above])
    top = math.log1p(heights.max())
    return "".join(BARS[math.ceil(8 * math.log1p(height) / top) if height else 0] for height in heights)
