"""A stepper goes on in memory of its own, packed or not, to the bits of steps by hand."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.training.by_hand import batches, differing, new_state, values_of
from toolshed.errors import BatchError
from toolshed.state.train_state import HELD
from toolshed.training import pace, packing
from toolshed.training import stepper as stepper_module
from toolshed.training.stepper import Stepper

CASES = {"dropout": zoo.dropout_mlp, "statistics": zoo.running_statistics, "transformer": zoo.one_block}


@pytest.fixture
def packs_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(packing, "_MANY", 2)


def stepped(case: Any, state: Any, n: int) -> Stepper:
    step = toolshed.build_train_step(case.loss_fn, fields=(), donate=True)
    tape, stepper = step.tape(), Stepper(state)
    for batch in batches(case, n):
        stepper(step, [batch], tape)
    assert step.traces == 1
    np.testing.assert_array_equal(tape.take().steps, np.arange(n))
    return stepper


@pytest.mark.usefixtures("packs_everything")
@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_packed_steps_give_the_bits_of_steps_by_hand(case: Any):
    case = case()
    first = expected = new_state(case, optax.adam(1e-2))
    by_hand = toolshed.build_train_step(case.loss_fn, fields=(), donate=False)
    stepper = stepped(case, first, 5)
    for batch in batches(case, 5):
        expected, _ = by_hand(expected, batch)
    assert len(stepper.state.__dict__[HELD].packed.packs) >= 2
    assert differing(values_of(stepper.state), values_of(expected)) == []
    assert int(stepper.state.step) == 5
    first.check_alive()  # what the caller has is not given away


@pytest.mark.usefixtures("packs_everything")
def test_steps_by_hand_that_hold_their_values_give_the_bits_of_steps_that_do_not():
    case = zoo.dropout_mlp()
    state = expected = new_state(case, optax.adam(1e-2))
    plain = toolshed.build_train_step(case.loss_fn, fields=())
    holding = toolshed.build_train_step(case.loss_fn, fields=(), donate=True)
    for batch in batches(case, 5):
        expected, _ = plain(expected, batch)
    expected = values_of(expected)
    for batch in batches(case, 5):
        state, _ = holding(state, batch)
    assert len(state.__dict__[HELD].packed.packs) >= 2
    assert differing(values_of(state), expected) == []


@pytest.mark.parametrize("case", CASES.values(), ids=CASES)
def test_steps_made_in_one_call_have_the_bits_of_steps_by_hand_however_many_they_are(case: Any):
    case = case()
    first = expected = new_state(case, optax.adam(1e-2))
    by_hand = toolshed.build_train_step(case.loss_fn, fields=(), donate=False)
    step, stepper = toolshed.build_train_step(case.loss_fn, fields=(), donate=True), Stepper(first)
    tape, data = step.tape(), batches(case, 22)
    assert stepper.most == 16
    for start, end in ((0, 1), (1, 4), (4, 20), (20, 22)):
        stepper(step, data[start:end], tape)
        for batch in data[start:end]:
            expected, _ = by_hand(expected, batch)
        assert differing(values_of(stepper.state), values_of(expected)) == []
    assert step.traces == 1
    rows = tape.take()
    np.testing.assert_array_equal(rows.steps, np.arange(22))
    assert len(set(rows.values[:, 0].tolist())) > 11  # a loss for each step, not one for each call


@pytest.mark.parametrize("packed", [False, True])
def test_convolutions_are_not_put_in_a_loop_where_that_makes_them_slow(
    packed: bool, monkeypatch: pytest.MonkeyPatch
):
    if packed:
        monkeypatch.setattr(packing, "_MANY", 2)
    case = zoo.convolutional()
    first = expected = new_state(case, optax.adam(1e-2))
    by_hand = toolshed.build_train_step(case.loss_fn, fields=(), donate=False)
    step, stepper = toolshed.build_train_step(case.loss_fn, fields=(), donate=True), Stepper(first)
    tape, data = step.tape(), batches(case, 22)
    assert (stepper.most, HELD in stepper.state.__dict__) == (16, True)
    for start, end in ((0, 3), (3, 4), (4, 20), (20, 22)):
        stepper(step, data[start:end], tape)
        for batch in data[start:end]:
            expected, _ = by_hand(expected, batch)
        assert differing(values_of(stepper.state), values_of(expected)) == []
        assert (stepper.most, HELD in stepper.state.__dict__) == (1, False)
    rows = tape.take()
    np.testing.assert_array_equal(rows.steps, np.arange(22))
    assert len(set(rows.values[:, 0].tolist())) == 22
    first.check_alive()


@pytest.mark.usefixtures("packs_everything")
def test_a_step_by_hand_with_convolutions_holds_nothing():
    case = zoo.convolutional()
    state = expected = new_state(case, optax.adam(1e-2))
    plain = toolshed.build_train_step(case.loss_fn, fields=())
    donating = toolshed.build_train_step(case.loss_fn, donate=True)
    state = state.replace(params=jax.tree.map(jnp.copy, state.params))
    for batch in batches(case, 3):
        expected, _ = plain(expected, batch)
    expected = values_of(expected)
    for batch in batches(case, 3):
        state, _ = donating(state, batch)
        assert HELD not in state.__dict__
    assert differing(values_of(state), expected) == []


def test_fit_on_convolutions_gives_the_bits_of_steps_by_hand(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(pace, "_FIRST_LOOK", 0.0)
    case = zoo.convolutional()
    first = expected = new_state(case, optax.adam(1e-2))
    by_hand = toolshed.build_train_step(case.loss_fn, fields=())
    for batch in batches(case, 30):
        expected, _ = by_hand(expected, batch)
    state = toolshed.Trainer(case.model, optax.adam(1e-2), case.loss_fn).fit(first, batches(case, 30))
    assert differing(values_of(state), values_of(expected)) == []


def test_large_states_are_stepped_on_one_by_one_on_a_cpu_only_very_large_ones(monkeypatch: Any):
    model = zoo.mlp().model
    state = toolshed.TrainState.initial_state(model, optax.sgd(0.1), jax.random.key(0))
    sizes = (2**16, 2**22)
    states = [state, *(state.replace(params={"w": jnp.zeros(n), "b": jnp.zeros(1)}) for n in sizes)]
    assert [Stepper(one).most for one in states] == [16, 16, 1]
    monkeypatch.setattr(stepper_module, "is_on_cpu", lambda values: False)
    assert [Stepper(one).most for one in states] == [16, 1, 1]


def test_fit_makes_several_larger_steps_in_a_call_to_the_bits_of_steps_by_hand(monkeypatch: Any):
    case = zoo.digits_sized()
    first = expected = new_state(case, optax.adam(1e-2))
    by_hand = toolshed.build_train_step(case.loss_fn, fields=(), donate=False)
    for batch in batches(case, 60):
        expected, _ = by_hand(expected, batch)
    made: list[int] = []
    make = Stepper.__call__

    def counting(stepper: Stepper, step: Any, some: Any, tape: Any) -> Any:
        made.append(len(some))
        return make(stepper, step, some, tape)

    monkeypatch.setattr(Stepper, "__call__", counting)
    monkeypatch.setattr(pace, "_FIRST_LOOK", 0.0)
    trainer = toolshed.Trainer(case.model, optax.adam(1e-2), case.loss_fn)
    state = trainer.fit(first, batches(case, 60), steps=60)
    assert (sum(made), max(made)) == (60, 16)
    assert differing(values_of(state), values_of(expected)) == []


@pytest.mark.usefixtures("packs_everything")
def test_metrics_and_the_loss_functions_state_go_along():
    case = zoo.mlp()

    def counting(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
        loss, _, aux = zoo.regression_loss(model=model, state=None, rng=rng, x=x, y=y)
        return loss, {"seen": state["seen"] + len(x)}, aux

    metrics = toolshed.metrics.collection(error=toolshed.metrics.MSE(predictions="preds", targets="batch/y"))
    state = toolshed.TrainState.initial_state(
        case.model, optax.adam(1e-2), jax.random.key(0), {"seen": jnp.zeros((), jnp.int32)}, metrics
    )
    stepper = stepped(case._replace(loss_fn=counting), state, 3)
    assert int(stepper.state.loss_fn_state["seen"]) == 3 * 8
    assert stepper.state.compute_metrics()["error"] > 0


@pytest.mark.parametrize("packed", [False, True])
def test_a_copy_stays_valid_while_the_stepper_goes_on(packed: bool, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(packing, "_MANY", 2 if packed else 10_000)
    case = zoo.mlp()
    step = toolshed.build_train_step(case.loss_fn, fields=(), donate=True)
    tape, stepper = step.tape(), Stepper(new_state(case, optax.adam(1e-2)))
    first, second = batches(case, 2)
    stepper(step, [first], tape)
    kept, at = stepper.copy(), {name: np.array(x) for name, x in values_of(stepper.copy()).items()}
    stepper(step, [second], tape)
    kept.check_alive()
    assert differing(values_of(kept), at) == []
    assert differing(values_of(stepper.state), at) != []


@pytest.mark.usefixtures("packs_everything")
def test_a_batch_that_cannot_be_taken_leaves_the_state_as_it_was():
    case = zoo.mlp()
    stepper = stepped(case, new_state(case, optax.adam(1e-2)), 1)
    step = toolshed.build_train_step(case.loss_fn, fields=(), donate=True)
    with pytest.raises(BatchError, match="batch/x is"):
        stepper(step, [{**case.batch, "x": "text"}], step.tape())
    stepper.state.check_alive()
    assert int(stepper.state.step) == 1
