"""A state that was saved on some devices comes back on others, bit for bit.

The number of devices is fixed when jax starts, so all of it runs in one process of its own, whose findings
are checked here one by one.
"""

from __future__ import annotations

import functools
import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import jax
import optax
import pytest
from penzai.models.simple_mlp import MLP

from tests.checkpoints.states import bits
from toolshed import TrainState
from toolshed.checkpoints import Repository
from toolshed.errors import EnvironmentWarning

SCRIPT = """
import json
import sys
import warnings
from pathlib import Path

import jax
import numpy as np
import optax
from jax.sharding import Mesh, NamedSharding, PartitionSpec
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.checkpoints.states import bits
from toolshed import TrainState
from toolshed.checkpoints import Repository, arrays
from toolshed.state import snapshot

folder = Path(sys.argv[1])
mlp = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[8, 32, 8, 1])
case = zoo.Case(mlp, zoo.regression_loss, zoo.regression_batch(features=8))
optimizer = optax.adam(1e-2)
devices = np.array(jax.devices())
assert devices.size == 8
mesh = Mesh(devices, ("data",))
plane = Mesh(devices.reshape(4, 2), ("data", "model"))
everywhere = NamedSharding(mesh, PartitionSpec())
fsdp = NamedSharding(mesh, PartitionSpec("data"))
by_columns = NamedSharding(plane, PartitionSpec(None, "model"))


def by_leaf(leaf):
    shape = getattr(leaf, "shape", ())
    divides = len(shape) > 1 and shape[0] % 4 == shape[1] % 2 == 0
    return NamedSharding(plane, PartitionSpec("data", "model") if divides else PartitionSpec())


def fresh(seed):
    return TrainState.initial_state(case.model, optimizer, jax.random.key(seed))


def where(state):
    return {
        path: [len(leaf.sharding.device_set), int(np.prod(leaf.sharding.shard_shape(leaf.shape)))]
        for path, leaf in snapshot.arrays(state).items()
    }


def hexed(state):
    return {path: [dtype, shape, raw.hex()] for path, (dtype, shape, raw) in bits(state).items()}


step = toolshed.build_train_step(case.loss_fn, fields=())
one = step(fresh(1), case.batch)[0]
expected = bits(one)
found = {"expected": hexed(one), "shapes": {path: shape for path, (_, shape, _) in expected.items()}}
warnings.simplefilter("ignore", toolshed.errors.EnvironmentWarning)
repository = Repository(folder)
repository.save(one, tags=["one"], wait=True)
targets = {
    "replicated": everywhere,
    "fsdp": fsdp,
    "columns": by_columns,
    "by leaf": jax.tree.map(by_leaf, fresh(2)),
    "one device": jax.sharding.SingleDeviceSharding(devices[3]),
}
for name, shardings in targets.items():
    state = repository.load("one", like=fresh(2), shardings=shardings)
    repository.save(state, tags=[name], wait=True)
    leaves = snapshot.arrays(state).items()
    pinned = [path for path, leaf in leaves if getattr(leaf, "_npy_value", None) is not None]
    back = repository.load(name, like=fresh(2))
    manifest = repository.manifest(name)
    found[name] = {
        "there": bits(state) == expected,
        "and back": bits(back) == expected,
        "where": where(state),
        "back where": where(back),
        "mesh": manifest.environment["mesh"],
        "devices": manifest.environment["devices"]["count"],
        "sharding": {leaf.path: leaf.sharding for leaf in manifest.structure},
        "pinned": pinned,
        "pinned by numpy": state.params["mlp/Affine_0/Linear.weights"]._npy_value is not None,
    }

# from eight devices onto others: an FSDP save into a mesh of another shape
state = repository.load("fsdp", like=fresh(2), shardings=by_columns)
found["fsdp to columns"] = bits(state) == expected
# from FSDP to replicated and back
state = repository.load("fsdp", like=fresh(2), shardings=everywhere)
repository.save(state, tags=["from fsdp"], wait=True)
back = repository.load("from fsdp", like=fresh(2), shardings=fsdp)
found["fsdp to replicated"] = {"there": bits(state) == expected, "where": where(state)}
found["and back to fsdp"] = {"there": bits(back) == expected, "where": where(back)}
# asynchronously, donated at once
state = repository.load("one", like=fresh(2), shardings=fsdp)
saving = repository.save(state, tags=["donated"])
donate = jax.jit(lambda tree: jax.tree.map(lambda x: x * 0, tree), donate_argnums=0)
donate(state.params)
assert all(value.is_deleted() for value in state.params.values())
saving.wait()
found["donated"] = bits(repository.load("donated", like=fresh(2))) == expected
# training goes on, and compiles once
trained = toolshed.build_train_step(
    case.loss_fn, fields=(), train_state_shardings=everywhere, batch_shardings=everywhere
)
state = repository.load("one", like=fresh(2), shardings=everywhere)
for _ in range(2):
    state, _ = trained(state, case.batch)
found["traces"] = trained.traces
with warnings.catch_warnings(record=True) as log:
    warnings.simplefilter("always")
    repository.load("one", like=fresh(2), shardings=fsdp)
found["said"] = [str(one.message) for one in log]
print(json.dumps(found))
"""

NAMES = ["replicated", "fsdp", "columns", "by leaf", "one device"]


@functools.cache
def _run(folder: Path) -> dict[str, Any]:
    environment = {**os.environ, "XLA_FLAGS": "--xla_force_host_platform_device_count=8"}
    process = subprocess.run(
        [sys.executable, "-W", "error", "-c", SCRIPT, str(folder)],
        env=environment,
        capture_output=True,
        text=True,
    )
    assert process.returncode == 0, process.stderr[-4000:]
    return json.loads(process.stdout.splitlines()[-1])


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("devices")


@pytest.fixture
def found(folder: Path) -> dict[str, Any]:
    return _run(folder)


@pytest.mark.parametrize("name", NAMES)
def test_one_device_to_others_and_back_is_bit_equal(found, name):
    assert found[name]["there"]
    assert found[name]["and back"]
    assert set(map(tuple, found[name]["back where"].values())) <= {
        (1, size) for _, size in found["one device"]["where"].values()
    }


def test_every_array_is_where_it_was_asked_to_be(found):
    shapes = {path: tuple(shape) for path, shape in found["shapes"].items()}
    sizes = {path: size for path, (_, size) in found["one device"]["where"].items()}
    assert all(count == 1 for count, _ in found["one device"]["where"].values())
    for path, (count, size) in found["replicated"]["where"].items():
        assert (count, size) == (8, sizes[path])
    spread = 0
    for path, (count, size) in found["fsdp"]["where"].items():
        divides = path.startswith(("params/", "opt_state/")) and shapes[path] and shapes[path][0] % 8 == 0
        assert (count, size) == (8, sizes[path] // 8 if divides else sizes[path]), path
        spread += bool(divides)
    assert 3 < spread < len(sizes)  # some are, some cannot be
    assert any(size == sizes[path] // 2 for path, (_, size) in found["columns"]["where"].items())
    assert any(size == sizes[path] // 8 for path, (_, size) in found["by leaf"]["where"].items())


def test_saving_pins_no_copies_on_the_host(found):
    assert found["fsdp"]["pinned"] == found["replicated"]["pinned"] == []
    assert found["fsdp"]["pinned by numpy"]  # as looking at an array does


def test_the_manifest_says_how_it_lay(found):
    assert found["fsdp"]["mesh"] == {"data": 8}
    assert found["fsdp"]["devices"] == 8
    assert "data=8: ('data',)" in found["fsdp"]["sharding"].values()
    assert found["columns"]["mesh"] == {"data": 4, "model": 2}
    assert found["one device"]["mesh"] is None
    assert set(found["one device"]["sharding"].values()) == {"1 device"}


def test_fsdp_onto_a_mesh_of_another_shape_is_bit_equal(found):
    assert found["fsdp to columns"]


def test_fsdp_to_replicated_and_back_is_bit_equal(found):
    for there, like in (("fsdp to replicated", "replicated"), ("and back to fsdp", "fsdp")):
        assert found[there]["there"]
        assert found[there]["where"] == found[like]["where"]
    assert found["replicated"]["where"] != found["fsdp"]["where"]


def test_a_sharded_state_may_be_donated_as_soon_as_save_has_returned(found):
    assert found["donated"]


def test_training_goes_on_with_one_compilation(found):
    assert found["traces"] == 1


def test_other_devices_are_said(found):
    (text,) = found["said"]
    assert text == (
        "Step 1 was saved with 1 cpu device, now 8 cpu devices: training does not go on bit for bit."
    )


def test_what_was_saved_on_eight_devices_loads_where_there_is_one(found, folder):
    mlp = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[8, 32, 8, 1])
    like = TrainState.initial_state(mlp, optax.adam(1e-2), jax.random.key(5))
    with pytest.warns(EnvironmentWarning, match="was saved with 8 cpu devices, now 1 cpu device"):
        loaded = Repository(folder).load("fsdp", like=like)
    expected = {path: (d, tuple(s), bytes.fromhex(raw)) for path, (d, s, raw) in found["expected"].items()}
    assert bits(loaded) == expected
