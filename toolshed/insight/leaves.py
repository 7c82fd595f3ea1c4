"""The leaves of a tree as questions about values meet them: which hold numbers, and what the others are."""

from __future__ import annotations

import dataclasses
import functools
import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.core import Tracer
from jax.sharding import AxisType, Mesh, NamedSharding
from penzai import pz

from toolshed import paths
from toolshed.errors import ToolshedError
from toolshed.keys import is_key

NUMBERS, KEY, DELETED, TRACED, ABSTRACT, OTHER = "numbers", "key", "deleted", "traced", "abstract", "other"
"""What a leaf can be: an array of numbers, random keys, an array whose memory is gone (it was donated to
a compiled step), a value under a jax transformation, a shape without values, or no array at all."""


@dataclasses.dataclass(frozen=True)
class Leaf:
    """One leaf.

    Attributes:
      kind: one of `NUMBERS`, `KEY`, `DELETED`, `TRACED`, `ABSTRACT` and `OTHER`.
      array: the array, without the names of its axes; of `OTHER` the thing itself.
      description: dtype and shape in one word, names of axes included.
    """

    kind: str
    array: Any
    description: str

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape; that of a scalar for what is no array."""
        return tuple(getattr(self.array, "shape", ()))

    @functools.cached_property
    def count(self) -> int:
        """How many values the array has; none where there is no array."""
        return 0 if self.kind == OTHER else math.prod(map(int, self.shape))

    @property
    def bytes(self) -> int:
        """The memory that the values take; none where they are gone or never were."""
        held = self.kind in (NUMBERS, KEY)
        return self.count * self.array.dtype.itemsize if held else 0


def leaves_of(tree: Any) -> dict[str, Leaf]:
    """Every leaf by its path, in the tree's order; parameters and variables of a model are opened.

    Raises:
      ToolshedError: two leaves have the same path.
    """
    found: dict[str, Leaf] = {}
    for path, value in paths.flatten(tree).items():
        is_variable = isinstance(value, (pz.Parameter, pz.StateVariable))
        inside = paths.flatten(value.value) if is_variable else {"": value}
        for below, leaf in inside.items():
            name = f"{path}/{below}" if below and path else below or path
            if name in found:
                raise ToolshedError(f"Two leaves have the path {name!r}. Rename one of their keys.")
            found[name] = leaf_of(leaf)
    return found


def leaf_of(value: Any) -> Leaf:
    """What one leaf is."""
    description = paths.describe(value)
    array = getattr(value, "data_array", value)
    if isinstance(array, int) and not isinstance(array, bool) and abs(array) < 2**1000:
        array = float(array)  # Python's integers may be longer than numpy's
    if isinstance(array, (bool, int, float, complex, np.generic)):
        array = np.asarray(array)
    kind = _kind(array)
    return Leaf(kind, on_plain_mesh(array) if kind == NUMBERS else array, description)


def on_plain_mesh(array: Any) -> Any:
    """The same shards on a mesh without explicit axes, on which arrays can be put together freely."""
    sharding = getattr(array, "sharding", None)
    if not isinstance(sharding, NamedSharding) or not isinstance(sharding.mesh, Mesh):
        return array
    if AxisType.Explicit not in sharding.mesh.axis_types:
        return array
    mesh = Mesh(sharding.mesh.devices, sharding.mesh.axis_names)
    plain = NamedSharding(mesh, sharding.spec, memory_kind=sharding.memory_kind)
    shards = [shard.data for shard in array.addressable_shards]
    return jax.make_array_from_single_device_arrays(array.shape, plain, shards)


def _kind(array: Any) -> str:
    if isinstance(array, Tracer):
        return TRACED
    if isinstance(array, jax.Array) and array.is_deleted():
        return DELETED
    if is_key(array):
        return KEY if isinstance(array, jax.Array) else ABSTRACT
    if not hasattr(array, "dtype") or not hasattr(array, "shape"):
        return OTHER
    if not _is_numeric(np.dtype(array.dtype)):
        return OTHER
    return NUMBERS if isinstance(array, (jax.Array, np.ndarray)) else ABSTRACT


@functools.cache
def _is_numeric(dtype: np.dtype[Any]) -> bool:
    """True for the types of numbers that jax can compute with."""
    if dtype.kind in "biufc":
        return dtype.itemsize <= (16 if dtype.kind == "c" else 8)
    return hasattr(jnp, dtype.name) and jnp.issubdtype(dtype, jnp.number)
