from __future__ import annotations

import io
import json
import re
import warnings
from collections.abc import Mapping
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
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from toolshed import TrainState, metrics
from toolshed.errors import OptimizerWarning, SnapshotError
from toolshed.keys import is_key
from toolshed.state import describe_optimizer

SECTIONS = ["params", "frozen", "model_state", "opt_state", "loss_fn_state", "metrics"]


def state_of(name: str, seed: int = 1, optimizer: Any = None, **fields: Any) -> TrainState:
    """The initial state of a model of the zoo."""
    return TrainState.initial_state(
        zoo.ZOO[name]().model, optimizer or optax.adam(0.1), jax.random.key(seed), **fields
    )


def small_state(**fields: Any) -> TrainState:
    """A state put together from parts, without a model."""
    parts = {
        "params": {"w": jnp.asarray([1.0, 2.0, 4.0]), "b": jnp.asarray(8.0)},
        "model_without_params": (),
        "optimizer_def": optax.sgd(0.5),
        "root_rng": jax.random.key(1),
    }
    return TrainState.create(**(parts | fields))


def after_steps(name: str, steps: int = 2) -> TrainState:
    """A state of a model of the zoo that was trained a little."""
    case = zoo.ZOO[name]()
    state = TrainState.initial_state(case.model, optax.adam(0.1), jax.random.key(1))
    step = toolshed.build_train_step(case.loss_fn, fields=("loss_total",))
    for _ in range(steps):
        state, _ = step(state, case.batch)
    return state


def different(like: TrainState) -> TrainState:
    """A state of the same structure with other values everywhere."""
    change = lambda x: jax.random.split(x)[0] if is_key(x) else (x + 1 if x.dtype != jnp.bool_ else ~x)  # noqa: E731
    return jax.tree.map(lambda x: change(x) if hasattr(x, "dtype") else x, like)


def to_numpy(leaf: Any) -> np.ndarray:
    return np.asarray(jax.random.key_data(leaf) if is_key(leaf) else leaf)


def bits(tree: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Every leaf as dtype, shape and exact bytes."""
    leaves = [leaf for leaf in jax.tree.leaves(tree) if hasattr(leaf, "dtype")]
    return [(str(leaf.dtype), leaf.shape, to_numpy(leaf).tobytes()) for leaf in leaves]


def through_npz(snapshot: Mapping[str, Any], *, words: bool = True) -> dict[str, Any]:
    """The snapshot written by np.savez and read by np.load without pickle; names are the paths, as JSON.

    Words and numbers come back as arrays of no axis; with ``words`` they are made plain again.
    """

    def leaves(tree: Any, *path: str) -> Any:
        if isinstance(tree, Mapping):
            for key, value in tree.items():
                yield from leaves(value, *path, key)
        else:
            yield json.dumps(path), tree

    file = io.BytesIO()
    np.savez(file, **dict(leaves(snapshot)))
    file.seek(0)
    nested: dict[str, Any] = {name: {} for name in SECTIONS}
    with np.load(file, allow_pickle=False) as loaded:
        for name in loaded.files:
            *path, last = json.loads(name)
            place = nested
            for key in path:
                place = place.setdefault(key, {})
            value = loaded[name]
            place[last] = value.item() if words and value.dtype.kind == "U" else value
    return nested


# --- what a snapshot is -----------------------------------------------------------------------------


def test_a_snapshot_has_the_sections_of_its_schema():
    state = after_steps("lora_by_metadata").replace(metrics=metrics.collection(m=metrics.Mean("preds")))
    snapshot = state.to_snapshot()
    assert list(snapshot) == ["schema", "step", "root_rng", *SECTIONS, "optimizer"]
    assert snapshot["schema"] == "toolshed.train_state/1"
    assert snapshot["step"] == 2
    assert set(snapshot["params"]) == set(state.params)
    assert snapshot["optimizer"] == describe_optimizer(state.optimizer_def)
    assert snapshot["root_rng"]["key_impl"] == "threefry2x32"
    np.testing.assert_array_equal(snapshot["root_rng"]["key_data"], [0, 1])  # the data of key(1)
    assert sum(value.size for value in snapshot["frozen"].values()) == 49  # the pretrained MLP
    assert len(snapshot["frozen"]) == 4
    assert len(snapshot["opt_state"]) == 1 + 2 * 4  # adam's count, and two moments of each parameter
    assert len(snapshot["metrics"]) == 1  # the mean's


@pytest.mark.parametrize("name", ["running_statistics", "lora_by_metadata", "transformer_tied", "v1_mlp"])
def test_a_snapshot_is_plain_data(name):
    state = state_of(
        name,
        loss_fn_state={"n": jnp.ones(2)},
        metrics=metrics.collection(m=metrics.Mean("preds")),
    )

    def types(tree: Any) -> set[type]:
        if isinstance(tree, dict):
            assert all(type(key) is str for key in tree)
            return set().union({dict}, *map(types, tree.values()))
        return {type(tree)}

    assert types(state.to_snapshot()) == {dict, str, int, np.ndarray}
    assert types({"x": jnp.ones(1)}) - {dict, str, int, np.ndarray}  # the control: a jax array would show


def test_a_snapshot_holds_copies_of_its_own():
    state = small_state()
    snapshot = state.to_snapshot()
    snapshot["params"]["w"][:] = 7
    np.testing.assert_array_equal(state.params["w"], [1, 2, 4])
    np.testing.assert_array_equal(state.to_snapshot()["params"]["w"], [1, 2, 4])


def test_a_step_that_donates_leaves_an_earlier_snapshot_unharmed():
    case = zoo.mlp()
    state = TrainState.initial_state(case.model, optax.adam(0.1), jax.random.key(1))
    step = toolshed.build_train_step(case.loss_fn, donate=True)
    snapshot = state.to_snapshot()
    expected = bits(jax.tree.map(jnp.copy, state.params))
    after, _ = step(state, case.batch)
    assert all(value.is_deleted() for value in state.params.values())
    restored = TrainState.from_snapshot(snapshot, like=after)
    assert bits(restored.params) == expected
    assert bits(restored.params) != bits(after.params)
    kept = json.dumps({path: value.tolist() for path, value in snapshot["params"].items()})
    again, _ = step(restored, case.batch)  # takes the memory of what was restored
    assert bits(again) == bits(after)
    assert json.dumps({path: value.tolist() for path, value in snapshot["params"].items()}) == kept


def test_changing_a_snapshot_after_it_was_restored_changes_no_state():
    # numpy memory that starts at a multiple of 64 bytes is what jax would use in place
    raw = np.zeros(4096 * 4 + 64, np.uint8)
    start = -raw.ctypes.data % 64
    aligned = raw[start : start + 4096 * 4].view(np.float32)
    state = small_state(params={"w": jnp.ones(4096)})
    snapshot = state.to_snapshot()
    snapshot["params"]["w"] = aligned
    restored = TrainState.from_snapshot(snapshot, like=state)
    np.testing.assert_array_equal(restored.params["w"], np.zeros(4096))
    aligned[:] = 7
    np.testing.assert_array_equal(restored.params["w"], np.zeros(4096))


# --- there and back ---------------------------------------------------------------------------------


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
    state = small_state(
        params={str(i): jnp.asarray(value) for i, value in enumerate(trained)},
        model_state={str(i): jnp.asarray(value) for i, value in enumerate(values)},
        loss_fn_state=[jnp.asarray(value) for value in values],
        opt_state=(),
    )
    restored = TrainState.from_snapshot(state.to_snapshot(), like=jax.tree.map(jnp.copy, state))
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


# --- what does not fit ------------------------------------------------------------------------------


def test_an_unknown_schema_is_refused():
    snapshot = small_state().to_snapshot() | {"schema": "toolshed.train_state/99"}
    with pytest.raises(SnapshotError) as caught:
        TrainState.from_snapshot(snapshot, like=small_state())
    assert str(caught.value) == (
        "Unknown snapshot schema 'toolshed.train_state/99'; this version of toolshed reads"
        " 'toolshed.train_state/1'. A newer toolshed may have written it: update, or save it again from"
        " there."
    )


@pytest.mark.parametrize(
    ("snapshot", "words"), [({}, "dict without one"), ([1], "list"), (None, "NoneType"), ("x", "str")]
)
def test_what_is_no_snapshot_is_refused(snapshot, words):
    with pytest.raises(SnapshotError) as caught:
        TrainState.from_snapshot(snapshot, like=small_state())
    assert str(caught.value) == f"Expected a snapshot, a dict with a 'schema'; got {words}."


@pytest.mark.parametrize("section", ["step", "root_rng", "optimizer", *SECTIONS])
def test_a_missing_section_is_named(section):
    snapshot = small_state().to_snapshot()
    del snapshot[section]
    with pytest.raises(SnapshotError, match=rf"^The snapshot lacks '{section}': it is not whole\.$"):
        TrainState.from_snapshot(snapshot, like=small_state())


def test_several_missing_sections_are_named_together():
    with pytest.raises(
        SnapshotError, match=r"^The snapshot lacks 'step', 'root_rng', 'optimizer', 'params',"
    ):
        TrainState.from_snapshot({"schema": "toolshed.train_state/1"}, like=small_state())


def test_a_difference_names_the_path_and_both_sides():
    saved = small_state(
        params={"same": jnp.ones(1), "shape": jnp.ones((8, 16)), "dtype": jnp.ones(2), "old": jnp.ones(3)},
        loss_fn_state={"key": jax.random.key(1, impl="rbg")},
    )
    like = small_state(
        params={
            "same": jnp.ones(1),
            "shape": jnp.ones((8, 32)),
            "dtype": jnp.ones(2, jnp.bfloat16),
            "new": jnp.ones(4),
        },
        loss_fn_state={"key": jax.random.key(1)},
    )
    snapshot = saved.to_snapshot() | {"step": 300}
    with pytest.raises(SnapshotError) as caught:
        TrainState.from_snapshot(snapshot, like=like)
    line = "identity() → scale(step_size=-0.5)"
    assert str(caught.value) == (
        "The snapshot of step 300 does not fit this state:\n"
        "  params/dtype: saved float32[2], expected bfloat16[2]\n"
        "  params/new: saved absent, expected float32[4]\n"
        "  params/shape: saved float32[8,16], expected float32[8,32]\n"
        "  params/old: saved float32[3], expected absent\n"
        "  loss_fn_state/key: saved key<rbg>[], expected key<threefry2x32>[]\n"
        f"It was saved with the optimizer {line}; this state has {line}. Build `like` with the model and"
        " the optimizer that the snapshot was made with."
    )


@pytest.mark.parametrize(("count", "more"), [(8, None), (9, "and 1 more"), (500, "and 492 more")])
def test_a_message_lists_eight_differences_and_counts_the_others(count, more):
    saved = small_state(params={f"w{i:03}": jnp.ones(1) for i in range(count)}, opt_state=())
    like = small_state(params={f"w{i:03}": jnp.ones(2) for i in range(count)}, opt_state=())
    with pytest.raises(SnapshotError) as caught:
        TrainState.from_snapshot(saved.to_snapshot(), like=like)
    lines = str(caught.value).splitlines()
    assert [line for line in lines if "saved float32[1]" in line] == [
        f"  params/w{i:03}: saved float32[1], expected float32[2]" for i in range(8)
    ]
    assert len(lines) == (10 if more is None else 11)
    assert lines[-2].strip() == more if more else "more" not in str(caught.value)


def test_an_optimiser_with_other_hyperparameters_warns_and_goes_on():
    saved = state_of("mlp", optimizer=optax.adam(0.1))
    like = state_of("mlp", optimizer=optax.adam(0.2))
    with pytest.warns(OptimizerWarning) as caught:
        restored = TrainState.from_snapshot(saved.to_snapshot(), like=like)
    adam = "scale_by_adam(b1=0.9, b2=0.999, eps=1e-08, eps_root=0, mu_dtype=None, nesterov=False)"
    assert [str(warning.message) for warning in caught] == [
        f"The snapshot was saved with the optimizer {adam} → scale(step_size=-0.1); training goes on with"
        f" {adam} → scale(step_size=-0.2)."
    ]
    assert caught[0].filename == __file__
    assert restored.optimizer_def is like.optimizer_def
    assert bits(restored.params) == bits(dict(sorted(saved.params.items())))


def test_the_same_optimiser_made_anew_does_not_warn():
    saved = state_of("mlp", optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 10)))
    like = state_of("mlp", optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 10)))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        TrainState.from_snapshot(through_npz(saved.to_snapshot()), like=like)
    other = state_of("mlp", optimizer=optax.adam(optax.cosine_decay_schedule(0.1, 20)))
    with pytest.warns(OptimizerWarning, match="decay_steps=20"):
        TrainState.from_snapshot(saved.to_snapshot(), like=other)


def test_an_optimiser_of_another_structure_is_refused():
    saved = state_of("mlp", optimizer=optax.adam(0.1))
    like = state_of("mlp", optimizer=optax.sgd(0.1, momentum=0.9))
    with pytest.raises(SnapshotError) as caught:
        TrainState.from_snapshot(saved.to_snapshot(), like=like)
    message = str(caught.value)
    assert "opt_state/0/trace/mlp/Affine_0/AddBias.bias: saved absent, expected float32[8]" in message
    assert "It was saved with the optimizer scale_by_adam(" in message
    assert "; this state has trace(" in message
    assert "params/" not in message.replace("opt_state", "")


def test_a_model_of_another_width_is_refused_by_the_paths_that_differ():
    wider = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 9, 1])
    like = TrainState.initial_state(wider, optax.sgd(0.1), jax.random.key(1))
    saved = state_of("mlp", optimizer=optax.sgd(0.1))
    with pytest.raises(SnapshotError) as caught:
        TrainState.from_snapshot(saved.to_snapshot(), like=like)
    lines = [line.strip() for line in str(caught.value).splitlines()[1:-1]]
    assert lines == [
        "params/mlp/Affine_0/AddBias.bias: saved float32[8], expected float32[9]",
        "params/mlp/Affine_0/Linear.weights: saved float32[4,8], expected float32[4,9]",
        "params/mlp/Affine_1/Linear.weights: saved float32[8,1], expected float32[9,1]",
    ]


def test_frozen_weights_of_another_model_are_refused():
    frozen = pz.Parameter(value=jnp.ones(2), label="frozen", metadata={"trainable": False})
    other = pz.Parameter(value=jnp.ones(3), label="frozen", metadata={"trainable": False})
    trained = pz.Parameter(value=jnp.ones(1), label="w")
    optimizer, key = optax.sgd(0.1), jax.random.key(1)
    saved = TrainState.initial_state([frozen, trained], optimizer, key).to_snapshot()
    with pytest.raises(
        SnapshotError, match=re.escape("frozen/0/value: saved float32[2], expected float32[3]")
    ):
        TrainState.from_snapshot(saved, like=TrainState.initial_state([other, trained], optimizer, key))
    TrainState.from_snapshot(saved, like=TrainState.initial_state([frozen, trained], optimizer, key))
