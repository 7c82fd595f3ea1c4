"""Differences between trees: structure, dtypes, shapes, values, and the order in which they are told."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penzai import pz

from tests import zoo
from tests.training.by_hand import count_compilations, new_state
from toolshed import build_train_step
from toolshed.errors import ContextKeyError, StateError, ToolshedError
from toolshed.insight import LeafDifference, tree_diff


def one(a: Any, b: Any, **tolerances: float) -> LeafDifference | None:
    found = tree_diff({"x": a}, {"x": b}, **tolerances)
    return None if found.same else found["x"]


# --- values -----------------------------------------------------------------------------------------


def test_a_changed_value_by_hand():
    found = one(np.array([[3.0, 0.0], [0.0, 4.0]]), np.array([[3.0, 0.0], [0.5, 4.0]]))
    assert found == LeafDifference(
        "x",
        "values",
        "float64[2,2]",
        "float64[2,2]",
        differing=1,
        count=4,
        relative=0.1,
        largest=0.5,
        index=(1, 0),
        values=(0.0, 0.5),
    )


@settings(deadline=None, max_examples=60)
@given(*(st.lists(st.floats(width=32), min_size=9, max_size=9) for _ in range(2)), st.booleans())
def test_values_differ_where_numpy_says_so(first, second, some):
    a, b = (np.array(values, np.float32).reshape(3, 3) for values in (first, second))
    if some:
        b = np.where(np.eye(3, dtype=bool), b, a)
    differ = ~((a == b) | (np.isnan(a) & np.isnan(b)))
    found = one(a, b)
    if not differ.any():
        assert found is None
        return
    assert found is not None
    assert found.differing == differ.sum()
    assert found.index is not None
    assert differ[found.index]
    np.testing.assert_array_equal(_normal(found.values), _normal((a[found.index], b[found.index])))
    wide_a, wide_b = a.astype(np.float64), b.astype(np.float64)
    both = np.isfinite(a) & np.isfinite(b)
    distance = np.abs(np.where(both, wide_b, 0) - np.where(both, wide_a, 0))
    if (differ & ~both).any():
        assert found.relative == math.inf
        assert not both[found.index]
    else:
        assert found.largest == pytest.approx(min(distance.max(), np.inf), rel=1e-6, abs=1e-37) or (
            distance.max() > 3e38  # further apart than float32 reaches
        )


def _normal(values: Any) -> np.ndarray:
    """Subnormal numbers as zero, which a CPU may take them for when it picks one."""
    values = np.array(values, np.float64)
    return np.where(np.abs(values) < 2.0**-126, 0, values)


def test_subnormal_numbers_that_differ_are_not_taken_for_zeros():
    found = one(np.array([1e-40, 1.0], np.float32), np.array([2e-40, 1.0], np.float32))
    assert found is not None
    assert (found.differing, found.index) == (1, (0,))


@pytest.mark.parametrize(
    ("a", "b"),
    [
        (np.float32([0.0, np.nan]), np.float32([-0.0, np.nan])),
        (np.float32([np.inf, 1]), np.float32([np.inf, 1])),
        (np.zeros((0, 3)), np.zeros((0, 3))),
        (jax.random.key(3), jax.random.key(3)),
        ("word", "word"),
        (np.array(["a", "b"]), np.array(["a", "b"])),
    ],
)
def test_what_is_equal_is_no_difference(a, b):
    assert one(a, b) is None


@pytest.mark.parametrize("dtype", ["bfloat16", "float8_e4m3fn", "int8", "int32", "uint32", "int64", "bool"])
def test_neighbours_of_any_dtype_are_told_apart(dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    if dtype.kind in "iu":
        top = np.iinfo(dtype).max if dtype.itemsize < 8 else 2**52
        a, b = np.array([0, top], dtype), np.array([0, top - 1], dtype)
    elif dtype.kind == "b":
        a, b = np.array([True, True]), np.array([True, False])
    else:
        a = np.array([0, 1], dtype)
        b = (a.view(f"u{dtype.itemsize}") + np.uint8(1)).view(dtype)
        b[0] = 0
    found = one(a, b)
    assert found is not None
    assert (found.differing, found.index) == (1, (1,))
    assert one(a, a.copy()) is None


def test_complex_values_differ_in_their_parts():
    found = one(np.array([1 + 1j, 3 + 4j]), np.array([1 + 1j, 3 - 4j]))  # of equal magnitude
    assert found is not None
    assert (found.index, found.largest, found.count) == ((1,), 8, 2)


def test_tolerances_are_those_of_numpy():
    a, b = np.array([1.0, 100.0, 0.0]), np.array([1.001, 100.1, 1e-6])
    assert one(a, b, rtol=1.1e-3, atol=1e-5) is None
    found = one(a, b, rtol=0.9e-3, atol=1e-5)
    assert found is not None
    assert found.differing == 2
    assert one(a, np.array([1.0, np.nan, 0.0]), rtol=1e9) is not None


def test_the_change_of_large_and_tiny_values_does_not_overflow():
    for scale in (1e30, 1e-30):
        values = np.array([3, 4], np.float32) * np.float32(scale)
        found = one(values, values * np.float32(1.5))
        assert found is not None
        assert found.relative == pytest.approx(0.5, rel=1e-5)


# --- structure --------------------------------------------------------------------------------------


def test_what_only_one_tree_has_and_what_changed_its_kind():
    gone, keys = jnp.ones(3), jax.random.split(jax.random.key(0), 3)
    a = {"gone": gone, "shape": jnp.ones((2, 3)), "dtype": jnp.ones(2), "k": keys, "o": "x", "n": 1.0}
    b = {"new": [1], "shape": jnp.ones((3, 2)), "dtype": jnp.ones(2, jnp.bfloat16), "k": keys[::-1], "o": "y"}
    found = tree_diff(a, {**b, "n": "one"})
    assert {path: (one.what, one.a, one.b) for path, one in found.items()} == {
        "gone": ("only in a", "float32[3]", ""),
        "new/0": ("only in b", "", "int 1"),
        "shape": ("shape", "float32[2,3]", "float32[3,2]"),
        "dtype": ("dtype", "float32[2]", "bfloat16[2]"),
        "k": ("key", "key<fry>[3]", "key<fry>[3]"),
        "o": ("object", "'x'", "'y'"),
        "n": ("object", "float 1.0", "'one'"),
    }
    assert found["dtype"].differing == 0
    assert found["k"].differing == 2


def test_nodes_of_other_classes_and_static_values_are_named():
    a = pz.nn.Sequential([pz.nn.Elementwise(jnp.tanh), pz.nn.Softmax("a"), pz.nn.Identity()])
    b = pz.nn.Sequential([pz.nn.Elementwise(jnp.sin), pz.nn.Softmax("b"), pz.nn.Identity()])
    assert tree_diff({"m": a, "x": 1.0}, {"m": a, "x": 1.0}).same
    model = zoo.mlp().model
    other = pz.select(model).at_instances_of(pz.nn.Elementwise).apply(lambda _: pz.nn.Elementwise(jnp.sin))
    assert [one.what for one in tree_diff(model, other).values()] == []  # a node without leaves has no path
    assert [one.what for one in tree_diff([model], (model,)).values()] == ["type"]
    assert tree_diff(a, b).same
    first, second = new_state(zoo.mlp(), optax.sgd(0.1)), new_state(zoo.mlp(), optax.sgd(0.2))
    found = tree_diff(first, second)
    assert list(found) == ["optimizer_def"]
    assert found["optimizer_def"].what == "static"
    assert "0.1" in found["optimizer_def"].a
    assert "0.2" in found["optimizer_def"].b
    assert tree_diff(first, new_state(zoo.mlp(), optax.sgd(0.1))).same


# --- states, models and snapshots -------------------------------------------------------------------


def test_a_step_changes_the_state_where_it_should():
    case = zoo.mlp()
    state = new_state(case)
    after, _ = build_train_step(case.loss_fn)(state, case.batch)
    found = tree_diff(state, after)
    assert tree_diff(state, state).same
    assert {"step", "opt_state/0/count", *(f"params/{path}" for path in state.params)} <= set(found)
    assert all(one.what == "values" for one in found.values())
    relative = [one.relative for one in found.values()]
    assert relative == sorted(relative, reverse=True)
    path = "params/mlp/Affine_0/Linear.weights"
    old, new = (np.asarray(x.params[path[7:]], np.float64) for x in (state, after))
    assert found[path].relative == pytest.approx(np.linalg.norm(new - old) / np.linalg.norm(old), rel=1e-5)
    assert set(found["params/**"]) == {f"params/{path}" for path in state.params}


def test_a_state_is_compared_with_snapshots_and_a_model_with_models():
    case = zoo.mlp()
    state = new_state(case)
    after, _ = build_train_step(case.loss_fn)(state, case.batch)
    snapshot = state.to_snapshot()
    assert tree_diff(snapshot, state).same
    assert tree_diff(state, snapshot).same
    assert "params/mlp/Affine_0/Linear.weights" in tree_diff(snapshot, after)
    assert tree_diff(case.model, zoo.mlp().model).same
    assert "sublayers/0/sublayers/0/weights" in tree_diff(case.model, after.model)


def test_arrays_on_the_host_and_on_the_device_are_compared():
    values = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    assert one(values, jnp.asarray(values)) is None
    assert one(jnp.asarray(values), values + 1) is not None


def test_arrays_that_are_too_large_to_be_copied_are_compared_where_they_lie():
    values = jnp.arange(2.0**20 + 5).reshape(-1, 3)
    found = one(values, values.at[100_000, 2].add(7))
    assert found is not None
    assert (found.differing, found.index, found.values) == (1, (100_000, 2), (300_002, 300_009))


def test_deleted_and_traced_arrays_cannot_be_compared():
    gone = jnp.ones(3)
    gone.delete()
    with pytest.raises(StateError, match=r"^The array at x of b is deleted: it was given to a step"):
        tree_diff({"x": jnp.ones(3)}, {"x": gone})
    with pytest.raises(ToolshedError, match=r"^x of a is being traced, so it has no values to compare\."):
        jax.jit(lambda x: tree_diff({"x": x}, {"x": 1.0}))(1.0)


def test_shapes_without_values_are_compared_as_shapes():
    shape = jax.ShapeDtypeStruct((2,), jnp.float32)
    assert one(shape, jnp.ones(2)) is None
    found = one(shape, jnp.ones(3))
    assert found is not None
    assert found.what == "shape"


# --- the result ---------------------------------------------------------------------------------------


def test_the_table_reads_well():
    a = {"w": jnp.array([3.0, 4.0]), "b": jnp.zeros(2), "gone": jnp.ones(1)}
    b = {"w": jnp.array([3.0, 4.5]), "b": jnp.zeros(2), "new": 1}
    assert repr(tree_diff(a, b)).splitlines() == [
        "3 differences in 4 leaves",
        "                                 ‖b-a‖/‖a‖  max |b-a|  differ",
        "gone  only in a  float32[1]",
        "new   only in b  int 1",
        "w     values     4 → 4.5 at [1]        0.1        0.5  1 of 2",
    ]
    assert repr(tree_diff(a, a)) == "No difference in 3 leaves"


def test_a_long_table_is_cut():
    text = repr(tree_diff([1.0] * 60, [2.0] * 60))
    assert text.splitlines()[-1] == "… and 20 more"


def test_a_path_without_a_difference_is_an_error_that_names_the_nearest():
    with pytest.raises(ContextKeyError, match=r"^No 'a/v' in this difference\. Did you mean 'a/w'"):
        tree_diff({"a": {"w": 1.0}}, {"a": {"w": 2.0}})["a/v"]


def test_hundreds_of_leaves_compile_a_handful_of_programs():
    a = {f"{i}": np.full(4 + i % 3, i, np.float32) for i in range(600)}
    b = {**a, "577": a["577"] + 1}
    with count_compilations() as compiled:
        found = tree_diff(a, b)
    assert list(found) == ["577"]
    assert len(compiled) <= 8
