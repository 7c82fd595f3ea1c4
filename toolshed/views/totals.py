"""Totals: what is known of the arrays below each node, so that a NaN can be followed from the root."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterable

import numpy as np

from toolshed.insight import LeafSummary, leaf_statistics
from toolshed.views.outline import Node


@dataclasses.dataclass(slots=True)
class Total:
    """Sums over the arrays at or below a node.

    Attributes:
      leaves: how many arrays.
      count: how many values.
      bytes: the memory that they take.
      square: the sum of the squares of all finite values; NaN where there are none.
      nan, inf: how many values are not finite.
      ratio: ‖update‖ / ‖parameter‖ where it is known; of a node that of the leaf that is furthest from
        1e-3 on a logarithmic scale.
      summary: of a leaf, what `toolshed.insight.leaf_statistics` says.
      what: one more word, such as how far two trees lie apart there.
      differs: how many leaves differ, where two trees are compared.
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
    differs: int = 0

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
    found = list(leaf_statistics([leaf.array for leaf in leaves]).values()) if leaves else []
    for leaf, summary in zip(leaves, found, strict=True):
        leaf.total = _of(summary)
    add_up(root)


def _of(summary: LeafSummary) -> Total:
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
            node.total = _sum(node.children)


def _sum(nodes: Iterable[Node]) -> Total:
    made = Total()
    for node in nodes:
        total = node.total
        made.leaves += total.leaves
        made.count += total.count
        made.bytes += total.bytes
        made.nan += total.nan
        made.inf += total.inf
        made.differs += total.differs
        if not node.apart and not math.isnan(total.square):
            made.square = total.square if math.isnan(made.square) else made.square + total.square
        if strangeness(total.ratio) > strangeness(made.ratio):
            made.ratio = total.ratio
    return made


def strangeness(ratio: float) -> float:
    """How many powers of ten an update ratio is away from the usual 1e-3; -1 where it is not known."""
    if math.isnan(ratio):
        return -1.0
    return abs(math.log10(ratio) + 3) if 0 < ratio < math.inf else math.inf


def concern(total: Total) -> tuple[float, ...]:
    """What to sort by, so that the worst is first: NaN, then infinities, then odd updates, then size."""
    size = 0.0 if total.summary is None else np.nan_to_num(total.summary.absmax, nan=0.0, posinf=1e38)
    return (-total.nan, -total.inf, -strangeness(total.ratio), -float(size))
