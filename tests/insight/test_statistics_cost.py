"""What statistics compile, and that nothing is gathered on one device of many."""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.insight.by_numpy import check
from tests.training.by_hand import count_compilations
from toolshed.insight import leaf_statistics


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
