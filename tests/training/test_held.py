"""Very many small arrays stay packed from one donating step to the next; who reads them cannot tell."""

from __future__ import annotations

import copy
import dataclasses
import functools
import pickle

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.training.by_hand import batches, differing, new_state, values_of
from toolshed import build_train_step
from toolshed.errors import BatchError, RetraceWarning, StateError
from toolshed.state.train_state import HELD, HELD_FIELDS
from toolshed.training import packing
from toolshed.training.stepper import copied


@pytest.fixture(autouse=True)
def two_are_very_many(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_MANY", 2)


def is_held(state: toolshed.TrainState) -> bool:
    """Whether nobody has read the state's values yet."""
    return HELD in state.__dict__ and not {*HELD_FIELDS} & {*state.__dict__}


CASE = zoo.dropout_mlp()
STEP = build_train_step(CASE.loss_fn, donate=True)


@functools.cache
def expected_values() -> dict[str, np.ndarray]:
    """The values after three steps that hold nothing."""
    plain, state = build_train_step(CASE.loss_fn, fields=()), new_state(CASE)
    for batch in batches(CASE, 3):
        state, _ = plain(state, batch)
    return values_of(state)


def held() -> tuple[toolshed.TrainStep, toolshed.TrainState, dict[str, np.ndarray]]:
    """A step that donates, a state that it made in three steps, and the values which that should have."""
    state = copied(new_state(CASE))
    for batch in batches(CASE, 3):
        state, _ = STEP(state, batch)
    assert is_held(state)
    return STEP, state, expected_values()


def by_tree(state: toolshed.TrainState) -> toolshed.TrainState:
    return jax.tree.unflatten(jax.tree.structure(state), jax.tree.leaves(state))


READERS = {
    "its fields": lambda state: state,
    "jax's tree functions": by_tree,
    "jax.jit": lambda state: jax.jit(lambda state: state)(state),
    "a copy": copy.copy,
    "a deep copy": lambda state: dataclasses.replace(state, params=copy.deepcopy(state.params)),
    "replace": lambda state: state.replace(opt_state=state.opt_state),
    "replace of a field that is not held": lambda state: state.replace(metrics=None),
    "dataclasses": lambda state: dataclasses.replace(state),
    "penzai's attributes": lambda state: toolshed.TrainState.from_attributes(**state.attributes_dict()),
    "a selection": lambda state: state.select().at(lambda state: state.metrics).set(None),
    "a snapshot": lambda state: toolshed.TrainState.from_snapshot(state.to_snapshot(), like=state),
}


@pytest.mark.parametrize("read", READERS.values(), ids=READERS)
def test_whoever_reads_a_state_finds_the_values_of_steps_that_hold_nothing(read):
    _, state, expected = held()
    assert differing(values_of(read(state)), expected) == []
    assert differing(values_of(state), expected) == []
    state.check_alive()


def test_a_state_can_be_pickled_as_far_as_its_model_can():
    _, state, expected = held()
    plain = state.replace(model_without_params=None, root_rng=None, optimizer_def=None)
    assert is_held(plain)
    back = pickle.loads(pickle.dumps(plain))
    assert HELD not in back.__dict__
    assert differing(values_of(back), expected) == []


def test_a_state_that_was_read_is_stepped_on_from_and_gives_the_same():
    case = zoo.dropout_mlp()
    step, state = build_train_step(case.loss_fn, donate=True), new_state(case)
    again = build_train_step(case.loss_fn, donate=True)
    other = new_state(case)
    for batch in batches(case, 6):
        state, _ = step(state, batch)
        assert state.params
        assert state.opt_state
        other, _ = again(other, batch)
    assert differing(values_of(state), values_of(other)) == []
    assert step.traces == again.traces == 1


def test_values_put_in_their_place_are_stepped_on_from():
    case = zoo.mlp()
    step, data = build_train_step(case.loss_fn, donate=True), batches(case, 2)
    state, _ = step(new_state(case), data[0])
    halved = state.replace(params={path: value / 2 for path, value in state.params.items()})
    expected, _ = build_train_step(case.loss_fn, fields=())(halved, data[1])
    expected = values_of(expected)
    state, _ = step(halved, data[1])
    assert differing(values_of(state), expected) == []
    assert step.traces == 1


def test_a_state_of_other_dtypes_is_packed_anew():
    case = zoo.mlp()
    step, (batch,) = build_train_step(case.loss_fn, donate=True), batches(case, 1)
    state, _ = step(new_state(case), batch)
    shorter = state.replace(
        params={path: value.astype(jnp.float16) for path, value in state.params.items()},
        opt_state=jax.tree.map(lambda x: x.astype(jnp.float16) if x.ndim else x, state.opt_state),
    )
    with pytest.warns(RetraceWarning, match=r"float32\[8\] → float16\[8\]"):
        state, _ = step(shorter, batch)
    assert {value.dtype for value in state.params.values()} == {np.dtype(np.float16)}


@pytest.mark.parametrize("read", [False, True], ids=["unread", "read"])
def test_a_state_that_was_given_away_says_so(read):
    case = zoo.mlp()
    step, (batch,) = build_train_step(case.loss_fn, donate=True), batches(case, 1)
    first = new_state(case)
    old, _ = step(first, batch)
    if read:
        _ = old.params
    new, _ = step(old, batch)
    for gone in (first, old):
        with pytest.raises(StateError, match="arrays of this state are gone"):
            step(gone, batch)
        with pytest.raises(StateError, match="arrays of this state are gone"):
            _ = gone.model
    new.check_alive()
    assert int(new.step) == 2


def test_a_batch_that_cannot_be_taken_leaves_the_state_as_it_was():
    step, state, expected = held()
    with pytest.raises(BatchError, match="lost y"):
        step(state, {"x": CASE.batch["x"]})
    with pytest.raises(BatchError, match="batch/x is"):
        step(state, {**CASE.batch, "x": "text"})
    assert differing(values_of(state), expected) == []


def test_the_context_has_the_fields_that_were_asked_for_of_each_step():
    case = zoo.dropout_mlp()
    names = ("loss_total", "grads", "updates", "rng", "batch")
    step = build_train_step(case.loss_fn, fields=names, donate=True)
    plain = build_train_step(case.loss_fn, fields=names)
    state, expected = new_state(case), new_state(case)
    for batch in batches(case, 3):
        state, context = step(state, batch)
        expected, other = plain(expected, batch)
        assert context.filled == other.filled == tuple(sorted(names, key=context.filled.index))
        for path, value in other.grads.items():
            np.testing.assert_allclose(context.grads[path], value, rtol=1e-5, atol=1e-7)
        np.testing.assert_allclose(context.loss_total, other.loss_total, rtol=1e-6)
        np.testing.assert_array_equal(jax.random.key_data(context.rng), jax.random.key_data(other.rng))
        assert context.batch is batch
    assert is_held(state)


@pytest.mark.parametrize("kept", ["params", "opt_state", "model_state"])
def test_what_is_to_be_seen_from_before_a_step_is_not_held(kept):
    case = zoo.running_statistics()
    state, _ = build_train_step(case.loss_fn, fields=(kept,), donate=True)(new_state(case), case.batch)
    assert HELD not in state.__dict__


def test_a_step_that_holds_nothing_goes_on_from_a_held_state():
    step, state, _ = held()
    batch = CASE.batch
    plain = build_train_step(CASE.loss_fn)
    new, context = plain(state, batch)
    assert HELD not in new.__dict__
    assert context.params.keys() == state.params.keys()
    assert differing(values_of(step(state, batch)[0]), values_of(new)) == []


def test_several_steps_in_a_call_with_metrics_on_a_tape():
    case = zoo.mlp()
    trained = []
    for fields, donate in (((), True), (("params",), True)):  # the second one holds nothing
        error = toolshed.metrics.MSE(predictions="preds", targets="batch/y")
        state = new_state(case, metrics=toolshed.metrics.collection(error=error))
        step = build_train_step(case.loss_fn, fields=fields, donate=donate, steps_per_call=3)
        tape, data = step.tape(), batches(case, 6)
        for start in (0, 3):
            state, _ = step(state, toolshed.data.stack(data[start : start + 3]), tape)
        rows = tape.take()
        np.testing.assert_array_equal(rows.steps, np.arange(6))
        assert is_held(state) == (fields == ())
        trained.append((values_of(state), rows.values, state.compute_metrics()["error"]))
    assert differing(trained[0][0], trained[1][0]) == []
    np.testing.assert_array_equal(trained[0][1], trained[1][1])
    assert trained[0][2] == trained[1][2] > 0
    reset = state.reset_metrics()
    assert np.isnan(reset.compute_metrics()["error"])


def test_metrics_begin_anew_without_a_look_at_what_is_held():
    case = zoo.mlp()
    metrics = toolshed.metrics.collection(error=toolshed.metrics.MSE(predictions="preds", targets="batch/y"))
    step = build_train_step(case.loss_fn, donate=True)
    state, _ = step(new_state(case, metrics=metrics), case.batch)
    assert is_held(state.reset_metrics())
    with pytest.raises(StateError, match=r"no field 'paramz'\. Did you mean 'params'"):
        state.replace(paramz=1)


def test_a_new_batch_shape_is_reported_as_ever():
    _, state, _ = held()
    smaller = {name: value[:2] for name, value in CASE.batch.items()}
    step = build_train_step(CASE.loss_fn, donate=True)
    state, _ = step(state, CASE.batch)
    with pytest.warns(RetraceWarning, match=r"batch/x: .*"):
        step(state, smaller)


def test_an_attribute_that_is_none_is_still_an_error():
    _, state, _ = held()
    with pytest.raises(AttributeError, match="'TrainState' object has no attribute 'weights'"):
        _ = state.weights
    assert not hasattr(state, "weights")


def test_a_handful_of_arrays_is_not_held(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing, "_MANY", 512)
    case = zoo.mlp()
    state, _ = build_train_step(case.loss_fn, donate=True)(new_state(case, optax.adam(1e-2)), case.batch)
    assert HELD not in state.__dict__
