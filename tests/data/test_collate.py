"""Examples become batches, short batches full ones, and what does not fit is named."""

from __future__ import annotations

import jax.numpy as jnp
import numpy as np
import pytest
from penzai import pz

from toolshed.data.collate import pad, stack_items
from toolshed.errors import DataError


def test_stacking_adds_a_first_axis_to_each_leaf_of_any_tree():
    items = [{"a": np.float32(i), "b": (np.full(2, i), [i])} for i in range(3)]
    batch = stack_items(items)
    assert batch["a"].dtype == np.float32
    assert (batch["a"].shape, batch["b"][0].shape, batch["b"][1][0].tolist()) == ((3,), (3, 2), [0, 1, 2])


def test_arrays_on_a_device_are_stacked_on_the_host():
    assert isinstance(stack_items([jnp.ones(2), jnp.ones(2)]), np.ndarray)


@pytest.mark.parametrize(
    ("items", "message"),
    [
        ([{"x": 1, "y": 2}, {"x": 1}], r"^Item 1 of a batch is unlike item 0: it lacks y\. Make them alike"),
        ([{"x": 1}, {"x": 1, "z": {"w": 2}}], r"it has z/w besides\."),
        (
            [{"x": 1}, {"x": 1}, {"y": 1}],
            r"^Item 2 of a batch is unlike item 0: it lacks x and has y besides",
        ),
        ([(1, 2), [1, 2]], r"^Item 1 of a batch is unlike item 0: it is PyTreeDef\(\[\*, \*\]\), not"),
        (
            [{"x": np.zeros(2, np.float32)}, {"x": np.zeros((2, 1))}],
            r"x is float64\[2,1\], not float32\[2\]\. Make",
        ),
        ([np.zeros(2), 3], r"^Item 1 of a batch is unlike item 0: it is int64\[\], not float64\[2\]\."),
        (
            [{"x": pz.nx.wrap(np.zeros(2))}] * 2,
            r"^A batch cannot be made of named arrays\. Make it of plain ones",
        ),
    ],
)
def test_items_that_do_not_stack_are_named(items, message):
    with pytest.raises(DataError, match=message):
        stack_items(items)


def test_padding_copies_the_first_example_into_nested_leaves_and_leaves_scalars_alone():
    batch = {"x": np.array([[1, 2], [3, 4]]), "deep": {"y": np.array([5.0, 6.0])}, "scale": 0.5}
    padded = pad(batch, 3)
    assert padded["x"].tolist() == [[1, 2], [3, 4], [1, 2]]
    assert padded["deep"]["y"].tolist() == [5, 6, 5]
    assert padded["scale"] == 0.5
    assert padded["mask"].tolist() == [True, True, False]
    assert padded["mask"].dtype == bool
    assert list(batch) == ["x", "deep", "scale"]


def test_a_mask_is_extended_in_its_own_dtype_and_shape():
    assert pad({"x": np.ones(2), "mask": np.float32([1, 0])}, 3)["mask"].tolist() == [1, 0, 0]
    assert pad({"x": np.ones(2), "mask": np.float32([1, 0])}, 3)["mask"].dtype == np.float32
    wide = pad({"x": np.ones((1, 2)), "mask": np.array([[True, False]])}, 2)
    assert wide["mask"].tolist() == [[True, False], [False, False]]


def test_named_arrays_pass_a_full_batch():
    named = pz.nx.wrap(np.zeros((2, 3))).tag("batch", "features")
    padded = pad({"x": named, "y": np.zeros(2)}, 2)
    assert padded["x"] is named
    assert padded["mask"].tolist() == [True, True]


@pytest.mark.parametrize(
    ("batch", "message"),
    [
        ([np.ones(2)], r"^A mask needs a batch as a dict by name, got list\. Use map to name it\.$"),
        ({"x": np.ones(5)}, r"^A batch of 5 examples cannot be filled up to 4\.$"),
        ({"x": np.ones(0)}, r"^A batch of 0 examples cannot be filled up to 4\.$"),
        ({"x": np.ones(2), "y": {"z": np.ones(3)}}, r"differ in their number of examples: x 2, y/z 3\.$"),
        ({"x": np.ones(2), "mask": np.ones(3)}, r"differ in their number of examples: mask 3, x 2\.$"),
        ({"x": np.ones(2), "mask": True}, r"^mask is bool\[\]; expected an entry for each example\.$"),
        ({"x": 3.0}, r"^A batch without an array that has a first axis has no number of examples\.$"),
        (
            {"y": np.ones(2), "x": pz.nx.wrap(np.ones(2))},
            r"^x is a named array, and cannot be filled up\. Name its axes in a map after\.$",
        ),
    ],
)
def test_what_cannot_be_padded_is_named(batch, message):
    with pytest.raises(DataError, match=message):
        pad(batch, 4)
