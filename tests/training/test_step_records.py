"""What a step watches for and writes down: values that are not finite, metrics and records."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import toolshed
from tests import zoo
from tests.training.by_hand import batches, differing, new_state, values_of
from tests.training.steps import (
    classification_batches,
    classification_loss,
    classification_state,
    parameters_of,
    run,
)
from toolshed import build_train_step
from toolshed.errors import NonFiniteError

# --- check_finite -----------------------------------------------------------------------------------


def test_check_finite_names_the_loss_and_the_gradients_and_leaves_the_state_unchanged():
    case = zoo.mlp()
    step = build_train_step(case.loss_fn, check_finite=True)
    state, _ = step(new_state(case), case.batch)
    before = values_of(state)
    broken = {**case.batch, "y": case.batch["y"].at[2].set(jnp.nan)}
    with pytest.raises(
        NonFiniteError, match=r"^Step 1 is not finite in the loss, grads/mlp/Affine_0/AddBias\.bias"
    ) as caught:
        step(state, broken)
    assert caught.value.step == 1
    assert "and 1 more" in str(caught.value)  # the loss and four gradients, of which four are listed
    assert differing(values_of(state), before) == []
    state, _ = step(state, case.batch)
    assert int(state.step) == 2


@pytest.mark.parametrize("path", sorted(new_state(zoo.mlp()).params))
def test_check_finite_names_the_one_gradient_that_is_infinite(path):
    def loss_with_a_cusp(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        (parameter,) = [found for found in parameters_of(model) if found.label == path]
        values = jax.tree.leaves(parameter.value)[0]
        # √|v - v₀| at v = v₀: the loss stays finite, and its slope is infinite.
        return loss + jnp.sqrt(jnp.abs(values - jax.lax.stop_gradient(values))).sum(), state, aux

    case = zoo.mlp()
    with pytest.raises(NonFiniteError, match=rf"is not finite in grads/{path}\. The state"):
        build_train_step(loss_with_a_cusp, check_finite=True)(new_state(case), case.batch)


def test_without_check_finite_a_nan_trains_on():
    case = zoo.mlp()
    broken = {**case.batch, "x": case.batch["x"] * jnp.nan}
    state, context = build_train_step(case.loss_fn)(new_state(case), broken)
    assert np.isnan(context.loss_total)
    assert all(np.isnan(value).all() for path, value in state.params.items() if "Affine_1" in path)


# --- metrics and records ----------------------------------------------------------------------------


def test_metrics_gathered_in_the_step_equal_those_recomputed_by_hand():
    metrics = toolshed.metrics.collection(
        accuracy=toolshed.metrics.Accuracy(mask="batch/mask"),
        loss=toolshed.metrics.Mean("aux/losses", mask="batch/mask"),
        steps=toolshed.metrics.Mean("loss_total"),
    )
    data = classification_batches(7)
    step, state = build_train_step(classification_loss), classification_state(metrics=metrics)
    right, losses, totals = [], [], []
    for batch in data:
        state, context = step(state, batch)
        mask = batch["mask"]
        hits = np.asarray(context.preds).argmax(-1) == batch["label"]
        right.extend(hits[mask])
        losses.extend(np.asarray(context.aux["losses"])[mask])
        totals.append(float(context.loss_total))
        alone = metrics.with_states(context.metric_states).compute()["accuracy"]  # of this batch alone
        assert alone == pytest.approx(hits[mask].mean(), rel=1e-6)
    computed = state.compute_metrics()
    assert computed == pytest.approx(
        {"accuracy": np.mean(right), "loss": np.mean(losses), "steps": np.mean(totals)}, rel=1e-5
    )
    assert computed["loss"] != pytest.approx(computed["steps"], rel=1e-3)  # short batches weigh less
    assert all(np.isnan(value) for value in state.reset_metrics().compute_metrics().values())


def test_metrics_do_not_depend_on_how_many_steps_a_call_makes():
    metrics = toolshed.metrics.collection(loss=toolshed.metrics.Mean("aux/losses", mask="batch/mask"))
    computed = []
    for k in (1, 7):
        step = build_train_step(classification_loss, fields=(), steps_per_call=k)
        state = run(step, classification_state(metrics=metrics), classification_batches(7))
        computed.append(state.compute_metrics()["loss"])
    assert computed[0] == pytest.approx(computed[1], rel=1e-6)
    assert np.isfinite(computed[0])


def test_any_scalar_of_the_context_can_be_recorded():
    def loss_with_norm(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss, state, {**aux, "largest": jnp.abs(aux["preds"]).max()}

    case, data = zoo.mlp(), batches(zoo.mlp(), 5)
    record = ("aux/largest", "loss_total", "step")
    step = build_train_step(loss_with_norm, record=record)
    state, tape, seen = new_state(case), step.tape(capacity=2), []
    assert tape.names == step.record == record
    for batch in data:
        state, context = step(state, batch, tape)
        seen.append([context.aux["largest"], context.loss_total, context.step])
    rows = tape.take()
    assert rows.steps.tolist() == [0, 1, 2, 3, 4]
    np.testing.assert_allclose(rows.values, np.array(seen, np.float32), rtol=1e-6)


def test_a_tape_that_two_steps_write_to_loses_no_row():
    case, data = zoo.mlp(), batches(zoo.mlp(), 4)
    single = build_train_step(case.loss_fn, fields=())
    double = build_train_step(case.loss_fn, fields=(), steps_per_call=2)
    tape, state = single.tape(capacity=3), new_state(case)
    for batch in data[:2]:
        state, _ = single(state, batch, tape)
    double(state, toolshed.data.stack(data[2:]), tape)  # the block has room for one row more, not for two
    assert tape.take().steps.tolist() == [0, 1, 2, 3]


def test_a_tape_with_fewer_rows_than_a_call_writes_is_an_error():
    case = zoo.mlp()
    step = build_train_step(case.loss_fn, fields=(), steps_per_call=2)
    with pytest.raises(ValueError, match="capacity"):
        step(new_state(case), toolshed.data.stack([case.batch] * 2), toolshed.Tape(step.record, 1))


def test_a_tape_of_other_scalars_is_an_error():
    case = zoo.mlp()
    step = build_train_step(case.loss_fn, fields=())
    with pytest.raises(ValueError, match="loss_total"):
        step(new_state(case), case.batch, toolshed.Tape(("loss_total", "step"), 8))


def test_one_path_to_record_may_be_given_as_a_string():
    assert build_train_step(zoo.regression_loss, record="loss_total").record == ("loss_total",)
