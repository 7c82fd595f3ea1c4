"""Whatever fails in the middle of a run is named, raised once, and leaves the run whole."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.run.small import (
    LENGTH,
    data,
    events_of,
    is_clean,
    new_run,
    params_of,
    trainer,
    until,
    values,
)
from tests.training.by_hand import differing
from toolshed.errors import BatchError, DataError, LossError, NonFiniteError, RunError

AT = 7
"""The number of steps that are done when something fails."""


class Trouble:
    """Raises once, the first time that it is asked to."""

    def __init__(self, error: BaseException):
        self.error, self.is_due = error, True

    def come(self) -> None:
        if self.is_due:
            self.is_due = False
            raise self.error


def data_that(fail: Callable[[], None]) -> Any:
    def batch(number: int) -> Any:
        fail()
        return data()[number % LENGTH]

    return batch


def in_data(trouble: Trouble) -> tuple[toolshed.Run, dict[str, Any]]:
    calls: list[int] = []

    def batch(number: int) -> Any:
        calls.append(number)
        if len(calls) > AT:
            trouble.come()
        return data()[number % LENGTH]

    return new_run(toolshed.data.from_function(batch, LENGTH)), {}


def in_evaluation(trouble: Trouble) -> tuple[toolshed.Run, dict[str, Any]]:
    class Broken(list[Any]):
        def __iter__(self) -> Any:
            trouble.come()
            return super().__iter__()

    return new_run(eval_data=Broken(data()), eval_every=AT), {}


def in_condition(trouble: Trouble) -> tuple[toolshed.Run, dict[str, Any]]:
    def condition(step: int, values: Any) -> bool:
        trouble.come()
        return False

    return new_run(eval_every=AT), {"until": condition}


def in_watch(trouble: Trouble) -> tuple[toolshed.Run, dict[str, Any]]:
    return new_run(eval_every=AT), {"watch": lambda step, values, state: trouble.come()}


PLACES = [in_data, in_evaluation, in_condition, in_watch]


@pytest.mark.parametrize("error", [ValueError("one\ntwo"), MemoryError(), KeyboardInterrupt(), SystemExit(3)])
@pytest.mark.parametrize("place", PLACES)
def test_an_error_pauses_the_run_names_step_and_batch_and_is_raised_once(place: Any, error: BaseException):
    trouble = Trouble(error)
    run, options = place(trouble)
    run.train(20, **options, wait=False)
    until(lambda: run.status == "failed")
    assert run.progress.step == AT
    assert is_clean(run)  # it can be looked at before anybody has waited for it
    with pytest.raises(type(error)) as caught:
        run.wait()
    assert caught.value is error
    assert error.__notes__[-1] == (
        f"The run stopped after step {AT}, at batch {AT + 1}; run.state is the state of step {AT}, and"
        " run.train() tries again from there."
    )
    run.wait()  # once
    words = {ValueError: "ValueError: one", SystemExit: "SystemExit: 3"}.get(
        type(error), type(error).__name__
    )
    assert run.progress.message == words
    event = events_of(run, "error")[-1]
    assert event.text == f"{words} (after step {AT}, at batch {AT + 1})"
    assert (event.step, "Traceback" in event.data["traceback"]) == (AT, True)
    run.resume()
    run.wait()
    assert (run.status, run.progress.step) == ("finished", 20)
    assert is_clean(run)
    assert list(values(run, "train/loss")) == list(range(1, 21))


def test_an_error_in_a_step_by_hand_is_raised_there_and_the_steps_before_it_are_done():
    trouble = Trouble(ValueError("of the data"))
    run, _ = in_data(trouble)
    with pytest.raises(ValueError, match="of the data"):
        run.step(10)
    assert run.progress.step == AT
    assert is_clean(run)
    run.step(3)
    assert run.progress.step == 10
    assert is_clean(run)
    assert list(values(run, "train/loss")) == list(range(1, 11))


def test_an_error_while_going_back_leaves_the_run_where_it_was():
    trouble = Trouble(ValueError("of the data"))
    trouble.is_due = False
    run = new_run(toolshed.data.from_function(data_that(trouble.come), LENGTH), snapshot_every=10)
    run.train(9, wait=True)
    trouble.is_due = True
    with pytest.raises(ValueError, match="of the data"):
        run.goto(5)
    assert run.progress.step == 9
    assert is_clean(run)
    trouble.is_due = True
    with pytest.raises(ValueError, match="of the data"):
        run.explain(4)
    run.train(3, wait=True)
    assert is_clean(run)
    run.goto(5)
    assert is_clean(run)


def test_a_loss_function_that_breaks_its_protocol_is_told_before_the_first_step_is_made():
    def loss_fn(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
        return jnp.zeros(3), state, {}

    run = toolshed.Run(zoo.mlp().model, optax.sgd(0.01), loss_fn, list(data()))
    before = params_of(run)
    for make in (lambda: run.train(3, wait=True), run.step):
        with pytest.raises(LossError, match=r"returned a loss of float32\[3\]"):
            make()
        assert run.progress.step == 0
    assert differing(params_of(run), before) == []
    assert run.data_position["position"] == 0


def test_a_metric_that_fails_is_told_and_a_run_without_it_goes_on():
    missing = toolshed.metrics.collection(of=toolshed.metrics.Mean("aux/nothing"))
    run = toolshed.Run(zoo.mlp().model, optax.sgd(0.01), zoo.regression_loss, list(data()), metrics=missing)
    with pytest.raises(Exception, match="nothing") as caught:
        run.train(3, wait=True)
    assert "The run stopped after step 0, at batch 1" in caught.value.__notes__[-1]
    assert (run.status, run.progress.step) == ("failed", 0)
    run.state.check_alive()


# --- values that are not finite ---------------------------------------------------------------------


def poisoned(at: int) -> Any:
    """The batches, of which that of one step makes the loss NaN."""

    def batch(number: int) -> Any:
        one = data()[number % LENGTH]
        return {**one, "x": np.full_like(one["x"], np.nan)} if number == at - 1 else one

    return toolshed.data.from_function(batch)


def test_a_loss_that_is_not_finite_stops_the_run_before_it_and_says_at_which_step():
    run = new_run(poisoned(6))
    with pytest.raises(
        NonFiniteError, match=r"^The loss of step 6 is nan\. The run went back to step 5\."
    ) as caught:
        run.train(10_000, wait=True)
    assert caught.value.step == 6
    assert run.status == "failed"
    assert run.progress.step == 5
    assert [(event.step, event.data) for event in events_of(run, "nonfinite")] == [
        (6, {"name": "train/loss", "value": "nan"})
    ]
    assert math.isnan(values(run, "train/loss")[6])
    context = run.explain(6)
    assert np.isnan(context["batch/x"]).all()
    run.goto(5)
    assert is_clean(run)
    run.step()
    run.wait()
    assert run.history.branch == "main-2"
    assert len(events_of(run, "nonfinite")) == 2  # a step by hand tells it and does not raise


def test_a_run_that_is_told_to_trains_on_through_what_is_not_finite():
    run = new_run(poisoned(3), check_finite=False)
    run.train(10, wait=True)
    assert (run.status, run.progress.step) == ("finished", 10)
    assert events_of(run, "nonfinite") == []
    assert math.isnan(values(run, "train/loss")[10])


# --- devices that fail ------------------------------------------------------------------------------


class Device:
    """A step that fails on the device, after it was dispatched, as long as it is broken."""

    def __init__(self) -> None:
        self.breaks_at: int | None = None

        def check(value: Any, mean: Any) -> Any:
            if self.breaks_at is not None and abs(float(mean) - self.means[self.breaks_at % LENGTH]) < 1e-6:
                raise RuntimeError("the device has failed")
            return np.asarray(value)

        self.means = [float(np.mean(batch["x"])) for batch in data()]

        def loss_fn(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
            loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
            checked = jax.pure_callback(
                check, jax.ShapeDtypeStruct((), jnp.float32), jax.lax.stop_gradient(loss), x.mean()
            )
            return loss + 0 * checked, state, aux

        optimizer = optax.inject_hyperparams(optax.adam)(learning_rate=1e-2)
        self.trainer = toolshed.Trainer(zoo.mlp().model, optimizer, loss_fn)


@pytest.fixture(scope="module")
def device() -> Device:
    return Device()


@pytest.mark.parametrize("edited", [False, True])
def test_a_device_that_fails_in_a_step_takes_no_step_before_it(device: Device, edited: bool):
    run = toolshed.Run(device.trainer, list(data()), snapshot_every=4)
    clean = toolshed.Run(device.trainer, list(data()))
    for one in (run, clean):
        one.train(9, wait=True)
        if edited:
            one.edit(learning_rate=0.03)
        one.train(1, wait=True)
    device.breaks_at = 12
    try:
        with pytest.raises(Exception, match="the device has failed"):
            run.train(100, wait=True)
        assert run.status == "failed"
        assert 10 <= run.progress.step <= 12  # quick steps are made several in a call
        run.state.check_alive()
        if run.progress.step < 12:
            run.step(12 - run.progress.step)
        with pytest.raises(Exception, match="the device has failed"):
            run.step()
        assert run.progress.step == 12
    finally:
        device.breaks_at = None
    clean.train(2, wait=True)
    assert differing(params_of(run), params_of(clean)) == []
    assert list(values(run, "train/loss")) == list(range(1, 13))
    for one in (run, clean):
        one.train(8, wait=True)
    assert differing(params_of(run), params_of(clean)) == []
    assert values(run, "train/loss") == values(clean, "train/loss")


def test_a_device_that_fails_while_the_data_cannot_be_read_again_leaves_the_newest_snapshot(device: Device):
    batches = (data()[number % LENGTH] for number in range(100))
    run = toolshed.Run(device.trainer, batches, snapshot_every=4)
    run.train(9, wait=True)
    device.breaks_at = 10
    try:
        with pytest.raises(Exception, match="the device has failed"):
            run.train(20, wait=True)
    finally:
        device.breaks_at = None
    assert run.status == "failed"
    assert run.progress.step == int(run.state.step) == 8
    run.state.check_alive()
    run.train(4, wait=True)
    assert run.progress.step == 12


# --- data -------------------------------------------------------------------------------------------


def test_data_that_is_used_up_ends_a_training_with_its_steps_done():
    run = new_run(iter([data()[number % LENGTH] for number in range(7)]))
    with pytest.raises(DataError, match=r"can be iterated only once, and its 7 items are used up\."):
        run.train(20, wait=True)
    assert (run.status, run.progress.step) == ("failed", 7)
    assert is_clean(run)
    assert run.progress.epoch is None
    for look in (lambda: run.goto(3), lambda: run.explain(3), run.back, lambda: run.context):
        with pytest.raises(DataError, match=r"^This run's data can be read only forwards: Stream\("):
            look()
    assert run.progress.step == 7
    assert is_clean(run)


def test_a_run_of_a_generator_is_stepped_by_hand_with_its_context_at_hand():
    run = new_run(data()[number % LENGTH] for number in range(100))
    run.train(3, wait=True)
    context = run.step()
    assert run.context is context
    run.train(6, wait=True)
    assert is_clean(run)


@pytest.mark.filterwarnings("ignore::toolshed.errors.RetraceWarning")
def test_batches_may_change_their_shape_and_not_their_names():
    short = {name: value[:3] for name, value in data()[1].items()}
    wrong = {"x": data()[2]["x"]}
    several = [data()[0], short, data()[2], short, wrong]
    run = new_run(several, snapshot_every=3)
    with pytest.raises(BatchError, match="y") as caught:
        run.train(10, wait=True)
    assert "The run stopped after step 4, at batch 5" in caught.value.__notes__[-1]
    assert (run.status, run.progress.step) == ("failed", 4)
    before = params_of(run)
    run.goto(2)
    run.goto(4)
    assert differing(params_of(run), before) == []
    several[4] = data()[4]
    run.train(3, wait=True)
    assert run.progress.step == 7


def test_eval_data_must_be_there_again_at_each_evaluation():
    with pytest.raises(
        DataError, match=r"^eval_data is read at the end of each window, and generator can be"
    ):
        new_run(eval_data=(batch for batch in data()))
    once = toolshed.data.stream(iter(data()))
    with pytest.raises(DataError, match=r"^eval_data is read at the end of each window, and Stream can be"):
        new_run(eval_data=once)
    with pytest.raises(DataError, match=r"^Expected a loader or an iterable, got a dict\."):
        new_run(eval_data=dict(data()[0]))
    run = new_run(eval_data=toolshed.data.stream(list(data())), eval_every=2)
    run.train(4, wait=True)
    assert list(values(run, "eval/loss")) == [2, 4]


def test_a_state_whose_memory_was_given_away_makes_no_run():
    state = trainer().init(jax.random.key(0))
    gone = jax.tree.map(jnp.copy, state)
    trainer().build_step(fields=(), donate=True)(gone, data()[0])
    with pytest.raises(toolshed.errors.StateError, match=r"deleted|donated|given away"):
        toolshed.Run(trainer(), gone, list(data()))


def test_a_run_that_was_interrupted_before_its_thread_began_trains_nevertheless():
    run = new_run()
    with pytest.raises(RunError, match=r"cannot wait for its own end"):
        run.call(lambda state: run.train(2, wait=True))
    run.call(lambda state: run.train(2, wait=False))
    run.wait()
    assert run.progress.step == 2
