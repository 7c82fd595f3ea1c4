"""Many small arrays as few: what a step carries, packed for the jit boundary.

An array costs about a microsecond on its way into a compiled step and out of it, however small it is.
A model of thousands of small parameters spends its time there. Packed, eight arrays of one shape cross
as one. Larger packs save little more, and take the compiler much longer.
"""

from __future__ import annotations

from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
from jax.core import Tracer

from toolshed.state.train_state import HELD, HELD_FIELDS, TrainState, gone_error, with_fields

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
      stacks: whether any arrays are stacked at all.
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
        self.stacks = bool(self._groups)

    def same_as(self, other: Packing | None) -> bool:
        """True if the other does the same."""
        return self is other or (other is not None and self.identity == other.identity)

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


class Held:
    """What a step changed in a state, packed until somebody reads it.

    Attributes:
      packing: how the values are packed.
      packed: parameters, optimiser state and model state.
    """

    __slots__ = ("packed", "packing")

    def __init__(self, packing: Packing, packed: Packed):
        self.packing, self.packed = packing, packed

    def read(self) -> dict[str, Any]:
        """The fields of a TrainState that are held.

        Raises:
          StateError: they were given to a step that donates.
        """
        if any(pack.is_deleted() for pack in self.packed.packs):
            raise gone_error("params")
        return dict(zip(HELD_FIELDS, self.packing.unpack(self.packed), strict=True))


def hold(state: TrainState, packing: Packing) -> TrainState:
    """The state with its values held in this packing; the same state if they are already."""
    held = state.__dict__.get(HELD)
    if held is not None and held.packing.same_as(packing):
        return state
    packed = packing.pack(tuple(getattr(state, name) for name in HELD_FIELDS))
    return with_fields({**without_held(state), HELD: Held(packing, packed)})


def without_held(state: TrainState) -> dict[str, Any]:
    """The fields that are never held."""
    fields = state.__dict__.copy()  # in one go: another thread may be reading what is held
    for name in HELD_FIELDS:
        fields.pop(name, None)
    return fields


def packing_for(tree: Any) -> Packing | None:
    """How to pack a tree's arrays, or None where that would gain little or they are on several devices."""
    if sum(map(_is_small, jax.tree.leaves(tree))) < _MANY:
        return None
    return Packing(tree) if is_on_one_device(tree) else None


def is_on_one_device(tree: Any) -> bool:
    """Whether all arrays of a tree are on the same device."""
    return len(_devices(tree)) == 1


def is_on_cpu(tree: Any) -> bool:
    """Whether all arrays of a tree are on CPUs."""
    return {device.platform for device in _devices(tree)} == {"cpu"}


def _devices(tree: Any) -> set[Any]:
    return {device for leaf in jax.tree.leaves(tree) for device in leaf.sharding.device_set}


def _is_small(leaf: Any) -> bool:
    return (
        isinstance(leaf, jax.Array)
        and not isinstance(leaf, Tracer)
        and leaf.nbytes <= _SMALL
        and not jnp.issubdtype(leaf.dtype, jax.dtypes.extended)
    )


# Compiled once for each shape, not for each tree.
@jax.jit
def _stack(*arrays: jax.Array) -> jax.Array:
    return jnp.stack(arrays)


@jax.jit
def _unstack(pack: jax.Array) -> tuple[jax.Array, ...]:
    return tuple(jax.lax.index_in_dim(pack, number, keepdims=False) for number in range(len(pack)))
