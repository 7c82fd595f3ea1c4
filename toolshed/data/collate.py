"""Many examples as one batch, and a short batch as a full one."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import jax
import numpy as np

from toolshed.errors import DataError
from toolshed.paths import describe, flatten, is_arraylike


def stack_items(items: Sequence[Any], made: str = "batch") -> Any:
    """Items of one structure as one, each leaf with a new first axis of their number.

    Args:
      items: at least one.
      made: what is made of them, for the errors.

    Raises:
      DataError: the items differ in structure or shape, or hold a named array.
    """
    first, structure = jax.tree.flatten(items[0], is_leaf=is_arraylike)
    if any(hasattr(leaf, "named_shape") for leaf in first):
        raise DataError(
            f"A {made} cannot be made of named arrays. Make it of plain ones, and name the axes in a map"
            " after it."
        )
    columns = [first]
    for number, item in enumerate(items[1:], 1):
        leaves, other = jax.tree.flatten(item, is_leaf=is_arraylike)
        if other != structure:
            raise DataError(_other_entries(items[0], item, number, made))
        columns.append(leaves)
    try:
        return jax.tree.unflatten(structure, [np.stack(column) for column in zip(*columns, strict=True)])
    except ValueError as error:
        raise DataError(_other_shapes(items, made)) from error


def pad(batch: Any, n: int) -> dict[str, Any]:
    """A batch filled up to ``n`` examples with copies of its first, and with the ``mask`` of the real ones.

    Args:
      batch: a dict whose arrays share their first axis, [up to n, ...]. Scalars stay as they are, and so
        do named arrays in a batch that is full.
      n: examples in the result.

    Returns:
      The dict with arrays [n, ...] and ``mask``, bool[n]; a ``mask`` that the batch has is extended, in
      its own dtype.

    Raises:
      DataError: the batch is no dict, is empty or too large, or its arrays differ in length.
    """
    if not isinstance(batch, Mapping):
        raise DataError(f"A mask needs a batch as a dict by name, got {describe(batch)}. Use map to name it.")
    rows = _rows(batch)
    if not 0 < rows <= n:
        raise DataError(f"A batch of {rows} examples cannot be filled up to {n}.")
    if rows < n:
        named = [path for path, leaf in flatten(batch).items() if hasattr(leaf, "named_shape")]
        if named:
            raise DataError(
                f"{named[0]} is a named array, and cannot be filled up. Name its axes in a map after."
            )
    mask = np.asarray(batch["mask"]) if "mask" in batch else np.ones(rows, bool)
    filled = {name: _fill(part, n - rows) for name, part in batch.items()} if rows < n else dict(batch)
    padding = np.zeros((n - rows, *mask.shape[1:]), mask.dtype)
    return {**filled, "mask": np.concatenate([mask, padding])}


def _fill(part: Any, missing: int) -> Any:
    def fill(leaf: Any) -> Any:
        if np.ndim(leaf) == 0:
            return leaf
        array = np.asarray(leaf)
        return np.concatenate([array, np.repeat(array[:1], missing, axis=0)])

    return jax.tree.map(fill, part)


def _rows(batch: Mapping[str, Any]) -> int:
    plain = {path: leaf for path, leaf in flatten(batch).items() if not hasattr(leaf, "named_shape")}
    lengths = {path: np.shape(leaf)[0] for path, leaf in plain.items() if np.ndim(leaf)}
    if not lengths:
        raise DataError("A batch without an array that has a first axis has no number of examples.")
    if "mask" in batch and "mask" not in lengths:
        raise DataError(f"mask is {_shape(batch['mask'])}; expected an entry for each example.")
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{path} {length}" for path, length in lengths.items())
        raise DataError(f"The arrays of a batch differ in their number of examples: {listed}.")
    return next(iter(lengths.values()))


def _other_entries(first: Any, item: Any, number: int, made: str) -> str:
    here, there = flatten(first), flatten(item)
    lacks, has = [p for p in here if p not in there], [p for p in there if p not in here]
    parts = [f"lacks {', '.join(lacks)}"] * bool(lacks) + [f"has {', '.join(has)} besides"] * bool(has)
    difference = " and ".join(parts) or f"is {jax.tree.structure(item)}, not {jax.tree.structure(first)}"
    return f"Item {number} of a {made} is unlike item 0: it {difference}. Make them alike in a map before."


def _other_shapes(items: Sequence[Any], made: str) -> str:
    first = flatten(items[0])
    for number, item in enumerate(items):
        for path, leaf in flatten(item).items():
            if np.shape(leaf) != np.shape(first[path]):
                where = path or "it"
                return (
                    f"Item {number} of a {made} is unlike item 0: {where} is {_shape(leaf)}, not"
                    f" {_shape(first[path])}. Make them alike in a map before."
                )
    return f"The items of a {made} cannot be stacked."


def _shape(leaf: Any) -> str:
    return describe(leaf if is_arraylike(leaf) else np.asarray(leaf))
