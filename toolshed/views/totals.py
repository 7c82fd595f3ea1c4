"""Totals: what is known of the arrays below each node, so that a NaN can be followed from the root."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable
from typing import Any

import numpy as np

from toolshed.insight import LeafDifference, LeafSummary, leaf_statistics
from toolshed.views.outline import Node, describe
from toolshed.views.panels import printable


@dataclasses.dataclass(slots=True)
class Total:
    """Sums over the arrays at or below a node.

    Attributes:
      leaves: how many arrays.
      count: how many values.
      bytes: the memory that they take.
      square: the sum of the squares of all finite values; NaN where there are none.
      nan, inf: how many values are not finite.
      ratio: ‖update‖ / ‖parameter‖ where it is known; of a node that of the matrix that is furthest from
        1e-3 on a logarithmic scale. Biases and scales begin at 0 or 1, and follow no such rule.
      summary: of a leaf, what `toolshed.insight.leaf_statistics` says.
      what: one more word, such as how far two trees lie apart there.
      sides: where two trees are compared, the totals of each.
      differs: how many leaves differ there.
      difference: how a leaf differs.
    """

    leaves: int = 0
    count: int = 0
    bytes: int = 0
    square: float = math.nan
    nan: int = 0
    inf: int = 0
    ratio: float = math.nan
    summary: LeafSummary | None = None
    what: str = ""
    sides: tuple[Total, Total] | None = None
    differs: int = 0
    difference: LeafDifference | None = None

    @property
    def norm(self) -> float:
        """The L2 norm; NaN where there are no finite values."""
        return math.sqrt(self.square)

    @property
    def finite(self) -> bool:
        """True if no value is NaN or infinite."""
        return not self.nan and not self.inf


def measure(root: Node) -> None:
    """Fills the totals of all nodes. Measures arrays where they lie; waits for a few numbers of each."""
    leaves = list(root.leaves())
    arrays = [leaf.array for leaf in leaves]
    try:
        totals = [total_of(summary) for summary in leaf_statistics(arrays).values()]
    except Exception:  # one array that cannot be measured hides no other
        totals = [_alone(array) for array in arrays]
    for leaf, total in zip(leaves, totals, strict=True):
        leaf.total = total
        if not leaf.word:
            known = total.summary
            leaf.word = describe(leaf.array) if known is None else printable(known.description)
    add_up(root)


def _alone(array: Any) -> Total:
    """What is known of one array, or that it could not be measured, and why in a word."""
    try:
        return total_of(leaf_statistics([array])["0"])
    except Exception as error:
        return Total(leaves=1, what=f"not measured: {type(error).__name__}")


def total_of(summary: LeafSummary) -> Total:
    """The total of one leaf."""
    return Total(
        leaves=1,
        count=summary.count,
        bytes=summary.bytes,
        square=summary.norm * summary.norm,
        nan=summary.nan,
        inf=summary.posinf + summary.neginf,
        summary=summary,
    )


def add_up(root: Node) -> None:
    """Fills the totals of all nodes that are no leaves from those of the leaves."""
    for node in reversed(list(root.walk())):
        if node.array is None:
            node.total = _sum((child.total, child.apart) for child in node.children)
            pairs = [(child.total.sides, child.apart) for child in node.children if child.total.sides]
            if pairs:
                node.total.sides = (
                    _sum((s[0], apart) for s, apart in pairs),
                    _sum((s[1], apart) for s, apart in pairs),
                )


def _sum(totals: Iterable[tuple[Total, bool]]) -> Total:
    """All of several totals; of those that stand apart, all but their norms."""
    made = Total()
    for total, apart in totals:
        made.leaves += total.leaves
        made.count += total.count
        made.bytes += total.bytes
        made.nan += total.nan
        made.inf += total.inf
        made.differs += total.differs
        if not apart and not math.isnan(total.square):
            made.square = total.square if math.isnan(made.square) else made.square + total.square
        is_vector = total.summary is not None and len(total.summary.shape) < 2
        if not is_vector and strangeness(total.ratio) > strangeness(made.ratio):
            made.ratio = total.ratio
    return made


def strangeness(ratio: float) -> float:
    """How many powers of ten an update ratio is away from the usual 1e-3; -1 where it is not known."""
    if math.isnan(ratio):
        return -1.0
    return abs(math.log10(ratio) + 3) if 0 < ratio < math.inf else math.inf


def concern(total: Total) -> tuple[float, ...]:
    """What to sort by, so that the worst is first: NaN, then infinities, then odd updates, then size.

    Where two trees are compared: what is not the same at all, then the largest relative change.
    """
    if total.sides is not None:
        change = (
            math.inf if total.difference is None else np.nan_to_num(total.difference.relative, nan=math.inf)
        )
        return (-float(total.differs), -float(change) if total.differs else 0.0)
    size = 0.0 if total.summary is None else np.nan_to_num(total.summary.absmax, nan=0.0, posinf=1e38)
    return (-float(total.nan), -float(total.inf), -strangeness(total.ratio), -float(size))
