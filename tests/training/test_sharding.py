"""On eight devices a step computes what it computes on one, and compiles once.

The number of devices is fixed when jax starts, so all of it runs in one process of its own, whose
findings are checked here one by one.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from typing import Any

import pytest

SCRIPT = """
import json

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.training.by_hand import count_compilations, new_state

assert len(jax.devices()) == 8
mesh = Mesh(np.array(jax.devices()), ("data",))
everywhere, first_axis = NamedSharding(mesh, PartitionSpec()), NamedSharding(mesh, PartitionSpec("data"))
case = zoo.Case(
    MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[8, 32, 8, 1]), zoo.regression_loss, {}
)
rng = np.random.default_rng(0)
data = [{"x": x, "y": x.sum(1, keepdims=True)} for x in rng.normal(size=(8, 16, 8)).astype(np.float32)]
optimizer = optax.adamw(1e-2)


def by_first_axis(leaf):
    shape = getattr(leaf, "shape", ())
    return first_axis if shape and shape[0] % 8 == 0 else everywhere


def train(**options):
    state = new_state(case, optimizer)
    shardings = options.get("train_state_shardings")
    if shardings == "fsdp":
        options["train_state_shardings"] = jax.tree.map(by_first_axis, state)
    step = toolshed.build_train_step(case.loss_fn, **options)
    losses, compiled_later = [], None
    first = jax.tree.map(jnp.copy, state)
    if options.get("donate"):
        state = jax.tree.map(jnp.copy, state)
    k, old = step.steps_per_call, None
    for at in range(0, 8, k):
        batch = data[at] if k == 1 else toolshed.data.stack(data[at : at + k])
        with count_compilations() as compiled:
            previous, (state, context) = state, step(state, batch)
        compiled_later = [] if compiled_later is None else compiled_later + compiled
        losses += np.ravel(context.loss_total).tolist()
    weights = state.params["mlp/Affine_0/AddBias.bias"]
    return {
        "losses": losses,
        "params": {path: np.asarray(value).tolist() for path, value in state.params.items()},
        "step": int(state.step),
        "traces": step.traces,
        "compiled_later": compiled_later,
        "donated": all(value.is_deleted() for value in previous.params.values()),
        "spec": str(weights.sharding.spec) if hasattr(weights.sharding, "spec") else "",
        "devices": len(weights.sharding.device_set),
        "values_on_a_device": int(weights.addressable_shards[0].data.size),
    }


def attempt(**options):
    try:
        return train(**options)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


found = {"one device": train()}
for name, batch_shardings in (("one for all", first_axis), ("by name", {"x": first_axis, "y": first_axis})):
    for donate in (False, True):
        found[f"data parallel, {name}, donate={donate}"] = attempt(
            batch_shardings=batch_shardings, train_state_shardings=everywhere, donate=donate
        )
for donate in (False, True):
    found[f"sharded state, donate={donate}"] = attempt(
        train_state_shardings="fsdp", batch_shardings=first_axis, donate=donate
    )
found["sharded state, replicated batch"] = attempt(train_state_shardings="fsdp")
found["only the batch"] = attempt(batch_shardings=first_axis)
stacked = NamedSharding(mesh, PartitionSpec(None, "data"))
found["four at once"] = attempt(
    train_state_shardings="fsdp", batch_shardings=stacked, donate=True, steps_per_call=4
)
print(json.dumps(found))
"""

NAMES = [
    "data parallel, one for all, donate=False",
    "data parallel, one for all, donate=True",
    "data parallel, by name, donate=False",
    "data parallel, by name, donate=True",
    "sharded state, donate=False",
    "sharded state, donate=True",
    "sharded state, replicated batch",
    "only the batch",
    "four at once",
]


@functools.cache
def findings() -> dict[str, Any]:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT], env=environment, capture_output=True, text=True
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads(process.stdout.splitlines()[-1])


def found(name: str) -> dict[str, Any]:
    assert "error" not in findings()[name], findings()[name]["error"]
    return findings()[name]


@pytest.mark.parametrize("name", NAMES)
def test_eight_devices_agree_with_one(name):
    one, eight = found("one device"), found(name)
    assert eight["devices"] == 8 != one["devices"]
    assert eight["step"] == one["step"] == 8
    assert eight["losses"] == pytest.approx(one["losses"], rel=1e-5)
    assert set(eight["params"]) == set(one["params"])
    for path, expected in one["params"].items():
        flat = [value for row in expected for value in (row if isinstance(row, list) else [row])]
        values = [
            value for row in eight["params"][path] for value in (row if isinstance(row, list) else [row])
        ]
        assert values == pytest.approx(flat, rel=1e-5, abs=1e-5)
    assert one["losses"][-1] != pytest.approx(one["losses"][0], rel=0.01)  # there was something to compute


@pytest.mark.parametrize("name", NAMES)
def test_all_steps_after_the_first_compile_nothing(name):
    assert found(name)["traces"] == 1
    assert found(name)["compiled_later"] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_lie_where_they_were_asked_to(name):
    sharded = "sharded state" in name or name == "four at once"
    assert found(name)["values_on_a_device"] == (32 // 8 if sharded else 32)


@pytest.mark.parametrize("name", NAMES)
def test_a_sharded_state_is_donated_where_that_was_asked_and_only_there(name):
    assert found(name)["donated"] == ("donate=True" in name or name == "four at once")
