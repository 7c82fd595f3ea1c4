"""Batches: how many examples one holds, and what belongs to each of them."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp


def batch_size(batch: Mapping[str, Any]) -> Any:
    """How many examples a batch holds: the true entries of ``mask``, or the length of the first axis.

    A named array counts its positional axis, or its axis named ``batch``. A batch without any axis
    counts as one example.
    """
    if "mask" in batch:
        real = batch["mask"] != 0
        return (
            real.untag_prefix(*real.named_shape).sum().unwrap()
            if hasattr(real, "named_shape")
            else real.sum()
        )
    for leaf in batch.values():
        named = getattr(leaf, "named_shape", None)
        shape = getattr(leaf, "positional_shape", None) if named is not None else getattr(leaf, "shape", ())
        if named and "batch" in named:
            return named["batch"]
        if shape:
            return shape[0]
    return 1


def over_later_axes(values: Any, shape: tuple[int, ...]) -> jax.Array | None:
    """Values of the first axes of a shape, repeated along all later ones: a mask or weights by example.

    Args:
      values: any dtype, of the first axes of ``shape``.
      shape: that of what they belong to.

    Returns:
      The values in that shape; None where their axes are other ones, since nothing else is broadcast.
    """
    values = jnp.asarray(values)
    if values.shape != shape[: values.ndim]:
        return None
    return jnp.broadcast_to(values.reshape(values.shape + (1,) * (len(shape) - values.ndim)), shape)
