"""The compiled step does what a loop written by hand does, and says what it knew."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz
from penzai.toolshed.basic_training import StatefulTrainer

import toolshed
from tests import zoo
from tests.training import by_hand
from tests.training.by_hand import batches, differing, new_state, values_of
from tests.training.steps import run
from toolshed import build_train_step
from toolshed.errors import BatchError, FieldNotFilled, StateError
from toolshed.training.context import FIELDS

# --- the same as by hand ----------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["dropout_mlp", "running_statistics"])
def test_losses_and_parameters_are_those_of_penzai_s_stateful_trainer(model):
    case, data = zoo.ZOO[model](), batches(zoo.ZOO[model](), 20)

    def loss_in_aux(*, model, state, rng, x, y):
        loss, state, aux = case.loss_fn(model=model, state=state, rng=rng, x=x, y=y)
        return loss, state, {**aux, "loss": loss}

    optimizer = optax.adam(1e-2)
    trainer = StatefulTrainer.build(jax.random.key(1), zoo.ZOO[model]().model, optimizer, loss_in_aux)
    step, state = build_train_step(case.loss_fn, fields=("loss_total",)), new_state(case, optimizer)
    for batch in data:
        state, context = step(state, batch)
        np.testing.assert_allclose(context.loss_total, trainer.step(**batch)["loss"], rtol=1e-5)
    _, parameters = pz.unbind_params(trainer.model, freeze=True)
    for parameter in parameters:
        theirs = jax.tree.leaves(parameter.value)[0]
        np.testing.assert_allclose(state.params[parameter.label], theirs, rtol=1e-4, atol=1e-6)


# --- states are values ------------------------------------------------------------------------------


@pytest.mark.parametrize("model", ["random_stream", "running_statistics"])
def test_an_older_state_is_bit_identical_after_100_further_steps_from_it(model):
    case, data = zoo.ZOO[model](), batches(zoo.ZOO[model](), 4)
    step = build_train_step(case.loss_fn)
    old, context = step(new_state(case), data[0])
    before, state = values_of(old), old
    for number in range(100):
        state, _ = step(state, data[number % 4])
    assert differing(values_of(old), before) == []
    assert set(differing(values_of(state), before)) >= {"step", *(f"params/{path}" for path in old.params)}
    assert int(context.step) == 0


def test_two_branches_from_one_state_do_not_touch_each_other():
    case, data = zoo.running_statistics(), batches(zoo.running_statistics(), 20)
    step = build_train_step(case.loss_fn, fields=())
    fork = run(step, new_state(case), data[:3])
    alone = [values_of(run(step, fork, data[3:10])), values_of(run(step, fork, data[10:17]))]
    left = right = fork
    for a, b in zip(data[3:10], data[10:17], strict=True):  # one step here, one step there
        left, right = step(left, a)[0], step(right, b)[0]
    assert differing(values_of(left), alone[0]) == []
    assert differing(values_of(right), alone[1]) == []
    assert differing(*alone) != []


def test_a_step_from_a_state_kept_aside_gives_the_same_again():
    case, data = zoo.dropout_mlp(), batches(zoo.dropout_mlp(), 8)
    step = build_train_step(case.loss_fn)
    kept = run(step, new_state(case), data[:4])
    first = values_of(run(step, kept, data[4:]))
    assert differing(values_of(run(step, kept, data[4:])), first) == []
    assert differing(values_of(run(step, kept, data[:4])), first) != []


def test_a_donated_state_raises_a_state_error_when_it_is_used_again():
    case = zoo.mlp()
    step, old = build_train_step(case.loss_fn, donate=True), new_state(case)
    state, _ = step(old, case.batch)
    assert all(value.is_deleted() for value in old.params.values())
    gone = r"arrays of this state are gone \(params/mlp/.* is deleted\).*Use the state that the step returned"
    with pytest.raises(StateError, match=gone):
        step(old, case.batch)
    with pytest.raises(StateError, match=gone):
        _ = old.model
    state, _ = step(state, case.batch)  # the state that the step returned is fine
    assert int(state.step) == 2


@pytest.mark.parametrize("kept", ["params", "opt_state", "model_state"])
def test_a_donated_state_raises_a_state_error_whatever_a_field_kept_of_it(kept):
    case = zoo.running_statistics()
    step, old = build_train_step(case.loss_fn, donate=True, fields=(kept,)), new_state(case)
    step(old, case.batch)
    with pytest.raises(StateError, match="arrays of this state are gone"):
        step(old, case.batch)


@pytest.mark.parametrize("kept", ["step", "params", "opt_state", "model_state"])
def test_what_a_donating_step_is_asked_to_keep_is_not_donated(kept):
    case = zoo.running_statistics()
    step, old = build_train_step(case.loss_fn, donate=True, fields=(kept,)), new_state(case)
    before = by_hand.on_host(getattr(old, kept))
    _, context = step(old, case.batch)
    assert differing(getattr(context, kept), before) == []


def test_a_donating_step_takes_a_loss_state_that_shares_arrays_with_the_parameters():
    def loss_with_average(*, model, state, rng, x, y):
        loss, _, aux = zoo.regression_loss(model=model, state=None, rng=rng, x=x, y=y)
        return loss, jax.tree.map(lambda value: 0.9 * value, state), aux

    case = zoo.mlp()
    average = dict(new_state(case).params)
    state = new_state(case, loss_fn_state=average)
    assert not any(state.loss_fn_state[path] is state.params[path] for path in average)  # it owns a copy
    expected = {path: np.asarray(value) * np.float32(0.9) for path, value in average.items()}
    state, _ = build_train_step(loss_with_average, donate=True)(state, case.batch)
    assert differing(state.loss_fn_state, expected) == []


# --- fields -----------------------------------------------------------------------------------------


def test_a_step_fills_the_fields_that_were_asked_for_and_no_other():
    case = zoo.mlp()
    for fields in ((), ("grads",), ("loss_total", "batch"), "grads"):
        asked = (fields,) if isinstance(fields, str) else fields
        _, context = build_train_step(case.loss_fn, fields=fields)(new_state(case), case.batch)
        assert set(context.filled) == set(asked)
    _, context = build_train_step(case.loss_fn)(new_state(case), case.batch)
    assert set(FIELDS) - set(context.filled) == {
        "interms",
        "metric_states",
        "summary_states",
    }  # nobody gave them
    with pytest.raises(FieldNotFilled, match=r"note values with toolshed"):
        _ = context.interms


def test_what_the_loss_function_gives_in_aux_fills_the_fields_of_those_names():
    given = {"preds": 1.0, "interms": {"a": 2.0}, "loss_states": {"b": 3.0}, "summary_states": {"c": 4.0}}

    def generous_loss(*, model, state, rng, x, y):
        loss, state, _ = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss, state, jax.tree.map(jnp.asarray, given)

    case = zoo.mlp()
    _, context = build_train_step(generous_loss)(new_state(case), case.batch)
    assert {name: jax.tree.map(float, getattr(context, name)) for name in given} == given
    state = context.get_aux_state(return_losses=True, return_summaries=True)
    assert state.loss_states is context.loss_states
    assert state.summary_states is context.summary_states
    assert state.metric_states is None


def test_aux_may_be_anything_jax_can_return():
    for aux in (None, [jnp.ones(2)]):

        def loss_with_aux(*, model, state, rng, x, y, aux=aux):
            return zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)[0], state, aux

        case = zoo.mlp()
        _, context = build_train_step(loss_with_aux, fields=("aux",))(new_state(case), case.batch)
        assert jax.tree.structure(context.aux) == jax.tree.structure(aux)


# --- several steps in one call ----------------------------------------------------------------------


def test_fields_that_are_known_before_the_call_are_those_before_its_first_step():
    case, data = zoo.running_statistics(), batches(zoo.running_statistics(), 3)
    step = build_train_step(case.loss_fn, steps_per_call=3, fields=tuple(FIELDS))
    state = new_state(case)
    before, (_, context) = values_of(state), step(state, toolshed.data.stack(data))
    assert int(context.step) == 0
    for name in ("params", "opt_state", "model_state"):
        kept = {path: value for path, value in before.items() if path.startswith(f"{name}/")}
        assert differing({name: getattr(context, name)}, kept) == []
    for name in ("grads", "updates"):
        shapes = {path: value.shape for path, value in getattr(context, name).items()}
        assert shapes == {path: (3, *value.shape) for path, value in state.params.items()}


@pytest.mark.parametrize(("entry", "value"), [("y", np.zeros((2, 8, 1))), ("x", np.float32(1))])
def test_an_entry_without_the_axis_of_the_steps_is_named(entry, value):
    case = zoo.mlp()
    step, state = build_train_step(case.loss_fn, steps_per_call=3), new_state(case)
    good = toolshed.data.stack([case.batch] * 3)
    with pytest.raises(BatchError, match=rf"^batch/{entry} is float.*needs a first axis of 3"):
        step(state, {**good, entry: np.asarray(value, np.float32)})
    assert int(step(state, good)[0].step) == 3
