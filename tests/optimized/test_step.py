"""A step's programs differ in what they give back, donate and gather, and in no bit of the training."""

from __future__ import annotations

import functools

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.training import by_hand
from tests.training.by_hand import batches, differing, new_state, values_of
from tests.training.steps import MODES, classification_batches, classification_loss, classification_state, run
from toolshed import build_train_step

STEPS = 50
OPTIMIZERS = {
    "adam": optax.adam(1e-2),
    "adamw": optax.adamw(1e-2, weight_decay=0.1),
    "sgd+momentum": optax.sgd(1e-2, momentum=0.9),
}


@functools.cache
def case_of(model: str) -> zoo.Case:
    """A case that several tests share, where making it takes long; its transformer has one block."""
    return zoo.one_block() if model == "transformer" else zoo.ZOO[model]()


@functools.cache
def step_of(model: str, mode: str) -> toolshed.TrainStep:
    return build_train_step(case_of(model).loss_fn, **MODES[mode])


def start_of(model: str, optimizer: str = "adam") -> toolshed.TrainState:
    """A fresh state with arrays of its own, as some steps donate it."""
    state = new_state(case_of(model), OPTIMIZERS[optimizer])
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf, state)


@functools.cache
def trained_by_hand(model: str, optimizer: str) -> by_hand.Trained:
    case = case_of(model)
    return by_hand.train(case, OPTIMIZERS[optimizer], jax.random.key(1), batches(case, STEPS))


SAME_BITS = [
    *(("mlp", optimizer, mode) for optimizer in OPTIMIZERS for mode in MODES),
    *(("dropout_mlp", "adam", mode) for mode in MODES),
    *(("dropout_mlp", optimizer, "nothing asked for") for optimizer in ("adamw", "sgd+momentum")),
    *(("transformer", "adamw", mode) for mode in MODES),
]


@pytest.mark.parametrize(("model", "optimizer", "mode"), SAME_BITS)
def test_fifty_steps_are_bit_for_bit_those_of_a_loop_written_by_hand(model, optimizer, mode):
    state = run(step_of(model, mode), start_of(model, optimizer), batches(case_of(model), STEPS))
    assert differing(state.params, trained_by_hand(model, optimizer).params) == []
    assert int(state.step) == STEPS


def test_the_losses_are_those_of_the_loop_written_by_hand():
    expected = trained_by_hand("dropout_mlp", "adam").losses
    state, losses = start_of("dropout_mlp"), []
    for batch in batches(case_of("dropout_mlp"), STEPS):
        state, context = step_of("dropout_mlp", "looked at")(state, batch)
        losses.append(float(context.loss_total))
    np.testing.assert_allclose(losses, expected, rtol=1e-6)
    assert losses[-1] < losses[0] / 2


def test_comparing_bits_finds_another_learning_rate_and_another_key():
    case = case_of("dropout_mlp")
    step, data = step_of("dropout_mlp", "nothing asked for"), batches(case, STEPS)
    expected = trained_by_hand("dropout_mlp", "adam").params
    other_rate = run(step, new_state(case, optax.adam(1.0001e-2)), data)
    other_key = run(step, new_state(case, OPTIMIZERS["adam"], root_rng=jax.random.key(2)), data)
    assert differing(other_rate.params, expected) == sorted(expected)
    assert differing(other_key.params, expected) == sorted(expected)


def test_several_steps_in_one_call_record_what_single_steps_record():
    case, data = case_of("dropout_mlp"), batches(case_of("dropout_mlp"), 12)
    single, many = step_of("dropout_mlp", "looked at"), build_train_step(case.loss_fn, steps_per_call=4)
    tapes = single.tape(capacity=5), many.tape(capacity=5)  # a block has no room for two calls
    one, four, losses, predictions = start_of("dropout_mlp"), start_of("dropout_mlp"), [], []
    for batch in data:
        one, context = single(one, batch, tapes[0])
        losses.append(context.loss_total)
        predictions.append(context.preds)
    for at in (0, 4, 8):
        four, context = many(four, toolshed.data.stack(data[at : at + 4]), tapes[1])
        assert context.loss_total.shape == (4,)
        assert context.preds.shape == (4, 8, 1)
        np.testing.assert_allclose(context.loss_total, losses[at : at + 4], rtol=1e-5)
        np.testing.assert_allclose(context.preds, predictions[at : at + 4], rtol=1e-4, atol=1e-6)
    assert differing(values_of(four), values_of(one)) == []
    rows, expected = tapes[1].take(), tapes[0].take()
    assert rows.steps.tolist() == expected.steps.tolist() == list(range(12))
    np.testing.assert_allclose(rows.values, expected.values, rtol=1e-5)


@pytest.mark.parametrize("mode", ["looked at", "nothing asked for", "loss asked for"])
def test_check_finite_changes_no_bit_of_a_good_step_and_adds_no_field(mode):
    case = case_of("mlp")
    checked = build_train_step(case.loss_fn, **MODES[mode], check_finite=True)
    (state, context), (expected, other) = (
        step(start_of("mlp"), case.batch) for step in (checked, step_of("mlp", mode))
    )
    assert differing(values_of(state), values_of(expected)) == []
    assert context.filled == other.filled


def test_metrics_change_no_bit_of_the_training():
    metrics = toolshed.metrics.collection(accuracy=toolshed.metrics.Accuracy())
    step, data = build_train_step(classification_loss, fields=()), classification_batches(5)
    without = run(step, classification_state(), data)
    assert (
        differing(values_of(run(step, classification_state(metrics=metrics), data)), values_of(without)) == []
    )


def test_recording_changes_no_bit_of_the_training():
    step, data = step_of("mlp", "nothing asked for"), batches(case_of("mlp"), 5)
    plain = run(step, start_of("mlp"), data)
    state, tape = start_of("mlp"), step.tape()
    for batch in data:
        state, _ = step(state, batch, tape)
    assert differing(values_of(state), values_of(plain)) == []
