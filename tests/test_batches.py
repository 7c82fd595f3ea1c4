"""A batch says how many examples it holds, and what belongs to each of them is lined up with them."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penzai import pz

from toolshed.batches import batch_size, over_later_axes


@settings(deadline=None)
@given(st.lists(st.booleans(), min_size=1, max_size=9))
def test_a_masked_batch_is_as_large_as_its_mask_is_true(mask):
    batch = {"x": np.zeros((len(mask), 2)), "mask": np.array(mask)}
    assert int(batch_size(batch)) == sum(mask)
    assert int(jax.jit(batch_size)(batch)) == sum(mask)


@pytest.mark.parametrize("names", [(), ("batch",)])
def test_a_named_mask_counts_alike(names):
    mask = pz.nx.wrap(np.array([True, False, True]), *names)
    assert int(batch_size({"x": np.zeros((3, 2)), "mask": mask})) == 2


@pytest.mark.parametrize(
    ("batch", "size"),
    [
        ({"x": np.zeros((5, 2))}, 5),
        ({"temperature": np.float32(1), "x": np.zeros((5, 2))}, 5),
        ({"x": pz.nx.zeros({"features": 3, "batch": 7})}, 7),
        ({"x": pz.nx.wrap(np.zeros((6, 3)))}, 6),
        ({"temperature": np.float32(1)}, 1),
        ({}, 1),
    ],
)
def test_a_batch_is_as_large_as_its_first_axis(batch, size):
    assert batch_size(batch) == size


@pytest.mark.parametrize("shape", [(2, 3, 2), (2, 3, 0)])
@pytest.mark.parametrize("axes", [0, 1, 2, 3])
def test_values_of_the_first_axes_are_repeated_along_the_later_ones(shape, axes):
    first = shape[:axes]
    values = np.arange(np.prod(first, dtype=int)).reshape(first)
    repeated = np.asarray(over_later_axes(values, shape))
    assert repeated.shape == shape
    for index in np.ndindex(shape):
        assert repeated[index] == values[index[:axes]]


@pytest.mark.parametrize("shape", [(3,), (3, 2), (4, 3), (2, 1), (2, 3, 1), (1, 3)])
def test_values_of_other_axes_are_never_broadcast(shape):
    assert over_later_axes(np.zeros(shape, bool), (2, 3)) is None
    assert over_later_axes(np.zeros(shape, bool), (*shape, 5)).shape == (*shape, 5)
