from __future__ import annotations

import copy
from typing import Any

import jax
import numpy as np
import pytest

from toolshed.checkpoints import environment


def here() -> dict[str, Any]:
    return environment.describe([jax.numpy.ones(1).sharding])


def test_it_names_versions_precision_and_devices():
    found = here()
    assert found["versions"]["jax"] == jax.__version__
    assert set(found["versions"]) == {"jax", "jaxlib", "optax", "penzai", "jax-toolshed"}
    assert found["x64"] is False
    assert found["devices"] == {"platform": "cpu", "kind": "cpu", "count": 1}
    assert found["mesh"] is None
    with jax.enable_x64(True):
        assert here()["x64"] is True


def test_the_mesh_is_that_of_the_arrays():
    mesh = jax.sharding.Mesh(np.array(jax.devices()[:1]), ("data",))
    sharding = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    assert environment.describe([jax.numpy.ones(1).sharding, sharding])["mesh"] == {"data": 1}


def test_equal_environments_do_not_differ():
    assert environment.differences(here(), here()) == ()


@pytest.mark.parametrize(
    ("path", "value", "words"),
    [
        (("versions", "jax"), "0.9.0", f"jax 0.9.0, now {jax.__version__}"),
        (("x64",), True, "jax_enable_x64 on, now the other way"),
        (("devices",), {"platform": "gpu", "kind": "H100", "count": 8}, "8 H100 devices, now 1 cpu device"),
        (("devices",), None, "unknown devices, now 1 cpu device"),
        (("mesh",), {"data": 1}, "the mesh data=1, now no mesh"),
    ],
)
def test_what_differs_is_said_in_words(path, value, words):
    saved = copy.deepcopy(here())
    *parents, last = path
    at = saved
    for parent in parents:
        at = at[parent]
    at[last] = value
    assert environment.differences(saved, here()) == (words,)


@pytest.mark.parametrize(
    "saved", [{}, {"versions": 5, "devices": [1]}, {"versions": {"jax": None}, "mesh": 3}]
)
def test_what_a_stranger_writes_is_no_error(saved):
    for words in environment.differences(saved, here()):
        assert "now" in words
