"""Training by fit: state in, state out, and nothing lost whatever ends it."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.training import by_hand
from tests.training.by_hand import batches, count_compilations, differing, values_of
from tests.training.trainers import arrays, shared, start, stream, trainer_of
from toolshed import EarlyStop, Trainer
from toolshed.errors import DataError, ExhaustedWarning, NonFiniteError

# --- fit: one training, however it is cut -----------------------------------------------------------


def test_fifty_steps_and_fifty_more_are_a_hundred_bit_for_bit():
    trainer = shared("dropout_mlp")
    whole, halves = stream(), stream()
    expected = trainer.fit(start(trainer), whole, steps=100)
    middle = trainer.fit(start(trainer), halves, steps=50)  # 16 epochs of 3 batches, and 2 batches more
    assert (halves.position, halves.epoch) == (50, 16)
    state = trainer.fit(middle, halves, steps=50)
    assert differing(values_of(state), values_of(expected)) == []
    assert halves.position == whole.position == int(state.step) == 100
    from_the_first_batch = trainer.fit(middle, stream(), steps=50)
    assert differing(from_the_first_batch.params, expected.params) == sorted(expected.params)


def test_fit_sees_each_example_once_an_epoch_in_an_order_that_changes():
    seen: list[list[float]] = []

    class Watched(toolshed.data.ArrayStream):
        def batch_at(self, position: int) -> Any:
            batch = super().batch_at(position)
            seen.append(batch["x"][:, 0].tolist())
            return batch

    data = Watched(arrays(), 8, seed=3, shuffle=True, last="keep")
    shared().fit(start(shared()), data, steps=9)
    epochs = [[*seen[at], *seen[at + 1], *seen[at + 2]] for at in (0, 3, 6)]
    for epoch in epochs:
        assert sorted(epoch) == sorted(arrays()["x"][:, 0].tolist())
    assert epochs[0] != epochs[1] != epochs[2] != epochs[0]


def test_without_a_number_of_steps_fit_makes_one_pass():
    trainer, data = shared(), stream()
    state = trainer.fit(start(trainer), data)
    assert (int(state.step), data.position) == (3, 3)
    state = trainer.fit(state, data)  # the second pass is no silent no-op
    assert (int(state.step), data.position) == (6, 6)
    assert int(trainer.fit(state, [zoo.mlp().batch] * 4).step) == 10


def test_no_steps_give_the_same_state_and_touch_no_data():
    trainer, data = shared(), iter([zoo.mlp().batch])
    state = start(trainer)
    assert trainer.fit(state, data, steps=0) is state
    assert trainer.fit(state, [], steps=0) is state
    assert len(list(data)) == 1


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
def test_the_caller_s_state_and_model_survive(report):
    case = zoo.running_statistics()
    trainer = Trainer(case.model, optax.adam(1e-2), case.loss_fn)
    state = start(trainer)
    before, in_model = values_of(state), by_hand.on_host(case.model)
    after = trainer.fit(state, stream(), steps=5, report=report)
    assert differing(values_of(state), before) == []
    assert differing(case.model, in_model) == []
    assert differing(values_of(after), before) != []
    assert differing(values_of(trainer.fit(state, stream(), steps=5)), values_of(after)) == []
    case.loss_fn(model=state.model, state=None, rng=None, **case.batch)  # bound and called: still alive


def test_fit_compiles_nothing_in_later_calls():
    trainer, data = trainer_of(), stream()
    state = trainer.fit(start(trainer), data, steps=3)
    with count_compilations() as compiled:
        state = trainer.fit(state, data, steps=5)
        state = trainer.fit(start(trainer), data, steps=5)
    assert compiled == []


def test_fit_works_in_another_thread():
    trainer, done = shared(), []
    expected = trainer.fit(start(trainer), stream(), steps=5)
    thread = threading.Thread(target=lambda: done.append(trainer.fit(start(trainer), stream(), steps=5)))
    thread.start()
    thread.join()
    assert differing(values_of(done[0]), values_of(expected)) == []


# --- report -----------------------------------------------------------------------------------------


def test_a_report_gets_step_loss_and_state_which_may_be_kept():
    trainer, data = shared(), stream()
    calls: list[Any] = []
    middle = trainer.fit(start(trainer), data, steps=4, report=lambda *call: calls.append(call))
    trainer.fit(middle, data, steps=3, report=lambda *call: calls.append(call))
    assert [step for step, _, _ in calls] == [1, 2, 3, 4, 5, 6, 7]
    assert [int(state.step) for _, _, state in calls] == [1, 2, 3, 4, 5, 6, 7]
    state, fresh = start(trainer), stream()
    for position, (_, loss, kept) in enumerate(calls):
        state, context = trainer.step(state, fresh.batch_at(position))
        assert isinstance(loss, jax.Array)
        np.testing.assert_allclose(loss, context.loss_total, rtol=1e-6)
        assert differing(values_of(kept), values_of(state)) == []  # long after: none was donated


@pytest.mark.parametrize("at", [1, 7])
def test_early_stop_gives_the_state_including_the_step_just_done(at):
    trainer = shared()

    def stop(step: int, loss: jax.Array, state: toolshed.TrainState) -> None:
        if step == at:
            raise EarlyStop

    state = trainer.fit(start(trainer), stream(), steps=20, report=stop)
    assert int(state.step) == at
    assert state is trainer.last_state
    expected = trainer.fit(start(trainer), stream(), steps=at)
    assert differing(values_of(state), values_of(expected)) == []


def test_an_error_in_a_report_is_the_caller_s_own_and_loses_no_step():
    trainer = shared()

    def fail(step: int, loss: jax.Array, state: toolshed.TrainState) -> None:
        if step == 3:
            raise ZeroDivisionError("mine")

    with pytest.raises(ZeroDivisionError, match="mine") as caught:
        trainer.fit(start(trainer), stream(), steps=20, report=fail)
    assert int(trainer.last_state.step) == 3
    assert caught.value.__notes__ == ["Training stopped after step 3; its state is trainer.last_state."]


# --- data that is not there -------------------------------------------------------------------------


@pytest.mark.parametrize(
    "data",
    [list, lambda: iter([]), lambda: (batch for batch in [])],
    ids=["list", "iterator", "generator"],
)
@pytest.mark.parametrize("steps", [None, 5])
def test_data_without_a_batch_is_an_error(data, steps):
    trainer = shared()
    state = start(trainer)
    with pytest.raises(DataError, match=r"^The data gave no batch\. If it is a generator, it is used up"):
        trainer.fit(state, data(), steps=steps)
    assert differing(values_of(trainer.last_state), values_of(state)) == []


def test_a_generator_that_is_used_up_is_an_error_and_no_silent_no_op():
    trainer, data = shared(), (batch for batch in [zoo.mlp().batch] * 2)
    state = trainer.fit(start(trainer), data)
    assert int(state.step) == 2
    with pytest.raises(DataError, match="used up"):
        trainer.fit(state, data)


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
def test_a_generator_that_ends_early_warns_and_gives_the_state(report):
    trainer, data = shared(), (batch for batch in [zoo.mlp().batch] * 3)
    with pytest.warns(ExhaustedWarning, match=r"^The data ended after 3 of 10 steps and cannot be iterated"):
        state = trainer.fit(start(trainer), data, steps=10, report=report)
    assert int(state.step) == 3
    assert trainer.last_state is state


def failing(n: int) -> Iterator[Any]:
    yield from batches(zoo.mlp(), n)
    raise OSError("the disk is gone")


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
def test_an_error_in_the_data_loses_no_step(report):
    trainer = shared()
    assert Trainer(zoo.mlp().model, optax.adam(1e-2), zoo.regression_loss).last_state is None
    with pytest.raises(OSError, match="the disk is gone") as caught:
        trainer.fit(start(trainer), failing(4), steps=10, report=report)
    assert caught.value.__notes__ == ["Training stopped after step 4; its state is trainer.last_state."]
    expected = trainer.fit(start(trainer), batches(zoo.mlp(), 4))
    with pytest.raises(OSError, match="gone"):
        trainer.fit(start(trainer), failing(4), report=report)
    assert differing(values_of(trainer.last_state), values_of(expected)) == []
    resumed = trainer.fit(trainer.last_state, stream(), steps=2)
    assert int(resumed.step) == 6


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
def test_a_wrong_batch_midway_loses_no_step(report):
    trainer, good = shared(), zoo.mlp().batch
    with pytest.raises(toolshed.errors.BatchError, match="lost y") as caught:
        trainer.fit(start(trainer), [good, good, {"x": good["x"]}, good], report=report)
    assert int(trainer.last_state.step) == 2
    assert any(note.startswith("Training stopped after step 2;") for note in caught.value.__notes__)
    assert int(trainer.fit(trainer.last_state, [good]).step) == 3


# --- losses that are not finite ---------------------------------------------------------------------


def with_a_bad_loss(at: int, value: float) -> list[dict[str, np.ndarray]]:
    data = batches(zoo.mlp(), 8)
    data[at]["y"] = np.full_like(data[at]["y"], value)
    return data


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
@pytest.mark.parametrize(("value", "word"), [(np.nan, "nan"), (1e30, "inf")])
def test_a_loss_that_is_not_finite_stops_and_names_the_step(report, value, word):
    trainer = shared()
    with pytest.raises(
        NonFiniteError, match=rf"^The loss of step 5 is {word}\. Lower the learning"
    ) as caught:
        trainer.fit(start(trainer), with_a_bad_loss(5, value), report=report)
    assert caught.value.step == 5
    assert caught.value.state is trainer.last_state
    assert int(trainer.last_state.step) >= 6
    assert isinstance(caught.value, FloatingPointError)


def test_a_loss_that_is_not_finite_stops_a_call_of_several_steps_too():
    trainer = trainer_of(steps_per_call=3)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(start(trainer), with_a_bad_loss(4, np.nan))
    assert caught.value.step == 4


def test_the_steps_are_named_as_the_state_counts_them():
    trainer = shared()
    state = trainer.fit(start(trainer), stream(), steps=10)
    with pytest.raises(NonFiniteError) as caught:
        trainer.fit(state, with_a_bad_loss(2, np.nan))
    assert caught.value.step == 12


@pytest.mark.parametrize("report", [None, lambda step, loss, state: None])
def test_without_check_finite_training_goes_on(report):
    trainer = trainer_of(check_finite=False)
    state = trainer.fit(start(trainer), with_a_bad_loss(5, np.nan), report=report)
    assert int(state.step) == 8
    assert np.isnan(state.params["mlp/Affine_1/AddBias.bias"]).all()


def test_an_error_on_the_device_comes_through_and_leaves_a_state_that_can_be_used():
    calls = []

    def fail_at_the_sixth(loss: Any) -> Any:
        calls.append(loss)
        if len(calls) == 6:
            raise OSError("the device has failed")
        return loss

    def fragile_loss(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        shape = jax.ShapeDtypeStruct((), jnp.float32)
        return loss + 0 * jax.pure_callback(fail_at_the_sixth, shape, jax.lax.stop_gradient(loss)), state, aux

    trainer = trainer_of(loss_fn=fragile_loss)
    state = start(trainer)
    with pytest.raises(Exception, match="the device has failed"):
        trainer.fit(state, [zoo.mlp().batch], steps=20)
    assert int(trainer.last_state.step) <= 5
    assert np.isfinite(trainer.last_state.params["mlp/Affine_0/AddBias.bias"]).all()
