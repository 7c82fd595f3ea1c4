"""A batch cut along its examples into parts of one size, and what the parts gave put together again."""

from __future__ import annotations

import collections
from collections.abc import Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from jaxtyping import Array, Float
from penzai import pz

from toolshed.errors import BatchError, LossError
from toolshed.paths import describe, is_arraylike, path_string


class Parts:
    """A batch cut along its examples into parts of one size.

    An entry is cut along its first axis, a named array along its axis ``batch`` if it has one. An entry
    with no such axis is in every part as it is.

    Args:
      batch: entries by name.
      n: how many parts; None for one part an example.

    Attributes:
      n: how many parts.
      leaves: the arrays that were cut, each [n, ...], for a scan or a vmap over the parts.
      mask: the batch's ``mask`` as truth values, bool[n, entries], or None.
      weights: the share of each part in what counts, float[n], with sum 1. With a mask its true entries
        count. Where it has none all parts weigh the same, so that a batch of padding alone gives what
        the loss function makes of that.

    Raises:
      BatchError: entries differ in their number of examples, ``n`` does not divide it, or there is none.
    """

    def __init__(self, batch: Mapping[str, Any], n: int | None):
        found, self._treedef = jax.tree_util.tree_flatten_with_path(batch, is_leaf=is_arraylike)
        self._entries = [_entry(path_string(keys), leaf) for keys, leaf in found]
        cut = [entry for entry in self._entries if entry.axis is not None]
        count = _count(cut, self._entries)
        self.n = count if n is None else n
        if not count or count % self.n:
            first = cut[0]
            raise BatchError(
                f"batch/{first.name} is {describe(first.value)}; its {count} examples cannot be cut into"
                f" {self.n} parts of one size. Use a batch size that {self.n} divides;"
                " toolshed.data.from_arrays(…, last='mask') fills up the last batch, too."
            )
        self.leaves = [_cut(entry, self.n) for entry in cut]
        masks = [leaf for entry, leaf in zip(cut, self.leaves, strict=True) if entry.name == "mask"]
        self.mask = masks[0].reshape(self.n, -1) != 0 if masks else None
        self.weights = _weights(self.mask, self.n)

    def batch_of(self, leaves: list[Any]) -> Any:
        """One part as a batch, from its slice of `leaves`."""
        slices = iter(leaves)
        entries = [x.value if x.axis is None else _part(x, next(slices)) for x in self._entries]
        return self._treedef.unflatten(entries)


class _Entry(NamedTuple):
    """One entry of a batch: its name, its value, the array inside, and that array's axis of examples."""

    name: str
    value: Any
    array: Any
    axis: int | None


def _entry(name: str, value: Any) -> _Entry:
    value = _unviewed(value)
    if not hasattr(value, "named_shape"):
        return _Entry(name, value, value, 0 if np.ndim(value) else None)
    positional = len(value.positional_shape)
    if "batch" in value.named_shape:
        return _Entry(name, value, value.data_array, positional + list(value.named_shape).index("batch"))
    return _Entry(name, value, value.data_array, 0 if positional else None)


def _unviewed(value: Any) -> Any:
    """A named array in the form whose axes are those of its data; anything else as it is."""
    return value.with_positional_prefix() if hasattr(value, "with_positional_prefix") else value


def _count(cut: list[_Entry], entries: list[_Entry]) -> int:
    """How many examples each entry has, which must be the same."""
    if not cut:
        raise BatchError(
            "No entry of the batch has an axis of examples to cut it along; there is"
            f" {', '.join(entry.name for entry in entries) or 'no entry'}. Give arrays with examples along"
            " their first axis, or named arrays with an axis named batch."
        )
    counts = [entry.array.shape[entry.axis] for entry in cut]
    for entry, count in zip(cut, counts, strict=True):
        if count != counts[0]:
            raise BatchError(
                f"batch/{entry.name} is {describe(entry.value)}, {count} examples, and batch/{cut[0].name}"
                f" has {counts[0]}. A batch is cut along the first axis of each entry (or the axis named"
                " batch). What all examples share belongs into the model, or into the loss function."
            )
    return counts[0]


def _cut(entry: _Entry, n: int) -> Any:
    """The array of an entry with a new first axis over n parts."""
    assert entry.axis is not None
    array = entry.array if isinstance(entry.array, jax.Array) else jnp.asarray(entry.array)
    before, after = array.shape[: entry.axis], array.shape[entry.axis + 1 :]
    return jnp.moveaxis(array.reshape(*before, n, -1, *after), entry.axis, 0)


def _part(entry: _Entry, array: Any) -> Any:
    """A part of an entry, of the same kind as the entry."""
    if not hasattr(entry.value, "named_shape"):
        return array
    named = entry.value.named_axes
    sizes = array.shape[array.ndim - len(named) :]
    return pz.nx.NamedArray(collections.OrderedDict(zip(named, sizes, strict=True)), array)


def _weights(mask: Any, n: int) -> Float[Array, "n"]:
    equal = jnp.full(n, 1 / n)
    if mask is None:
        return equal
    counts = mask.sum(axis=1).astype(equal.dtype)
    total = counts.sum()
    return jnp.where(total > 0, counts / jnp.where(total > 0, total, 1), equal)


def weighted(value: Any, weight: Any) -> Any:
    """``weight * value`` in at least 32 bits; a value without weight is 0, though it be NaN."""
    wide = jnp.promote_types(value.dtype, jnp.float32)
    return jnp.where(weight > 0, value.astype(wide) * weight.astype(wide), 0)


def weighted_sum(values: Any, weights: Float[Array, "n"]) -> Any:
    """The sum of ``values``, [n, ...], each times its weight, in the type of ``values``."""
    shares = weights.reshape(-1, *(1 for _ in values.shape[1:]))
    return weighted(values, shares).sum(axis=0).astype(values.dtype)


def plain(tree: Any) -> Any:
    """A tree without views of named arrays, so that its arrays can be stacked."""
    return jax.tree.map(_unviewed, tree, is_leaf=is_arraylike)


def join_aux(stacked: list[Any], whole: Any, weights: Float[Array, "n"]) -> Any:
    """What the parts gave as aux, put together to look like what the whole batch would have given.

    Args:
      stacked: the leaves of the parts' aux, made `plain`, each [n, ...].
      whole: the shapes that aux has for the whole batch, made `plain`.
      weights: the share of each part.

    Returns:
      aux in which a leaf with an axis of examples is concatenated along it, in order. Of other leaves
      floating-point values are averaged by weight, integers are taken for counts and added, and of
      anything else (truth values, keys) the last part's is kept.

    Raises:
      LossError: a leaf depends on the number of examples in another way.
    """
    wanted, treedef = jax.tree_util.tree_flatten_with_path(whole)
    if len(wanted) != len(stacked):
        raise LossError(
            f"aux has {len(wanted)} leaves for the whole batch and {len(stacked)} for a part of it. Return"
            " the same structure for any number of examples."
        )
    leaves = [
        _join(path_string(keys), leaf, shape, weights)
        for leaf, (keys, shape) in zip(stacked, wanted, strict=True)
    ]
    return treedef.unflatten(leaves)


def _join(path: str, stacked: Any, whole: Any, weights: Float[Array, "n"]) -> Any:
    part, n = stacked.shape[1:], stacked.shape[0]
    if part == whole.shape:
        if jnp.issubdtype(stacked.dtype, jnp.inexact):
            return weighted_sum(stacked, weights)
        if jnp.issubdtype(stacked.dtype, jnp.integer):
            return stacked.sum(axis=0, dtype=stacked.dtype)
        return stacked[-1]
    for axis in range(len(part)):
        if (*part[:axis], part[axis] * n, *part[axis + 1 :]) == whole.shape:
            return jnp.moveaxis(stacked, 0, axis).reshape(whole.shape)
    raise LossError(
        f"aux/{path} is {describe(whole)} for the whole batch and {describe(stacked[0])} for a part of it;"
        f" only what has one axis of examples can be put together from {n} parts. Leave it out of aux."
    )
