"""A run does what its trainer does, step by step and in the background."""

from __future__ import annotations

import threading

import jax
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.run.small import (
    LENGTH,
    RATE,
    clean,
    data,
    is_alive,
    is_clean,
    new_run,
    params_of,
    slow_stream,
    trainer,
    until,
    values,
)
from tests.training.by_hand import differing, values_of
from toolshed.errors import DataError, RunError, ToolshedError
from toolshed.training import EarlyStop, EarlyStopping, KeepBest, ReduceOnPlateau

# --- making one -------------------------------------------------------------------------------------


def test_a_run_of_a_model_and_runs_of_a_trainer_make_the_same_steps():
    of_trainer = new_run()
    of_state = toolshed.Run(trainer(), trainer().init(jax.random.key(0)), list(data()))
    of_model = toolshed.Run(zoo.mlp().model, trainer().optimizer, zoo.regression_loss, list(data()))
    for run in (of_trainer, of_state, of_model):
        run.train(3, wait=True)
        assert int(run.state.step) == 3
        assert is_clean(run)
    other = new_run(seed=1)
    assert not np.array_equal(
        jax.random.key_data(other.state.root_rng), jax.random.key_data(of_trainer.state.root_rng)
    )


def test_the_state_that_a_run_is_made_of_stays_as_it_was():
    state = trainer().init(jax.random.key(0))
    before = values_of(state)
    run = toolshed.Run(trainer(), state, list(data()))
    run.train(4, wait=True)
    run.step()
    assert differing(values_of(state), before) == []
    assert differing(params_of(run), before) != []


def test_a_run_goes_on_from_a_state_that_has_steps_behind_it():
    first = new_run()
    first.train(10, wait=True)
    run = toolshed.Run(trainer(), first.state, list(data()))
    assert run.progress.step == 10
    run.train(5, wait=True)
    assert is_clean(run)  # ten steps are two epochs
    assert list(values(run, "train/loss")) == [11, 12, 13, 14, 15]
    with pytest.raises(RunError, match=r"^This run begins at step 10; there is no step 9 in it\.$"):
        run.goto(9)
    with pytest.raises(RunError, match=r"^This run begins at step 10; no step of it led there\.$"):
        run.explain(10)


def test_a_new_run_is_ready_and_has_nothing_yet():
    run = new_run(name="fresh")
    progress = run.progress
    assert (run.name, progress.status, progress.step, progress.goal, progress.branch) == (
        "fresh",
        "ready",
        0,
        None,
        "main",
    )
    assert (progress.epoch, progress.elapsed, progress.remaining, progress.steps_per_second) == (
        0.0,
        0.0,
        None,
        None,
    )
    assert (run.events, run.history.names, run.history.bounds()) == ((), [], (0, 0))
    assert run.hyperparameters == {
        "learning_rate": pytest.approx(RATE),
        "b1": pytest.approx(0.9),
        "b2": pytest.approx(0.999),
        "eps": pytest.approx(1e-8),
        "eps_root": 0.0,
    }
    with pytest.raises(RunError, match="no step of it led there"):
        _ = run.context
    assert repr(run) == "Run('fresh': ready, step 0)"


def test_whole_numbers_of_numpy_are_whole_numbers():
    run = new_run(eval_every=np.int64(5), snapshot_bytes=np.int64(10**6))
    run.train(np.int32(6), wait=True)
    run.goto(np.int64(2))
    assert run.step(np.int64(1)).step == 2
    run.back(np.int16(1))
    assert run.progress.step == 2
    assert int(run.explain(np.int64(2)).step) == 1


def test_no_thread_is_begun_before_there_is_something_to_do():
    before = set(threading.enumerate())
    new_run(name="nothing to do yet")
    assert not [thread for thread in set(threading.enumerate()) - before if "nothing to do" in thread.name]


# --- stepping ---------------------------------------------------------------------------------------


def test_steps_by_hand_give_all_that_the_last_one_knew():
    run = new_run()
    context = run.step(3)
    assert int(context.step) == 2
    assert run.status == "paused"
    assert is_clean(run)
    assert run.context is context
    assert list(values(run, "train/loss")) == [1, 2, 3]
    assert values(run, "train/loss")[3] == float(context.loss_total)
    assert differing(dict(context.params), clean()[2]) == []
    applied = optax.apply_updates(context.params, context.updates)
    for path, value in clean()[3].items():  # of another program, so rounded otherwise
        np.testing.assert_allclose(applied[path], value, rtol=1e-6, atol=1e-7)
    assert {"aux", "preds", "grads", "updates", "rng", "metric_states"} <= set(context.filled)


def test_a_run_that_is_stepped_trained_and_stepped_is_one_that_was_trained():
    run = new_run()
    run.step()
    run.train(6, wait=True)
    run.step(2)
    run.train(3, wait=True)
    assert run.progress.step == 12
    assert is_clean(run)
    assert list(values(run, "train/loss")) == list(range(1, 13))


def test_what_a_step_is_asked_for_later_is_computed_again():
    run = new_run()
    run.train(7, wait=True)
    context = run.context
    assert int(context.step) == 6
    assert differing(dict(context.params), clean()[6]) == []
    assert run.context is context  # once
    run.train(1, wait=True)
    assert int(run.context.step) == 7


# --- training ---------------------------------------------------------------------------------------


def test_training_goes_on_in_the_background_while_the_cell_returns():
    run = new_run(slow_stream())
    run.train(30, wait=False)
    assert run.status == "training"
    assert run.progress.step < 30
    until(lambda: run.progress.step > 2)
    assert is_alive(run.state)
    run.wait()
    progress = run.progress
    assert (progress.status, progress.step, progress.goal, progress.remaining) == ("finished", 30, 30, None)
    assert progress.epoch == 30 / LENGTH
    assert is_clean(run)
    assert "finished, step 30 of 30, loss " in repr(run)


def test_without_a_word_about_waiting_a_program_waits():
    run = new_run()
    run.train(4)
    assert run.status == "finished"
    with pytest.raises(RunError, match=r"^Training without an end would never return here"):
        run.train()
    assert run.status == "finished"


def test_no_steps_are_no_steps():
    run = new_run()
    run.train(0, wait=True)
    assert (run.status, run.progress.step) == ("finished", 0)


def test_a_training_ends_when_a_function_of_step_and_values_says_so():
    run, asked = new_run(eval_every=4), []

    def is_enough(step: int, values: dict[str, float]) -> bool:
        asked.append((step, dict(values)))
        return step >= 12

    run.train(until=is_enough, wait=True)
    assert [step for step, _ in asked] == [4, 8, 12]
    assert run.progress.step == 12
    assert run.progress.message == "trained until is_enough"
    losses = values(run, "train/loss")
    for step, found in asked:
        assert set(found) == {"train/loss", "train/norm"}
        window = [losses[number] for number in range(step - 3, step + 1)]
        assert found["train/loss"] == pytest.approx(np.mean(window), rel=1e-6)
        assert found["train/norm"] == pytest.approx(values(run, "train/norm")[step])


def test_a_training_ends_when_a_value_is_below_a_bound_or_at_its_steps():
    run = new_run(eval_data=list(data()), eval_every=4)
    run.train(20, until=toolshed.until.metric("eval/loss", below=-1.0), wait=True)
    assert run.progress.step == 20
    evaluated = values(run, "eval/loss")
    assert list(evaluated) == [4, 8, 12, 16, 20]
    bound = (evaluated[8] + evaluated[12]) / 2
    assert evaluated[4] > evaluated[8] > evaluated[12]
    run.goto(0)
    run.train(20, until=toolshed.until.metric("eval/loss", below=bound), wait=True)
    assert run.progress.step == 12
    assert run.progress.message.startswith("trained until eval/loss below ")


def test_a_value_that_there_is_not_ends_a_training_with_an_error():
    run = new_run(eval_every=2)
    with pytest.raises(RunError, match=r"^There is no value 'eval/loss' to end training by; there are train"):
        run.train(until=toolshed.until.metric("eval/loss", below=1), wait=True)
    assert (run.status, run.progress.step) == ("failed", 2)
    run.train(3, wait=True)
    assert is_clean(run)


def test_early_stopping_ends_a_training_and_begins_anew_with_the_next():
    run = new_run(eval_every=2)
    best, stopping = KeepBest("train/loss"), EarlyStopping("train/loss", patience=2, min_delta=100.0)
    run.train(30, watch=[best, stopping], wait=True)
    assert (run.status, run.progress.step) == ("finished", 6)
    assert run.progress.message.startswith("stopped early: train/loss was best after step 2: ")
    assert best.state is not None
    assert differing(dict(best.state.params), clean()[best.best_step or 0]) == []
    run.train(30, watch=stopping, wait=True)
    assert run.progress.step == 12


def test_a_watch_that_monitors_what_there_is_not_is_refused_before_the_first_step():
    run = new_run()
    with pytest.raises(ToolshedError, match=r"EarlyStopping has no value 'eval/loss' to monitor\."):
        run.train(5, watch=EarlyStopping("eval/loss", patience=1), wait=True)
    assert (run.status, run.progress.step) == ("ready", 0)


def test_a_watch_changes_the_learning_rate_and_going_back_finds_both():
    run = new_run(eval_every=3)
    run.train(12, watch=ReduceOnPlateau("train/loss", patience=1, min_delta=100.0, factor=0.5), wait=True)
    rates = values(run, "optim/learning_rate")
    expected = {step: RATE * 0.5 ** max(0, (step - 1) // 3 - 1) for step in range(1, 13)}
    assert rates == pytest.approx(expected)
    assert run.hyperparameters["learning_rate"] == pytest.approx(RATE * 0.5**3)
    end = params_of(run)
    run.goto(5)
    assert run.hyperparameters["learning_rate"] == pytest.approx(RATE)
    run.goto(12)
    assert differing(params_of(run), end) == []


def test_a_watch_may_end_training_itself_and_must_give_a_state_or_nothing():
    run = new_run(eval_every=2)

    def enough(step: int, values: object, state: object) -> None:
        raise EarlyStop("I have seen it")

    run.train(10, watch=enough, wait=True)
    assert (run.status, run.progress.step, run.progress.message) == (
        "finished",
        2,
        "stopped early: I have seen it",
    )
    with pytest.raises(ToolshedError, match=r"^Expected a watch to give a TrainState or None, got int 4\."):
        run.train(10, watch=lambda step, values, state: step, wait=True)
    assert (run.status, run.progress.step) == ("failed", 4)
    assert is_clean(run)


def test_two_runs_train_at_once():
    runs = [new_run(slow_stream(0.001)) for _ in range(2)]
    for run in runs:
        run.train(25, wait=False)
    assert [run.status for run in runs] == ["training", "training"]
    for run in runs:
        run.wait()
        assert is_clean(run)
        assert list(values(run, "train/loss")) == list(range(1, 26))


def test_two_runs_of_one_stream_have_a_place_in_it_each():
    stream = toolshed.data.from_function(lambda number: data()[number % LENGTH], LENGTH)
    runs = [new_run(stream), new_run(stream)]
    for run in runs:
        run.train(20, wait=False)
    for run in runs:
        run.wait()
        assert is_clean(run)
    assert stream.position == 0
    assert runs[0].data_position["position"] == 20


def test_data_that_has_no_batch_is_said_to_have_none():
    run = new_run([])
    with pytest.raises(DataError, match=r"^The data gave no batch\."):
        run.step()
    with pytest.raises(DataError, match=r"^The data gave no batch\."):
        run.train(3, wait=True)
    assert (run.status, run.progress.step) == ("failed", 0)
