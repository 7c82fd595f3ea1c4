"""Two checkpoints, or a checkpoint and a state, side by side."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import NamedTuple

from toolshed.checkpoints import arrays
from toolshed.checkpoints.compare import Comparison, compare
from toolshed.checkpoints.manifest import Manifest
from toolshed.checkpoints.restore import check_like
from toolshed.checkpoints.structure import Kind, kind_of
from toolshed.state import TrainState


class Side(NamedTuple):
    """One side of a comparison.

    Attributes:
      name: what to call it.
      kinds: of its leaves, by path.
      hash_at: the SHA-256 of the values at a path.
    """

    name: str
    kinds: Mapping[str, Kind]
    hash_at: Callable[[str], str]


def side_of(of: Manifest | TrainState) -> Side:
    """A checkpoint or a state as a side. Loads no arrays; those of a state are waited for."""
    if isinstance(of, TrainState):
        leaves = check_like(of)
        kinds = {path: kind_of(leaf) for path, leaf in leaves.items()}
        return Side("the state", kinds, lambda path: arrays.hash_of(arrays.to_host(leaves[path])))
    saved = {leaf.path: leaf for leaf in of.structure}
    kinds = {path: leaf.kind for path, leaf in saved.items()}
    return Side(f"step {of.step}", kinds, lambda path: saved[path].sha256)


def compare_sides(first: Side, second: Side) -> Comparison:
    """The leaves of both, values too."""
    return compare(
        first.kinds,
        second.kinds,
        changed=lambda path: first.hash_at(path) != second.hash_at(path),
        names=(first.name, second.name) if first.name != second.name else ("first", "second"),
    )
