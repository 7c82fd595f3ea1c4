"""Statistics of leaves against numpy in float64, for every dtype, with planted values of every kind."""

from __future__ import annotations

import functools
import json
import math
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penzai import pz

from tests import zoo
from tests.training.by_hand import count_compilations, new_state
from toolshed.errors import ContextKeyError, ToolshedError
from toolshed.insight import HISTOGRAM_EDGES, LeafSummary, combine, leaf_statistics
from toolshed.insight.leaves import leaves_of

MOMENTS = ("norm", "rms", "mean", "std", "min", "max", "absmax")
COUNTS = ("zeros", "nan", "posinf", "neginf")
FLOATS = [
    "float32", "float16", "bfloat16", "float8_e3m4", "float8_e4m3", "float8_e4m3b11fnuz", "float8_e4m3fn",
    "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float4_e2m1fn",
]  # fmt: skip
WHOLE = ["int8", "int16", "int32", "uint8", "uint16", "uint32", "int4", "uint4", "int2", "uint2", "bool"]


def expected(values: np.ndarray) -> dict[str, float]:
    """What numpy finds, in float64."""
    x = np.abs(values) if np.iscomplexobj(values) else np.asarray(values)
    x = x.astype(np.float64).ravel()
    finite = x[np.isfinite(x)]
    counts = {
        "zeros": int((x == 0).sum()),
        "nan": int(np.isnan(x).sum()),
        "posinf": int(np.isposinf(x).sum()),
        "neginf": int(np.isneginf(x).sum()),
    }
    if not len(finite):
        return {**counts, **dict.fromkeys(MOMENTS, math.nan)}
    scale = np.abs(finite).max() or 1.0  # numpy's own squares overflow, too
    unit = finite / scale
    return {
        **counts,
        "norm": np.sqrt((unit**2).sum()) * scale,
        "rms": np.sqrt((unit**2).mean()) * scale,
        "mean": unit.mean() * scale,
        "std": unit.std() * scale,
        "min": finite.min(),
        "max": finite.max(),
        "absmax": np.abs(finite).max(),
    }


def check(summary: LeafSummary, values: np.ndarray) -> None:
    """Equal to numpy within 1e-5: of the value itself, or of the root mean square where terms cancel."""
    right = expected(values)
    for name in COUNTS:
        assert getattr(summary, name) == right[name], name
    for name in MOMENTS:
        scale = right["rms"] if name in ("mean", "std") else abs(right[name])
        np.testing.assert_allclose(
            getattr(summary, name), right[name], rtol=0, atol=1e-5 * np.nan_to_num(scale), err_msg=name
        )
    assert summary.histogram.tolist() == histogram(values).tolist()


def histogram(values: np.ndarray) -> np.ndarray:
    """numpy's counts between the published borders, each bin closed on the side of the smaller numbers."""
    x = np.abs(values) if np.iscomplexobj(values) else np.asarray(values)
    x = x.astype(np.float64).ravel()
    x = x[np.isfinite(x)]
    upper = HISTOGRAM_EDGES[26:]
    positive = np.searchsorted(upper[:-1], x[x > 0], side="right")
    negative = np.searchsorted(upper[:-1], -x[x < 0], side="right")
    counts = np.zeros(49, np.int64)
    np.add.at(counts, 25 + positive, 1)
    np.add.at(counts, 23 - negative, 1)
    counts[24] = (x == 0).sum()
    return counts


def one(values: Any) -> LeafSummary:
    return leaf_statistics({"x": values})["x"]


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


# --- the result ---------------------------------------------------------------------------------------


def planted_tree() -> dict[str, Any]:
    rng = np.random.default_rng(0)
    return {
        "a": {"w": rng.normal(3, 2, (4, 5)).astype(np.float32), "b": np.array([0, 1e-3], np.float32)},
        "c": np.array([np.nan, 2.0, np.inf], np.float32),
        "d": [np.full(3, -np.inf, np.float32), np.zeros(0, np.float32)],
    }


def test_totals_are_the_statistics_of_all_values_together():
    tree = planted_tree()
    stats = leaf_statistics(tree)
    for prefix, parts in [("a", jax.tree.leaves(tree["a"])), ("d", tree["d"]), ("", jax.tree.leaves(tree))]:
        total = stats.total(prefix)
        values = np.concatenate([part.ravel() for part in parts])
        check(total, values)
        assert (total.count, total.bytes, total.path) == (values.size, values.nbytes, prefix)
    assert combine("none", []).count == 0


def test_a_total_of_large_and_of_tiny_values_does_not_overflow():
    total = leaf_statistics([np.array([3e300, -3e300]), np.array([4e300]), np.array([1e-300])]).total()
    assert total.norm == pytest.approx(math.sqrt(34) * 1e300)
    assert total.std == pytest.approx(np.array([3, -3, 4, 0]).std() * 1e300)


def test_statistics_are_found_by_path_and_by_pattern():
    stats = leaf_statistics(planted_tree())
    assert list(stats) == ["a/b", "a/w", "c", "d/0", "d/1"]
    assert list(stats["a/*"]) == ["a/b", "a/w"]
    assert stats["a/*"].column("zeros").tolist() == [1, 0]
    assert stats["a/*"].column("histogram").shape == (2, 49)
    assert stats["a/*"].finite
    assert not stats.finite
    with pytest.raises(ContextKeyError, match=r"^No 'a/x' in these statistics\. Did you mean 'a/w'"):
        stats["a/x"]
    with pytest.raises(ContextKeyError, match=r"^No 'e' in these statistics\. There is a, a/b, a/w, c"):
        stats.total("e")


def test_the_worst_leaves_come_first():
    assert list(leaf_statistics(planted_tree()).worst()) == ["c", "d/0", "a/w", "a/b", "d/1"]


def test_the_table_reads_well():
    text = repr(leaf_statistics({"w": jnp.array([[3.0, 0.0], [-4.0, jnp.nan]]), "k": jax.random.key(0)}))
    assert text.splitlines() == [
        "Statistics of 2 leaves: 5 values, 24 bytes",
        "                 norm     mean    std  min  max   zero",
        "k  key<fry>[]                                             key",
        "w  float32[2,2]     5  -0.3333  2.867   -4    3  25.0%  1 NaN",
    ]
    assert repr(leaf_statistics({})) == "Statistics of 0 leaves: 0 values, 0 bytes"


def test_a_long_table_is_cut_and_says_what_it_hides():
    values = [jnp.ones(2)] * 50 + [jnp.array([jnp.nan, 1])]
    text = repr(leaf_statistics(values))
    assert text.splitlines()[-1] == "… and 11 more, 1 of them not finite; see worst()"
    assert len(text.splitlines()) == 1 + 1 + 40 + 1


# --- cost ---------------------------------------------------------------------------------------------


def test_thousands_of_leaves_compile_a_handful_of_programs_and_no_second_time():
    rng = np.random.default_rng(0)
    values = {f"{i}": rng.normal(size=4 + i % 3).astype(np.float32) for i in range(1100)}
    with count_compilations() as compiled:
        stats = leaf_statistics(values)
    assert len(compiled) <= 8
    check(stats["534"], values["534"])
    check(stats["1099"], values["1099"])
    with count_compilations() as again:
        leaf_statistics(values)
    assert again == []


SCRIPT = """
import json, re, sys
import jax, numpy as np
from jax.sharding import Mesh, NamedSharding, PartitionSpec as P
from toolshed.insight import leaf_statistics, measure

assert len(jax.devices()) == 8
values = np.random.default_rng(0).normal(3, 2, (16, 8, 6)).astype(np.float32)
values[3, 2, 1], values[15, 7, 5], values[0, 0, 0] = np.nan, np.inf, 0
meshes = {
    "auto": Mesh(np.array(jax.devices()).reshape(4, 2), ("a", "b")),
    "explicit": jax.make_mesh((4, 2), ("a", "b")),
}
names = ("norm", "rms", "mean", "std", "min", "max", "zeros", "nan", "posinf", "neginf")
found = {}
for kind, spec in [("auto", P("a", "b")), ("explicit", P(None, "b")), ("auto", P())]:
    sharded = jax.device_put(values, NamedSharding(meshes[kind], spec))
    one = leaf_statistics({"whole": values, "x": sharded})["x"]
    text = measure.measure_whole.lower(sharded, one_cpu=False).compile().as_text()
    found[f"{kind} {[*spec]}"] = {
        "statistics": [getattr(one, name) for name in names],
        "histogram": one.histogram.tolist(),
        "gathers": len(re.findall("all-gather|all-to-all", text)),
        "reduces": len(re.findall(" all-reduce", text)),
    }
one = leaf_statistics(values)[""]
gathering = jax.jit(lambda x: jax.lax.sort(x, dimension=0)).lower(
    jax.device_put(values, NamedSharding(meshes["auto"], P("a")))).compile().as_text()
print(json.dumps({
    "one device": {"statistics": [getattr(one, name) for name in names], "histogram": one.histogram.tolist()},
    "sharded": found,
    "gathers of a sort": len(re.findall("all-gather|all-to-all", gathering)),
}))
"""


@functools.cache
def on_eight_devices() -> dict[str, Any]:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads(process.stdout.splitlines()[-1])


def test_sharded_arrays_have_the_statistics_of_whole_ones():
    found = on_eight_devices()
    assert len(found["sharded"]) == 3
    for sharded in found["sharded"].values():
        assert sharded["statistics"] == pytest.approx(found["one device"]["statistics"], rel=1e-6)
        assert sharded["histogram"] == found["one device"]["histogram"]


def test_no_parameter_is_gathered_on_one_device():
    found = on_eight_devices()
    assert found["gathers of a sort"] > 0  # where something is gathered this test would see it
    for name, sharded in found["sharded"].items():
        assert sharded["gathers"] == 0
        assert (sharded["reduces"] > 0) == ("[]" not in name)


def test_an_array_on_a_mesh_of_explicit_axes_is_measured_beside_others():
    mesh = jax.make_mesh((1,), ("data",), axis_types=(jax.sharding.AxisType.Explicit,))
    array = jax.device_put(jnp.array([3.0, 4.0]), jax.NamedSharding(mesh, jax.P("data")))
    found = leaf_statistics({"w": array, "v": jnp.ones(1)})
    assert found["w"].norm == 5.0
    assert "float32[2]" in found["w"].description
