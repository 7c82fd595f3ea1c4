"""Statistics of leaves against numpy in float64, for every dtype, with planted values of every kind."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penzai import pz

from tests import zoo
from tests.insight.by_numpy import check, one
from tests.training.by_hand import new_state
from toolshed.errors import ToolshedError
from toolshed.insight import HISTOGRAM_EDGES, leaf_statistics
from toolshed.insight.leaves import leaves_of

FLOATS = [
    "float32", "float16", "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float4_e2m1fn",
]  # fmt: skip
WHOLE = ["int8", "int16", "int32", "uint8", "uint16", "uint32", "int4", "uint4", "int2", "uint2", "bool"]


# --- values -----------------------------------------------------------------------------------------


def test_statistics_by_hand():
    found = one(jnp.array([3.0, 0.0, -4.0, jnp.inf, jnp.nan, -jnp.inf, -jnp.inf]))
    assert (found.norm, found.min, found.max, found.absmax) == (5, -4, 3, 4)
    assert found.mean == pytest.approx(-1 / 3)
    assert found.rms == pytest.approx(math.sqrt(25 / 3))
    assert found.std == pytest.approx(math.sqrt(25 / 3 - 1 / 9))
    assert (found.count, found.bytes, found.zeros, found.sparsity) == (7, 28, 1, 1 / 7)
    assert (found.nan, found.posinf, found.neginf, found.nonfinite, found.finite) == (1, 1, 2, 4, False)
    # 3 and 4 lie in [1, 4) and [4, 16): 4⁰ is the sixteenth border of the positive side, after 2⁻³⁰.
    assert np.flatnonzero(found.histogram).tolist() == [24 - 1 - 17, 24, 24 + 1 + 16]


@pytest.mark.parametrize("dtype", FLOATS)
def test_statistics_of_floats_are_numpy_s(dtype):
    dtype = np.dtype(getattr(ml_dtypes, dtype, dtype))
    limits = ml_dtypes.finfo(dtype)
    rng = np.random.default_rng(0)
    values = rng.normal(size=(7, 31)).astype(np.float32)
    values[0, :6] = [float(limits.max), float(limits.min), 0, -0.0, 1, 1]
    values[1, :3] = float(limits.smallest_subnormal) * np.array([1, -3, 2])
    values[2, :3] = [np.nan, np.inf, -np.inf]  # what a type lacks becomes what it has
    planted = values.astype(dtype)
    check(one(jnp.asarray(planted)), planted)


@pytest.mark.parametrize("dtype", WHOLE)
def test_statistics_of_whole_numbers_are_numpy_s(dtype):
    rng = np.random.default_rng(0)
    if dtype == "bool":
        values = rng.random((5, 9)) < 0.3
    else:
        limits = jnp.iinfo(dtype)
        values = rng.integers(int(limits.min), int(limits.max), (5, 9), endpoint=True)
        values = values.astype(getattr(ml_dtypes, dtype, dtype))
    check(one(jnp.asarray(values)), values)


@pytest.mark.parametrize("dtype", ["float64", "int64", "complex128"])
def test_arrays_of_64_bits_on_the_host_keep_their_range_and_precision(dtype):
    rng = np.random.default_rng(0)
    values = (1e8 + rng.normal(size=(4, 40)) * 100).astype(dtype)
    values[0, :3] = [2**62, -(2**62), 0]
    if dtype != "int64":
        values[1, :5] = [1e300, -1e300, 5e-324, np.nan, np.inf]
    found = one(values)
    check(found, values)
    assert found.description == f"{dtype}[4,40]"
    assert jax.dtypes.canonicalize_dtype(float) == jnp.float32  # x64 stays off
    check(one(values[0, 3:]), values[0, 3:])


def test_complex_values_are_taken_by_their_magnitude():
    values = np.array([3 + 4j, 0, -1j, 3e38 + 1j], np.complex64)
    check(one(jnp.asarray(values)), values)
    found = one(jnp.array([complex(math.nan, 0), complex(0, -math.inf), complex(math.inf, math.nan), 1]))
    assert (found.nan, found.posinf, found.norm) == (2, 1, 1)


@pytest.mark.parametrize("scale", [1e-45, 3e-42, 1e-38, 1e-25, 1.0, 1e25, 1e38])
def test_nothing_overflows_and_nothing_is_flushed_to_zero(scale):
    values = np.linspace(-1, 1, 101, dtype=np.float32) * np.float32(scale)
    check(one(jnp.asarray(values)), values)


def test_tiny_values_beside_large_ones_are_the_exact_minimum():
    values = np.array([1e-40, 3e38, 2e-45], np.float32)
    found = one(jnp.asarray(values))
    assert (found.min, found.max) == (float(values[2]), float(values[1]))


def test_a_deviation_far_from_zero_is_right():
    values = np.random.default_rng(0).normal(1e4, 1, 4096).astype(np.float32)
    assert one(jnp.asarray(values)).std == pytest.approx(values.astype(np.float64).std(), rel=1e-5)


def test_long_sums_do_not_drift():
    values = np.random.default_rng(0).random(3_000_000, dtype=np.float32)
    check(one(jnp.asarray(values)), values)


numbers = st.one_of(
    st.floats(width=32),
    st.floats(width=32, allow_nan=False, allow_infinity=False),
    st.sampled_from([0.0, -0.0, 2.0**-30, -(2.0**14), 2.0**-149, math.nan, math.inf]),
)


@settings(deadline=None, max_examples=60)
@given(st.lists(numbers, min_size=21, max_size=21))
def test_any_floats_have_numpy_s_statistics(values):
    array = np.array(values, np.float32)
    check(one(array), array)


def test_the_borders_of_the_histogram_are_those_that_are_documented():
    assert HISTOGRAM_EDGES.shape == (50,)
    assert np.array_equal(HISTOGRAM_EDGES, -HISTOGRAM_EDGES[::-1])
    assert HISTOGRAM_EDGES[24:28].tolist() == [0, 0, 2.0**-30, 2.0**-28]
    assert HISTOGRAM_EDGES[-2:].tolist() == [2.0**14, np.inf]


# --- leaves that are something else -------------------------------------------------------------------


def test_leaves_without_values_are_listed_by_what_they_are():
    gone = jnp.ones(3)
    gone.delete()
    tree = {
        "key": jax.random.key(0),
        "keys": jax.random.split(jax.random.key(0), 5),
        "gone": gone,
        "shape": jax.ShapeDtypeStruct((2, 3), jnp.float32),
        "text": "<b>",
        "none": None,
        "huge": 10**400,
        "words": np.array(["a"]),
        "long": np.zeros(2, np.longdouble),
        "empty": jnp.zeros((0, 4)),
    }
    stats = leaf_statistics(tree)
    kinds = {path: (leaf.kind, leaf.count, leaf.bytes) for path, leaf in stats.items()}
    assert kinds == {
        "key": ("key", 1, 8),
        "keys": ("key", 5, 40),
        "gone": ("deleted", 3, 0),
        "shape": ("abstract", 6, 0),
        "text": ("other", 0, 0),
        "huge": ("other", 0, 0),
        "words": ("other", 0, 0),
        "long": ("other", 0, 0),
        "empty": ("numbers", 0, 0),
    }
    for leaf in stats.values():
        assert leaf.finite
        assert math.isnan(leaf.norm)
        assert math.isnan(leaf.sparsity)


def test_traced_values_are_named_as_such():
    seen = []
    jax.jit(lambda x: seen.append(leaf_statistics({"x": x, "k": jnp.ones(2)})))(jnp.ones((2, 3)))
    assert seen[0]["x"].kind == "traced"
    assert seen[0]["x"].description == "float32[2,3]"


@pytest.mark.parametrize("value", [True, 3, -2.5, 10**30, np.float32(4), 3 + 4j])
def test_plain_numbers_count_as_arrays_of_one_value(value):
    found = one(value)
    assert (found.count, found.shape) == (1, ())
    assert found.absmax == pytest.approx(abs(value))


def test_named_arrays_are_one_leaf_with_their_axes():
    found = leaf_statistics({"x": pz.nx.ones({"a": 2, "b": 3}), "y": pz.nx.ones({"a": 2}).untag("a")})
    assert found["x"].description == "float32[a:2,b:3]"
    assert found["x"].norm == pytest.approx(math.sqrt(6))
    assert found["y"].count == 2


def test_the_parameters_inside_a_model_are_opened():
    found = leaf_statistics(zoo.random_stream().model)
    assert found["body/sublayers/0/sublayers/0/weights"].count == 32
    assert found["stream/base_key"].kind == "key"
    assert found["stream/offset"].zeros == 1


def test_two_leaves_with_one_path_are_an_error():
    model = pz.nn.Sequential([pz.StateVariable({"a": 1.0}, label="s")])  # pyright: ignore[reportArgumentType]
    assert list(leaves_of(model)) == ["sublayers/0/a"]
    with pytest.raises(ToolshedError, match=r"^Two leaves have the path 'a/b'\."):
        leaf_statistics({"a/b": 1.0, "a": {"b": 2.0}})


def test_a_state_has_statistics_of_all_it_holds():
    state = new_state(zoo.mlp())
    found = leaf_statistics(state)
    assert found["params/mlp/Affine_0/Linear.weights"].count == 32
    assert found["opt_state/0/mu/mlp/Affine_0/Linear.weights"].sparsity == 1
    assert found["root_rng"].kind == "key"
