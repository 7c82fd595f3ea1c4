from __future__ import annotations

import jax
import numpy as np
import pytest

from tests.checkpoints.states import bits, small_state
from toolshed.checkpoints import arrays, restore
from toolshed.checkpoints.structure import Kind
from toolshed.errors import CheckpointError, StateError
from toolshed.keys import is_key
from toolshed.state import snapshot


@pytest.mark.parametrize(
    ("saved", "expected", "possible"),
    [
        ("float32", "bfloat16", True),
        ("float64", "float8_e4m3fn", True),
        ("int64", "int32", True),
        ("uint8", "int32", True),
        ("uint4", "int2", True),
        ("complex128", "complex64", True),
        ("float32", "int32", False),
        ("int32", "float32", False),
        ("bool", "int32", False),
        ("complex64", "float32", False),
        ("key<rbg>", "key<threefry2x32>", False),
        ("uint32", "key<threefry2x32>", False),
    ],
)
def test_only_the_precision_may_differ_in_a_cast(saved, expected, possible):
    assert restore.can_cast(Kind(saved, (2,)), Kind(expected, (2,))) == possible
    assert not restore.can_cast(Kind(saved, (2,)), Kind(expected, (3,)))


def test_what_is_not_given_stays_as_it_is():
    like, other = small_state(1), small_state(2)
    raw = {path: arrays.to_host(leaf) for path, leaf in snapshot.arrays(other).items()}
    raw = {path: value.view(np.uint8) if value.dtype == np.uint32 else value for path, value in raw.items()}
    state = restore.rebuild(like, {"params/mlp/w": raw["params/mlp/w"], "root_rng": raw["root_rng"]}, None)
    expected = bits(like) | {path: bits(other)[path] for path in ("params/mlp/w", "root_rng")}
    assert bits(state) == expected
    assert state.params["mlp/b"] is like.params["mlp/b"]
    assert is_key(state.root_rng)
    assert state.model_without_params["rate"] == 0.5


def test_an_array_of_numpy_s_stays_one():
    like = small_state(model_without_params={"mask": np.zeros(2), "rate": 0.5})
    state = restore.rebuild(like, {"frozen/mask": np.ones(2)}, None)
    assert type(state.model_without_params["mask"]) is np.ndarray
    np.testing.assert_array_equal(state.model_without_params["mask"], [1, 1])


def test_one_sharding_holds_for_what_it_divides():
    device = jax.devices()[0]
    sharding = jax.sharding.SingleDeviceSharding(device)
    state = restore.rebuild(small_state(), {}, sharding)
    assert all(leaf.sharding == sharding for leaf in snapshot.arrays(state).values())
    with pytest.raises(CheckpointError, match=r"Expected shardings as one jax.sharding.Sharding, or"):
        restore.rebuild(small_state(), {}, {"params": sharding})


def test_a_donated_like_is_told():
    like = small_state()
    like.params["mlp/w"].delete()
    with pytest.raises(StateError, match="is deleted"):
        restore.check_like(like)
