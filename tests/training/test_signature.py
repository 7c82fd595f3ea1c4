"""A signature tells what changed between two calls of a step."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import pytest

from toolshed.errors import BatchError
from toolshed.training.signature import Signature


def signature(batch: Any, **rest: Any) -> Signature:
    return Signature(batch=batch, **rest)


FIRST = signature({"x": jnp.ones((4, 2)), "y": jnp.ones(4)}, params={"w": jnp.ones(2)})


def test_equal_shapes_and_types_are_the_same_whatever_the_values():
    other = signature({"y": jnp.zeros(4), "x": jnp.zeros((4, 2))}, params={"w": jnp.zeros(2)})
    assert other.same_as(FIRST)


@pytest.mark.parametrize(
    ("batch", "w", "changes"),
    [
        ({"x": jnp.ones((3, 2)), "y": jnp.ones(4)}, jnp.ones(2), "batch/x: float32[4,2] → float32[3,2]"),
        (
            {"x": jnp.ones((3, 2)), "y": jnp.ones(3)},
            jnp.ones(2),
            "batch/x: float32[4,2] → float32[3,2]; batch/y: float32[4] → float32[3]",
        ),
        ({"x": jnp.ones((4, 2)), "y": jnp.ones(4, int)}, jnp.ones(2), "batch/y: float32[4] → int32[4]"),
        ({"x": jnp.ones((4, 2)), "y": jnp.ones(4)}, jnp.ones(3), "params/w: float32[2] → float32[3]"),
        (
            {"x": jnp.ones((4, 2)), "y": jnp.ones(4)},
            jnp.ones(2),
            "no shape or dtype changed, so a weak type, a sharding or a jax setting did",
        ),
    ],
)
def test_each_change_is_named_with_both_sides(batch, w, changes):
    other = signature(batch, params={"w": w})
    assert other.changes(FIRST) == changes
    assert other.same_as(FIRST) == changes.startswith("no shape")


def test_many_changes_are_counted():
    wide, narrow = ({f"x{i}": jnp.ones(n) for i in range(9)} for n in (2, 1))
    text = signature(narrow).changes(signature(wide))
    assert text.count("float32[2] → float32[1]") == 6
    assert text.endswith("; and 3 more")


def test_entries_that_came_or_went_are_an_error_that_names_them():
    signature({"x": jnp.ones(1), "y": jnp.ones(1)}).check_batch_structure(FIRST)  # other shapes are none
    with pytest.raises(
        BatchError, match=r"it lost y and gained mask, z\. The first one had x float32\[4,2\], y"
    ):
        signature({"x": jnp.ones(1), "z": jnp.ones(1), "mask": jnp.ones(1)}).check_batch_structure(FIRST)
