"""A state comes back from its snapshot bit for bit, through a file, too."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

import toolshed
from tests import zoo
from tests.state.snapshots import after_steps, bits, state_of, through_npz
from tests.state.states import small_state
from toolshed import TrainState, metrics
from toolshed.keys import is_key


def different(like: TrainState) -> TrainState:
    """A state of the same structure with other values everywhere."""
    change = lambda x: jax.random.split(x)[0] if is_key(x) else (x + 1 if x.dtype != jnp.bool_ else ~x)  # noqa: E731
    return jax.tree.map(lambda x: change(x) if hasattr(x, "dtype") else x, like)


@pytest.mark.parametrize("npz", [False, True])
@pytest.mark.parametrize(
    "name",
    ["mlp", "random_stream", "running_statistics", "lora_by_metadata", "lora_by_freezing", "v1_mlp"],
)
def test_a_state_comes_back_bit_for_bit(name, npz):
    state = after_steps(name)
    like = different(state_of(name, optimizer=optax.adam(0.1)))
    assert bits(like) != bits(state)
    snapshot = state.to_snapshot()
    restored = TrainState.from_snapshot(through_npz(snapshot) if npz else snapshot, like=like)
    assert bits({path: restored.params[path] for path in sorted(restored.params)}) == bits(state.params)
    for field in ("step", "root_rng", "model_without_params", "model_state", "opt_state"):
        assert bits(getattr(restored, field)) == bits(getattr(state, field))
    assert restored.optimizer_def is like.optimizer_def
    assert list(restored.params) == sorted(like.params) or list(restored.params) == list(like.params)


def test_a_transformer_comes_back_and_goes_on_as_if_nothing_had_been():
    case = zoo.transformer(stacked=True, tied=True)
    optimizer = optax.adam(0.01)
    step = toolshed.build_train_step(case.loss_fn, fields=("loss_total",))
    state = TrainState.initial_state(case.model, optimizer, jax.random.key(1))
    state, _ = step(state, case.batch)
    snapshot = through_npz(state.to_snapshot())
    like = TrainState.initial_state(
        zoo.transformer(stacked=True, tied=True).model, optimizer, jax.random.key(9)
    )
    restored = TrainState.from_snapshot(snapshot, like=like)
    on, on_context = step(state, case.batch)
    again, again_context = step(restored, case.batch)
    assert bits(again) == bits(on)
    assert float(on_context.loss_total) == float(again_context.loss_total)
    assert step.traces == 1
    fresh, _ = step(like, case.batch)
    assert bits(fresh.params) != bits(on.params)


def test_a_snapshot_whose_words_came_back_as_numpy_strings_is_read():
    state = after_steps("random_stream")
    snapshot = through_npz(state.to_snapshot(), words=False)
    assert isinstance(snapshot["schema"], np.ndarray)
    restored = TrainState.from_snapshot(snapshot, like=state)
    assert bits(restored) == bits(state)


FLOATS = [jnp.bfloat16, jnp.float16, jnp.float32, ml_dtypes.float8_e4m3fn]

OTHERS = [np.int8, np.uint8, np.int32, np.uint32, np.bool_, np.complex64]


@st.composite
def arrays(draw: st.DrawFn, dtypes: Any = (*FLOATS, *OTHERS)) -> np.ndarray:
    """An array of any bits at all: all NaNs, both zeros, subnormals; and of any shape, empty ones too."""
    dtype = np.dtype(draw(st.sampled_from(dtypes)))
    shape = draw(hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=3))
    if dtype == np.bool_:
        return draw(hnp.arrays(np.bool_, shape))
    count = int(np.prod(shape)) * dtype.itemsize
    return np.frombuffer(draw(st.binary(min_size=count, max_size=count)), dtype).reshape(shape)


@given(values=st.lists(arrays(), max_size=4), trained=st.lists(arrays(FLOATS), max_size=2))
@settings(max_examples=60, deadline=None)
def test_arrays_of_all_types_and_bits_come_back(values, trained):
    def made() -> TrainState:
        return small_state(
            params={str(i): jnp.asarray(value) for i, value in enumerate(trained)},
            model_state={str(i): jnp.asarray(value) for i, value in enumerate(values)},
            loss_fn_state=[jnp.asarray(value) for value in values],
            opt_state=(),
        )

    state = made()
    restored = TrainState.from_snapshot(state.to_snapshot(), like=made())
    assert bits(restored) == bits(state)
    # What went in is what came out, not merely what jax made of it.
    assert [value.tobytes() for value in values] == [np.asarray(x).tobytes() for x in restored.loss_fn_state]


@pytest.mark.parametrize("npz", [False, True])
@pytest.mark.parametrize(
    ("dtype", "pattern", "width"),
    [
        (jnp.float32, [0x7FC00001, 0x80000000, 0x00000001, 0xFF800000], np.uint32),
        (jnp.float16, [0x7E01, 0x8000, 0x0001, 0xFC00], np.uint16),
        (jnp.bfloat16, [0x7FC1, 0x8000, 0x0001, 0xFF80], np.uint16),
        (ml_dtypes.float8_e4m3fn, [0x7F, 0x80, 0x01, 0xFF], np.uint8),
        (np.int8, [0x80, 0xFF, 0x00, 0x7F], np.uint8),
        (np.bool_, [0, 1, 1, 0], np.uint8),
    ],
)
def test_a_nan_a_negative_zero_and_a_subnormal_keep_their_bits(dtype, pattern, width, npz):
    values = np.asarray(pattern, width).view(dtype)
    state = small_state(model_state={"x": jnp.asarray(values), "empty": jnp.zeros((0, 3), dtype)})
    snapshot = through_npz(state.to_snapshot()) if npz else state.to_snapshot()
    like = small_state(model_state={"x": jnp.zeros(4, dtype), "empty": jnp.zeros((0, 3), dtype)})
    restored = TrainState.from_snapshot(snapshot, like=like)
    assert restored.model_state["x"].dtype == dtype
    np.testing.assert_array_equal(np.asarray(restored.model_state["x"]).view(width), pattern)
    assert restored.model_state["empty"].shape == (0, 3)


@pytest.mark.parametrize("npz", [False, True])
@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_keys_come_back_with_their_kind(impl, npz):
    key, like_key = jax.random.key(3, impl=impl), jax.random.key(4, impl=impl)
    keys = jax.random.split(key, (2, 2))
    state = small_state(root_rng=key, loss_fn_state={"keys": keys})
    like = small_state(root_rng=like_key, loss_fn_state={"keys": jax.random.split(like_key, (2, 2))})
    snapshot = state.to_snapshot()
    assert snapshot["root_rng"]["key_impl"] == impl
    assert snapshot["root_rng"]["key_data"].dtype == np.uint32
    restored = TrainState.from_snapshot(through_npz(snapshot) if npz else snapshot, like=like)
    for ours, theirs in ((restored.root_rng, key), (restored.loss_fn_state["keys"], keys)):
        assert jax.random.key_impl(ours) == impl
        assert ours.shape == theirs.shape
        assert bits(jax.random.key_data(ours)) == bits(jax.random.key_data(theirs))
    assert bits(jax.random.uniform(restored.root_rng)) == bits(jax.random.uniform(key))


def test_a_raw_key_comes_back_raw():
    state, like = (small_state(root_rng=jax.random.PRNGKey(seed)) for seed in (3, 4))
    restored = TrainState.from_snapshot(state.to_snapshot(), like=like)
    assert restored.root_rng.dtype == jnp.uint32
    np.testing.assert_array_equal(restored.root_rng, jax.random.PRNGKey(3))


def test_frozen_parameters_come_back_though_nobody_trains_them():
    state = state_of("lora_by_metadata")
    pretrained = jax.tree.map(lambda x: x + 1, state.model_without_params)
    state = state.replace(model_without_params=pretrained)
    restored = TrainState.from_snapshot(state.to_snapshot(), like=state_of("lora_by_metadata"))
    assert bits(restored.model_without_params) == bits(pretrained)
    assert bits(restored.model_without_params) != bits(state_of("lora_by_metadata").model_without_params)


def test_metrics_come_back_with_what_they_had_seen():
    collection = metrics.collection(mean=metrics.Mean("preds"))
    context = toolshed.Context(step=jnp.int32(0), batch={}, preds=jnp.asarray([1.0, 2.0]))
    state = small_state(metrics=collection).update_metrics(context)
    restored = TrainState.from_snapshot(state.to_snapshot(), like=small_state(metrics=collection))
    assert restored.compute_metrics() == {"mean": 1.5}
    assert np.isnan(small_state(metrics=collection).compute_metrics()["mean"])


def test_what_is_in_like_does_not_matter():
    snapshot = after_steps("running_statistics").to_snapshot()
    like = state_of("running_statistics")
    one = TrainState.from_snapshot(snapshot, like=like)
    two = TrainState.from_snapshot(snapshot, like=different(like))
    assert bits(one) == bits(two)
    assert bits(like) != bits(different(like))
    assert int(like.step) == 0


def test_restored_arrays_are_placed_where_those_of_like_are():
    mesh = jax.sharding.Mesh(np.asarray(jax.devices()[:1]), ("data",))
    sharded = jax.sharding.NamedSharding(mesh, jax.sharding.PartitionSpec())
    state = small_state(model_state={"s": jnp.ones(2)})
    like = jax.device_put(state, sharded)
    assert state.params["w"].sharding != sharded
    restored = TrainState.from_snapshot(state.to_snapshot(), like=like)
    for path in ("step", "root_rng"):
        assert getattr(restored, path).sharding == sharded
    for leaf in jax.tree.leaves((restored.params, restored.opt_state, restored.model_state)):
        assert leaf.sharding == sharded
    back = TrainState.from_snapshot(restored.to_snapshot(), like=state)
    assert back.params["w"].sharding == state.params["w"].sharding
