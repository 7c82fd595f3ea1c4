"""From saved values back to a state: where each goes, in which dtype, on which devices."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.sharding import NamedSharding, PartitionSpec, Sharding

from toolshed import paths
from toolshed.checkpoints.structure import DTYPES, Kind, is_key_kind
from toolshed.errors import CheckpointError
from toolshed.keys import is_key
from toolshed.state import TrainState
from toolshed.state.snapshot import arrays, leaves, with_arrays

_SPREAD = ("params", "opt_state", "model_state")
_KINDS = (jnp.bool_, jnp.integer, jnp.floating, jnp.complexfloating)


def check_like(like: Any) -> dict[str, Any]:
    """The arrays of the state to load into.

    Raises:
      CheckpointError: it is no state, or one without arrays.
      StateError: its arrays were donated.
    """
    if not isinstance(like, TrainState):
        raise CheckpointError(
            f"Expected `like` to be a TrainState, got {paths.describe(like)}. Make a fresh one with the model"
            " and the optimizer that was saved: trainer.init(jax.random.key(0))."
        )
    like.check_alive()
    found = arrays(like)
    for path, leaf in found.items():
        if isinstance(leaf, jax.ShapeDtypeStruct):
            raise CheckpointError(f"`like` has no array at {path}, only a shape; expected a real state.")
    return found


def can_cast(saved: Kind, expected: Kind) -> bool:
    """Whether one differs from the other in precision alone."""
    if saved.shape != expected.shape or is_key_kind(saved) or is_key_kind(expected):
        return False
    a, b = DTYPES[saved.dtype], DTYPES[expected.dtype]
    return any(jnp.issubdtype(a, kind) and jnp.issubdtype(b, kind) for kind in _KINDS)


def rebuild(like: TrainState, values: Mapping[str, np.ndarray], shardings: Any) -> TrainState:
    """The state with saved values in the places of like's, those that were not saved as they are.

    Args:
      like: gives structure, skeleton, optimiser and dtypes.
      values: by path, in memory that nobody else has; of keys the bytes of their bits.
      shardings: where to put them; see `Repository.load`. None for where those of ``like`` are.
    """
    target = _Target(like, shardings)
    out = {}
    for path, leaf in arrays(like).items():
        if path not in values:
            out[path] = leaf if target.is_default else target.put(path, leaf)
        elif is_key(leaf):
            bits = jax.random.key_data(leaf)
            raw = values[path].view(bits.dtype).reshape(bits.shape)
            out[path] = jax.random.wrap_key_data(
                target.put(path, raw, like=leaf), impl=str(jax.random.key_impl(leaf))
            )
        else:
            value = values[path].astype(leaf.dtype, copy=False)
            out[path] = target.put(path, value, like=leaf) if isinstance(leaf, jax.Array) else value
    return with_arrays(like, out)


class _Target:
    """Where the leaves go."""

    def __init__(self, like: TrainState, shardings: Any):
        self.is_default = shardings is None
        self._one: Sharding | None = shardings if isinstance(shardings, Sharding) else None
        self._each: dict[str, Sharding] = {}
        if isinstance(shardings, TrainState):
            found = leaves(shardings, is_leaf=lambda leaf: isinstance(leaf, Sharding))
            self._each = {path: leaf for path, leaf in found if isinstance(leaf, Sharding)}
        elif not self.is_default and self._one is None:
            raise CheckpointError(
                f"Expected shardings as one jax.sharding.Sharding, or as a TrainState of them; got"
                f" {paths.describe(shardings)}."
            )
        given = [self._one, *self._each.values()]
        meshes = [sharding.mesh for sharding in given if isinstance(sharding, NamedSharding)]
        self._rest = NamedSharding(meshes[0], PartitionSpec()) if meshes else self._one

    def put(self, path: str, value: Any, like: Any = None) -> Any:
        """The value on its devices. On a CPU jax goes on using the memory that it came in."""
        like = value if like is None else like
        sharding = self._sharding(path, np.shape(like)) or getattr(like, "sharding", None)
        return jax.device_put(value, sharding)

    def _sharding(self, path: str, shape: tuple[int, ...]) -> Sharding | None:
        if self.is_default:
            return None
        if path in self._each:
            return self._each[path]
        if self._one is not None and path.split("/", 1)[0] in _SPREAD and _divides(self._one, shape):
            return self._one
        return self._rest


def _divides(sharding: Sharding, shape: tuple[int, ...]) -> bool:
    """Whether an array of this shape can be laid out so."""
    if math.prod(shape) == 0:
        return False
    try:
        sharding.shard_shape(shape)
    except (ValueError, IndexError):
        return False
    return True
