"""A batch is cut along its examples, and what the parts gave looks like what the batch gives."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penzai import pz

from toolshed.errors import BatchError, LossError
from toolshed.gradients.parts import Parts, join_aux, plain, weighted, weighted_sum

X = np.arange(24.0, dtype=np.float32).reshape(8, 3)


def cut(batch: Any, n: int | None) -> list[Any]:
    parts = Parts(batch, n)
    return [parts.batch_of([leaf[i] for leaf in parts.leaves]) for i in range(parts.n)]


@pytest.mark.parametrize("n", [1, 2, 4, 8])
def test_positional_entries_are_cut_along_their_first_axis_in_order(n):
    pieces = cut({"x": X, "y": jnp.arange(8)}, n)
    np.testing.assert_array_equal(np.concatenate([piece["x"] for piece in pieces]), X)
    assert [piece["y"].tolist() for piece in pieces] == np.arange(8).reshape(n, -1).tolist()


def test_none_makes_one_part_of_each_example():
    assert [piece["x"].shape for piece in cut({"x": X}, None)] == [(1, 3)] * 8


@pytest.mark.parametrize(
    "named",
    [
        pz.nx.wrap(X, "batch", "features"),
        pz.nx.wrap(X.T, "features", "batch"),
        pz.nx.wrap(X).tag("batch", "features").untag("features"),  # a view: positional behind a name
        pz.nx.wrap(X).tag("batch", "features").untag("batch"),  # examples on its positional axis
        pz.nx.wrap(X[:, None]).tag("batch", "time", "features").untag("time"),
    ],
    ids=["first", "last", "view", "positional", "behind"],
)
def test_named_arrays_are_cut_along_their_axis_of_examples(named):
    """Wherever it lies in memory: each part is that range of examples of the whole."""

    def examples(value: Any) -> np.ndarray:
        value = value.with_positional_prefix()
        if value.positional_shape and "batch" in value.named_shape:
            value = value.tag(*(f"axis{i}" for i in range(len(value.positional_shape))))
        elif value.positional_shape:
            value = value.tag("batch")
        others = sorted(name for name in value.named_shape if name != "batch")
        return np.asarray(value.unwrap("batch", *others))

    pieces = cut({"x": named}, 4)
    assert all(isinstance(piece["x"], pz.nx.NamedArray) for piece in pieces)
    for piece in pieces:
        piece["x"].check_valid()
        assert set(piece["x"].named_shape) == set(named.named_shape)
    np.testing.assert_array_equal(np.concatenate([examples(p["x"]) for p in pieces]), examples(named))


def test_what_has_no_axis_of_examples_is_in_every_part():
    shared = pz.nx.wrap(np.arange(5), "seq")
    pieces = cut({"x": X, "rate": 0.5, "scale": np.float32(2), "positions": shared}, 2)
    for piece in pieces:
        assert piece["rate"] == 0.5
        assert piece["scale"] == 2
        assert piece["positions"] is shared


def test_nested_entries_keep_their_structure():
    pieces = cut({"inputs": {"x": X, "y": (X[:, 0],)}}, 2)
    assert jax.tree.map(np.shape, pieces[1]) == {"inputs": {"x": (4, 3), "y": ((4,),)}}


def test_parts_weigh_as_much_as_they_have_real_examples():
    mask = np.array([1, 1, 1, 0, 0, 0, 0, 0], bool)
    np.testing.assert_allclose(Parts({"x": X, "mask": mask}, 4).weights, [2 / 3, 1 / 3, 0, 0], rtol=1e-6)
    np.testing.assert_allclose(Parts({"x": X}, 4).weights, [0.25] * 4)
    # With tokens in the mask it is tokens that count: 3 and 1 of them.
    tokens = np.array([[1, 1], [1, 0], [1, 0], [0, 0]], np.int32)
    np.testing.assert_allclose(Parts({"mask": tokens}, 2).weights, [0.75, 0.25])
    named = pz.nx.wrap(mask, "batch")
    np.testing.assert_allclose(Parts({"x": X, "mask": named}, 4).weights, [2 / 3, 1 / 3, 0, 0], rtol=1e-6)
    # Nothing real at all: no division by zero, all alike.
    np.testing.assert_allclose(Parts({"mask": np.zeros(4, bool)}, 2).weights, [0.5, 0.5])


@pytest.mark.parametrize(
    ("batch", "n", "message"),
    [
        (
            {"x": X[:6], "y": X[:6, 0]},
            4,
            r"^batch/x is float32\[6,3\]; its 6 examples cannot be cut into 4 parts of one size\. Use a batch"
            r" size that 4 divides; toolshed\.data\.from_arrays\(…, last='mask'\)",
        ),
        ({"x": pz.nx.wrap(X, "batch", "f")}, 3, r"^batch/x is float32\[batch:8,f:3\]; its 8 examples"),
        ({"x": X[:0]}, 2, r"its 0 examples cannot be cut into 2 parts"),
        (
            {"x": X, "y": X[:6]},
            2,
            r"^batch/y is float32\[6,3\], 6 examples, and batch/x has 8\. A batch is cut along",
        ),
        (
            {"rate": 0.5, "scale": np.float32(1)},
            2,
            r"^No entry of the batch has an axis .*there is rate, scal",
        ),
        ({}, 2, r"there is no entry\. Give arrays with examples along their first axis"),
    ],
)
def test_a_batch_that_cannot_be_cut_is_named_with_its_shape(batch, n, message):
    with pytest.raises(BatchError, match=message):
        Parts(batch, n)


# --- weighing ---------------------------------------------------------------------------------------


def test_a_value_without_weight_stays_out_though_it_be_nan():
    values = jnp.array([[1.0, 2.0], [jnp.nan, jnp.inf], [3.0, 6.0]])
    weights = jnp.array([0.25, 0.0, 0.75])
    np.testing.assert_allclose(weighted_sum(values, weights), [2.5, 5.0])
    assert np.isnan(weighted_sum(values, jnp.array([0.25, 0.25, 0.5]))).any()


def test_low_precision_is_added_up_in_32_bits():
    ones = jnp.ones(1024, jnp.bfloat16)  # in bfloat16, adding 1 stops at 256
    total = weighted_sum(ones, jnp.ones(1024))
    assert (total.dtype, float(total)) == (jnp.bfloat16, 1024.0)
    assert weighted(ones, jnp.float32(1)).dtype == jnp.float32


# --- putting together -------------------------------------------------------------------------------


def joined(whole: Any, pieces: list[Any], weights: Any) -> Any:
    leaves = [jax.tree.leaves(plain(piece)) for piece in pieces]
    stacked = [jnp.stack(parts) for parts in zip(*leaves, strict=True)]
    return join_aux(stacked, jax.eval_shape(lambda: plain(whole)), jnp.asarray(weights, jnp.float32))


@settings(deadline=None, max_examples=12)
@given(n=st.integers(1, 4), size=st.integers(1, 3), axis=st.integers(0, 2), seed=st.integers(0, 99))
def test_a_leaf_with_an_axis_of_examples_is_put_back_whatever_axis_that_is(n, size, axis, seed):
    whole = np.random.default_rng(seed).normal(size=[5 if i != axis else n * size for i in range(3)])
    whole = jnp.asarray(whole, jnp.float32)
    pieces = jnp.split(whole, n, axis=axis)
    np.testing.assert_array_equal(joined({"h": whole}, [{"h": p} for p in pieces], [1 / n] * n)["h"], whole)


def test_a_size_that_happens_to_be_that_of_a_part_is_no_axis_of_examples():
    """Four examples in two parts; per-class scores of two classes are averaged, not concatenated."""
    whole = {"classes": jnp.zeros(2), "preds": jnp.zeros((4, 2))}
    pieces = [{"classes": jnp.array([1.0, 3.0]) * k, "preds": jnp.full((2, 2), k)} for k in (1.0, 2.0)]
    out = joined(whole, pieces, [0.5, 0.5])
    np.testing.assert_allclose(out["classes"], [1.5, 4.5])
    np.testing.assert_allclose(out["preds"][:, 0], [1, 1, 2, 2])


def test_numbers_are_averaged_counts_added_and_the_rest_is_the_last_ones():
    pieces = [
        {"mean": jnp.float32(m), "count": jnp.int32(c), "flag": jnp.array(f), "key": jax.random.key(c)}
        for m, c, f in [(1.0, 3, True), (5.0, 1, False)]
    ]
    out = joined(pieces[0], pieces, [0.75, 0.25])
    assert (float(out["mean"]), int(out["count"]), bool(out["flag"])) == (2.0, 4, False)
    assert out["count"].dtype == np.int32
    assert (jax.random.key_data(out["key"]) == jax.random.key_data(jax.random.key(1))).all()


def test_named_arrays_come_back_named():
    whole = pz.nx.wrap(jnp.asarray(X), "batch", "features")
    halves = [pz.nx.wrap(jnp.asarray(x), "batch", "features") for x in (X[:4], X[4:])]
    for axis in ("batch", "features"):  # as views with a positional axis, one of them transposed
        views = [{"h": half.untag(axis)} for half in halves]
        out = joined({"h": whole.untag(axis)}, views, [0.5, 0.5])["h"]
        np.testing.assert_array_equal(out.tag(axis).unwrap("batch", "features"), X)


def test_what_depends_on_the_batch_in_another_way_is_named():
    whole, piece = {"gram": jnp.zeros((4, 4))}, {"gram": jnp.zeros((2, 2))}
    with pytest.raises(
        LossError,
        match=r"^aux/gram is float32\[4,4\] for the whole batch and float32\[2,2\] for a part of it; only"
        r" what has one axis of examples can be put together from 2 parts\. Leave it out of aux\.",
    ):
        joined(whole, [piece, piece], [0.5, 0.5])
    with pytest.raises(LossError, match=r"^aux has 2 leaves for the whole batch and 1 for a part of it"):
        joined({"a": jnp.zeros(()), "b": jnp.zeros(())}, [{"a": jnp.zeros(())}] * 2, [0.5, 0.5])
