"""A snapshot is plain data of its own, and one that does not fit is refused by what differs."""

from __future__ import annotations

import json
import re
import warnings
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.state.snapshots import SECTIONS, after_steps, bits, state_of, through_npz
from tests.state.states import small_state
from toolshed import TrainState, metrics
from toolshed.errors import OptimizerWarning, SnapshotError
from toolshed.state import describe_optimizer

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
