"""On eight devices a step and an evaluation compute what they compute on one, and a step compiles once.

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
import warnings

import jax
import jax.numpy as jnp
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.training.by_hand import count_compilations, new_state
from tests.training.test_evaluation import DATA, masked_loss

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


def train(train_state_shardings=None, **options):
    metrics = toolshed.metrics.collection(loss=toolshed.metrics.Mean("loss_total"))
    state = new_state(case, optimizer, metrics=metrics)
    state = jax.tree.map(jnp.copy, state)  # the model's own arrays are not given away
    if train_state_shardings == "by leaf":
        train_state_shardings = jax.tree.map(by_first_axis, state)
    step = toolshed.build_train_step(case.loss_fn, train_state_shardings=train_state_shardings, **options)
    k, losses, compiled_later = step.steps_per_call, [], []
    tape = step.tape(capacity=3)  # several blocks, each of which starts out on one device
    for at in range(0, 8, k):
        batch = data[at] if k == 1 else toolshed.data.stack(data[at : at + k])
        with count_compilations() as compiled, warnings.catch_warnings():
            warnings.simplefilter("ignore", toolshed.errors.RetraceWarning)  # they are counted instead
            previous, (state, context) = state, step(state, batch, tape)
        compiled_later += compiled if at else []
        losses += np.ravel(context.loss_total).tolist()
    bias = state.params["mlp/Affine_0/AddBias.bias"]
    return {
        "losses": losses,
        "params": {path: np.ravel(value).tolist() for path, value in state.params.items()},
        "step": int(state.step),
        "taped": np.ravel(tape.take().values).tolist(),
        "mean": state.compute_metrics()["loss"],
        "traces": step.traces,
        "compiled_later": compiled_later,
        "donated": all(value.is_deleted() for value in previous.params.values()),
        "devices": len(bias.sharding.device_set),
        "values_on_a_device": int(bias.addressable_shards[0].data.size),
    }


def attempt(**options):
    try:
        return train(**options)
    except Exception as error:
        return {"error": f"{type(error).__name__}: {error}"}


by_name = {"x": first_axis, "y": first_axis}
stacked = NamedSharding(mesh, PartitionSpec(None, "data"))
found = {
    "one device": train(),
    "only the batch": attempt(batch_shardings=first_axis, fields=("loss_total",)),
    "data parallel": attempt(
        batch_shardings=first_axis, train_state_shardings=everywhere, fields=("loss_total",)
    ),
    "data parallel, donated": attempt(
        batch_shardings=by_name, train_state_shardings=everywhere, donate=True
    ),
    "sharded state": attempt(batch_shardings=first_axis, train_state_shardings="by leaf"),
    "sharded state, donated": attempt(
        batch_shardings=first_axis, train_state_shardings="by leaf", donate=True
    ),
    "sharded state, donated, four at once": attempt(
        batch_shardings=stacked, train_state_shardings="by leaf", donate=True, steps_per_call=4
    ),
}


def mean_of_ones(*, model, state, rng, x, mask):
    total = jax.numpy.where(mask, x, 0).sum() / jax.numpy.maximum(mask.sum(), 1)
    return total, state, {"x": x}


def mean_without_mask(*, model, state, rng, x):
    return x.mean(), state, {"x": x}


def evaluate(devices):
    mesh = Mesh(np.array(jax.devices()[:devices]), ("data",))
    sharding = NamedSharding(mesh, PartitionSpec("data"))
    metrics = toolshed.metrics.collection(mean=toolshed.metrics.Mean("batch/x", mask="batch/mask"))
    ones = toolshed.data.from_arrays({"x": np.ones(5, np.float32)}, 4)
    masked = toolshed.Trainer(zoo.mlp().model, optax.sgd(0.1), mean_of_ones, metrics=metrics)
    plain = toolshed.Trainer(zoo.mlp().model, optax.sgd(0.1), mean_without_mask)
    real = toolshed.Trainer(zoo.mlp().model, optax.sgd(0.1), masked_loss)
    state = jax.device_put(masked.init(jax.random.key(0)), NamedSharding(mesh, PartitionSpec()))
    return {
        "masked": masked.evaluate(state, ones, sharding=sharding),
        "not sharded": masked.evaluate(state, ones),
        "plain": plain.evaluate(state, ones, sharding=sharding),
        "real": real.evaluate(state, toolshed.data.from_arrays(DATA, 7), sharding=sharding)["loss"],
    }


found["evaluation"] = {devices: evaluate(devices) for devices in (1, 2, 8)}
print(json.dumps(found))
"""

NAMES = [
    "only the batch",
    "data parallel",
    "data parallel, donated",
    "sharded state",
    "sharded state, donated",
    "sharded state, donated, four at once",
]


@functools.cache
def findings() -> dict[str, Any]:
    flags = f"{os.environ.get('XLA_FLAGS', '')} --xla_force_host_platform_device_count=8"
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT],
        env={**os.environ, "XLA_FLAGS": flags},
        capture_output=True,
        text=True,
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
    assert eight["taped"] == pytest.approx(one["losses"], rel=1e-5)
    assert eight["mean"] == pytest.approx(sum(one["losses"]) / 8, rel=1e-5)
    assert set(eight["params"]) == set(one["params"])
    for path, expected in one["params"].items():
        assert eight["params"][path] == pytest.approx(expected, rel=1e-5, abs=1e-5)
    assert one["losses"][-1] != pytest.approx(one["losses"][0], rel=0.01)  # there was something to compute


@pytest.mark.parametrize("name", NAMES)
def test_all_steps_after_the_first_compile_nothing(name):
    assert found(name)["traces"] == 1
    assert found(name)["compiled_later"] == []


@pytest.mark.parametrize("name", NAMES)
def test_the_parameters_lie_where_they_were_asked_to(name):
    assert found(name)["values_on_a_device"] == (32 // 8 if "sharded state" in name else 32)


@pytest.mark.parametrize("name", NAMES)
def test_a_sharded_state_is_donated_where_that_was_asked_and_only_there(name):
    assert found(name)["donated"] == ("donated" in name)


@pytest.mark.parametrize("devices", ["1", "2", "8"])
def test_five_ones_in_batches_of_four_average_to_exactly_1_on_any_number_of_devices(devices):
    evaluated = findings()["evaluation"]
    assert evaluated[devices]["masked"] == {"loss": 1.0, "mean": 1.0}
    assert evaluated[devices]["not sharded"] == {"loss": 1.0, "mean": 1.0}
    assert evaluated[devices]["plain"] == {"loss": 1.0}
    assert evaluated[devices]["real"] == pytest.approx(evaluated["1"]["real"], rel=1e-6)
