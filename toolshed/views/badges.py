"""Badges: what is known of a leaf, or of all below a node, in a few characters of text.

A badge is words with a kind; what the kinds look like stands in `toolshed.views.drawn`.
"""

from __future__ import annotations

import math
import re
from typing import NamedTuple

import numpy as np

from toolshed.insight.leaves import ABSTRACT, DELETED, KEY, TRACED
from toolshed.views.outline import Node
from toolshed.views.totals import Total, strangeness
from toolshed.views.trees import format_bytes

BARS = " ▁▂▃▄▅▆▇█"
_NO_NUMBERS = {
    KEY: "random key",
    DELETED: "deleted: given to a step that donates",
    TRACED: "traced",
    ABSTRACT: "no values",
}

_LETTERS = {"float": "f", "bfloat": "bf", "int": "i", "uint": "u", "complex": "c"}
_DTYPE = re.compile(r"^(bfloat|float|uint|int|complex)(\d+)")
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
    if total.sides is not None:
        return _compared(total)
    size = format_bytes(total.bytes) if total.bytes else ""
    made = [
        Badge("quiet", f"{size:>9}"),
        Badge("norm", f"  {_norm(total):<13}"),
        _ratio(total, node.array is None),
    ]
    if total.what:
        made.append(Badge("note", f"{total.what}  "))
    if total.summary is not None:
        made += _of_leaf(total)
    elif not total.what:
        arrays = f"{total.leaves:,} array{'s' if total.leaves != 1 else ''}"
        made.append(Badge("quiet", f"{arrays} · {total.count:,} value{'s' if total.count != 1 else ''}"))
    return made


def _compared(total: Total) -> list[Badge]:
    """Both norms, and how far the values lie apart."""
    assert total.sides is not None
    left, right = (_norm(side) or "none" for side in total.sides)
    made = [Badge("norm", f"  {left:<13} → {right:<13}")]
    found = total.difference
    if total.summary is None and not total.what:
        words = f"{total.differs:,} of {total.leaves:,} arrays differ" if total.differs else "the same"
        return [*made, Badge("odd" if total.differs else "quiet", f" {words} ")]
    if not total.differs:
        return [*made, Badge("quiet", " the same ")]
    if found is None or found.index is None or found.values is None:
        sides = f"{found.a} → {found.b}" if found is not None and found.a and found.b else ""
        sides = " → ".join(map(compact, sides.split(" → ")))
        return [*made, Badge("bad", f" {total.what or sides or (found.what if found else 'differs')} ")]
    was_zero = math.isinf(found.relative) and math.isfinite(found.values[0] + found.values[1])
    kind = "odd" if found.relative < 0.5 or was_zero else "bad"
    change = "from 0" if was_zero else short(found.relative)
    at = ", ".join(map(str, found.index))
    most = f"max |Δ| {short(found.largest)} at [{at}]: {short(found.values[0])} → {short(found.values[1])}"
    return [*made, Badge(kind, f" {change:<7} "), Badge("quiet", f"  {most}")]


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
        return Badge("quiet", " " * 11 if total.summary is not None and away >= 0 else "")
    is_vector = total.summary is not None and len(total.summary.shape) < 2
    kind = "quiet" if is_vector else "good" if away <= 1 else "odd" if away <= 2 else "bad"
    ratio = total.ratio
    number = "0" if ratio == 0 else "∞" if math.isinf(ratio) else _exponent(f"{ratio:.0e}")
    arrow = " " if kind in ("quiet", "good") else "▲" if ratio > 1e-3 else "▼"
    return Badge(kind, f" Δ/θ {number:<4}{arrow}")


def short(value: float) -> str:
    """A number in three digits: ``0.0123``, ``1.2e-8``."""
    return _exponent(f"{value:.3g}")


def _exponent(text: str) -> str:
    return text.replace("e-0", "e-").replace("e+0", "e").replace("e+", "e")


def compact(description: str) -> str:
    """A dtype and shape in fewer letters: ``f32[8,32]`` for ``float32[8,32]``."""
    return _DTYPE.sub(lambda found: _LETTERS[found[1]] + found[2], description)


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
