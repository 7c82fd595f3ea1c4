"""Many small arrays as few: what a step carries, packed for the jit boundary.

An array costs about a microsecond on its way into a compiled step and out of it, however small it is.
A model of thousands of small parameters spends its time there. Packed, eight arrays of one shape cross
as one. Larger packs save little more, and take the compiler much longer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

_SMALL = 4096  # bytes: packing copies, which costs more than it saves for arrays much larger
_TOGETHER = 8  # arrays in a pack
_MANY = 512  # small arrays from which on packing is worth its compilation


class Packed(NamedTuple):
    """The leaves of a tree, small ones stacked.

    Attributes:
      packs: arrays of one shape and dtype each, stacked along a new first axis.
      others: the leaves that are not packed.
    """

    packs: tuple[jax.Array, ...]
    others: tuple[Any, ...]


class Packing:
    """Which leaves of a tree are packed, and how to get there and back.

    Args:
      tree: a tree with many small arrays; see `packing_for`.
      together: arrays in a pack; with 1 nothing is packed.

    Attributes:
      identity: equal for two packings that do the same.
    """

    def __init__(self, tree: Any, *, together: int = _TOGETHER):
        leaves, self._structure = jax.tree.flatten(tree)
        kinds: dict[Any, list[int]] = {}
        for number, leaf in enumerate(leaves):
            if _is_small(leaf):
                kinds.setdefault((leaf.shape, leaf.dtype), []).append(number)
        starts = [(same, at) for same in kinds.values() for at in range(0, len(same), together)]
        groups = [tuple(same[at : at + together]) for same, at in starts]
        self._groups = tuple(group for group in groups if len(group) > 1)
        packed = {number for group in self._groups for number in group}
        self._others = tuple(number for number in range(len(leaves)) if number not in packed)
        self.identity = (self._structure, self._groups)

    def pack(self, tree: Any) -> Packed:
        """The tree packed. What is packed is copied, the other leaves are not."""
        leaves = self._structure.flatten_up_to(tree)
        packs = tuple(_stack(*(leaves[number] for number in group)) for group in self._groups)
        return Packed(packs, tuple(leaves[number] for number in self._others))

    def unpack(self, packed: Packed) -> Any:
        """The inverse of `pack`."""
        leaves: list[Any] = [None] * self._structure.num_leaves
        for group, pack in zip(self._groups, packed.packs, strict=True):
            for number, leaf in zip(group, _unstack(pack), strict=True):
                leaves[number] = leaf
        for number, leaf in zip(self._others, packed.others, strict=True):
            leaves[number] = leaf
        return self._structure.unflatten(leaves)


def packing_for(tree: Any) -> Packing | None:
    """How to pack a tree's arrays, or None where that would gain little or they are on several devices."""
    if sum(map(_is_small, jax.tree.leaves(tree))) < _MANY:
        return None
    return Packing(tree) if is_on_one_device(tree) else None


def is_on_one_device(tree: Any) -> bool:
    """Whether all arrays of a tree are on the same device."""
    return len({device for leaf in jax.tree.leaves(tree) for device in leaf.sharding.device_set}) == 1


def _is_small(leaf: jax.Array) -> bool:
    return leaf.nbytes <= _SMALL and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)


# Compiled once for each shape, not for each tree.
@jax.jit
def _stack(*arrays: jax.Array) -> jax.Array:
    return jnp.stack(arrays)


@jax.jit
def _unstack(pack: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jax.lax.index_in_dim(pack, number, keepdims=False) for number in range(len(pack)))
