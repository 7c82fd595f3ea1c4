"""Statistics of every leaf of a tree: computed where the leaves lie, fetched in one piece."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any

import numpy as np

from toolshed import paths
from toolshed.insight.batching import measure_leaves
from toolshed.insight.leaves import NUMBERS, leaves_of
from toolshed.insight.summary import LeafSummary, combine, summarize
from toolshed.insight.tables import number, table

_SHOWN = 40  # leaves that a repr lists


class LeafStatistics(Mapping[str, LeafSummary]):
    """Statistics by path, in the tree's order; made by `leaf_statistics`.

    ``statistics["mlp/0/weights"]`` is one leaf's `LeafSummary`. A path with ``*`` gives the statistics of
    all leaves that match.
    """

    def __init__(self, summaries: Iterable[LeafSummary]):
        self._summaries = {summary.path: summary for summary in summaries}
        self._below: dict[str, list[LeafSummary]] | None = None

    def __getitem__(self, path: str) -> Any:
        if path in self._summaries:
            return self._summaries[path]
        matching = paths.match(path, self._summaries) if paths.is_pattern(path) else []
        if not matching:
            raise paths.missing(path, self._summaries, "these statistics")
        return LeafStatistics(self._summaries[name] for name in matching)

    def __iter__(self) -> Iterator[str]:
        return iter(self._summaries)

    def __len__(self) -> int:
        return len(self._summaries)

    @property
    def finite(self) -> bool:
        """True if no leaf holds a NaN or an infinity."""
        return all(leaf.finite for leaf in self._summaries.values())

    def column(self, name: str) -> np.ndarray:
        """One statistic of all leaves in their order: ``column("norm")``, float64[leaves]."""
        return np.array([getattr(leaf, name) for leaf in self._summaries.values()])

    def total(self, prefix: str = "") -> LeafSummary:
        """All leaves at or below a path as if they were one array; without a path, all there are.

        Raises:
          ContextKeyError: no leaf is there.
        """
        if not prefix:
            return combine("", self._summaries.values())
        if self._below is None:
            self._below = _below(self._summaries)
        if prefix not in self._below:
            raise paths.missing(prefix, self._below, "these statistics")
        return combine(prefix, self._below[prefix])

    def worst(self) -> LeafStatistics:
        """The leaves by concern: those with NaN, those with infinities, the others by ``absmax``."""
        return LeafStatistics(
            sorted(
                self._summaries.values(),
                key=lambda leaf: (not leaf.nan, leaf.finite, -leaf.absmax if leaf.absmax >= 0 else 1),
            )
        )

    def __repr__(self) -> str:
        leaves = list(self._summaries.values())
        total = combine("", leaves)
        lines = [f"Statistics of {len(leaves):,} leaves: {total.count:,} values, {total.bytes:,} bytes"]
        lines += table(["", "", *_COLUMNS, ""], [_row(leaf) for leaf in leaves[:_SHOWN]], left=2)
        if len(leaves) > _SHOWN:
            bad = sum(not leaf.finite for leaf in leaves[_SHOWN:])
            hint = f", {bad:,} of them not finite; see worst()" if bad else ""
            lines.append(f"… and {len(leaves) - _SHOWN:,} more{hint}")
        return "\n".join(lines)


def leaf_statistics(tree: Any) -> LeafStatistics:
    """Statistics of every leaf: norm, mean, extremes, zeros, NaN, infinities, histogram.

    Values are measured where they lie; some 60 numbers a leaf travel, once, and for those this waits. A
    sharded array is measured shard by shard. bfloat16, float16, 8-bit floats and integers are summed up
    in float32, types of 64 bits in float64. Arrays of fewer than 65,536 values are measured together,
    256 in one call. What is compiled is kept, by shapes.

    Keys, deleted arrays, traced values and whatever is no array are listed by what they are, without
    numbers.

    Args:
      tree: any pytree: a state, a model, gradients, a batch. A named array is one leaf.

    Raises:
      ToolshedError: two leaves have the same path.

    Example:
      >>> import jax.numpy as jnp, toolshed
      >>> stats = toolshed.insight.leaf_statistics({"w": jnp.array([3.0, 0.0, -4.0, jnp.inf])})
      >>> stats["w"].norm, stats["w"].zeros, stats["w"].posinf, stats["w"].sparsity
      (5.0, 1, 1, 0.25)
    """
    leaves = leaves_of(tree)
    measured = measure_leaves({p: leaf for p, leaf in leaves.items() if leaf.kind == NUMBERS and leaf.count})
    return LeafStatistics(summarize(path, leaf, measured.get(path)) for path, leaf in leaves.items())


def _below(summaries: Mapping[str, LeafSummary]) -> dict[str, list[LeafSummary]]:
    """The leaves at or below each path."""
    below: dict[str, list[LeafSummary]] = {}
    for path, summary in summaries.items():
        parts = path.split("/")
        for depth in range(1, len(parts) + 1):
            below.setdefault("/".join(parts[:depth]), []).append(summary)
    return below


_COLUMNS = ("norm", "mean", "std", "min", "max", "zero")


def _row(leaf: LeafSummary) -> list[str]:
    if leaf.kind != NUMBERS:
        return [leaf.path, leaf.description, *("" for _ in _COLUMNS), leaf.kind]
    numbers = [number(value) for value in (leaf.norm, leaf.mean, leaf.std, leaf.min, leaf.max)]
    zeros = f"{leaf.sparsity:.1%}" if leaf.zeros else ""
    return [leaf.path, leaf.description, *numbers, zeros, ", ".join(leaf.concerns)]
