"""Batches: how many examples one holds."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


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
