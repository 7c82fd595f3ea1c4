"""Pausing, stopping and asking, from cells, threads, listeners and the training itself."""

from __future__ import annotations

import threading
import time
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
    in_thread,
    is_alive,
    is_clean,
    new_run,
    slow_stream,
    slowly,
    trainer,
    until,
    values,
)
from toolshed.errors import ListenerWarning, RunError

# --- pause, resume, stop ----------------------------------------------------------------------------


def test_a_training_pauses_resumes_and_reaches_the_goal_that_it_had():
    run = new_run(slow_stream())
    run.train(30, wait=False)
    until(lambda: run.progress.step > 3)
    run.pause()
    run.pause()
    run.wait()
    paused_at = run.progress.step
    assert (run.status, run.progress.goal) == ("paused", 30)
    assert paused_at < 30
    time.sleep(0.03)
    assert run.progress.step == paused_at
    assert is_clean(run)
    run.resume()
    assert run.status == "training"
    run.wait()
    assert (run.status, run.progress.step) == ("finished", 30)
    assert is_clean(run)


def test_a_pause_that_is_taken_back_at_once_stops_nothing():
    run = new_run(slow_stream())
    run.train(30, wait=False)
    for _ in range(5):
        run.pause()
        assert run.status in ("pausing", "paused")
        run.resume()
    run.wait()
    assert (run.status, run.progress.step) == ("finished", 30)
    assert is_clean(run)


def test_conditions_and_watches_go_on_after_a_pause():
    run = new_run(slow_stream(), eval_every=4)
    run.train(until=lambda step, values: step >= 16, wait=False)
    until(lambda: run.progress.step > 2)
    run.pause()
    run.wait()
    assert run.progress.step < 16
    run.resume()
    run.wait()
    assert (run.status, run.progress.step) == ("finished", 16)


def test_a_training_stops_and_gives_its_goal_up():
    run = new_run(slow_stream())
    run.train(10_000, wait=False)
    until(lambda: run.progress.step > 3)
    in_thread(run.stop)
    run.stop()
    run.wait()
    assert (run.status, run.progress.goal) == ("stopped", None)
    with pytest.raises(
        RunError, match=r"^Nothing is paused: the run is stopped\. run\.train\(steps\) trains"
    ):
        run.resume()
    run.train(2, wait=True)
    assert run.status == "finished"


def test_a_paused_training_can_be_given_up():
    run = new_run(slow_stream())
    run.train(10_000, wait=False)
    run.pause()
    run.wait()
    run.stop()
    assert (run.status, run.progress.goal) == ("stopped", None)


def test_what_is_at_rest_cannot_be_paused_or_resumed():
    run = new_run()
    run.pause()
    run.stop()
    assert run.status == "ready"
    with pytest.raises(RunError, match=r"^Nothing is paused: the run is ready\."):
        run.resume()
    run.train(3, wait=True)
    run.pause()
    assert run.status == "finished"
    with pytest.raises(RunError, match=r"^Nothing is paused: the run is finished\."):
        run.resume()
    run.wait()


def test_a_goal_that_was_reached_by_hand_is_not_gone_on_to():
    run = new_run(slow_stream())
    run.train(8, wait=False)
    run.pause()
    run.wait()
    run.step(8 - run.progress.step)
    with pytest.raises(RunError, match=r"^The goal, step 8, is reached\. run\.train\(steps\) goes on\.$"):
        run.resume()
    assert is_clean(run)


def test_a_run_trains_once_at_a_time():
    run = new_run(slow_stream())
    run.train(20, wait=False)
    for again in (lambda: run.train(5), lambda: run.train(5, wait=False), run.resume):
        with pytest.raises(
            RunError, match=r"^This run trains already\. run\.pause\(\) or run\.wait\(\) first"
        ):
            again()
    run.wait()
    assert (run.status, run.progress.step) == ("finished", 20)


def test_a_step_by_hand_pauses_a_training_first():
    run = new_run(slow_stream())
    run.train(30, wait=False)
    until(lambda: run.progress.step > 2)
    context = run.step()
    assert run.status == "paused"
    assert int(context.step) == run.progress.step - 1
    run.resume()
    run.wait()
    assert run.progress.step == 30
    assert is_clean(run)


def test_many_threads_push_all_buttons_at_once_and_the_run_comes_to_rest_whole():
    run, odd = new_run(slow_stream(0.0005)), []
    run.train(10_000, wait=False)

    def push(number: int) -> None:
        for turn in range(12):
            try:
                [run.pause, run.resume, run.step, lambda: is_alive(run.state)][(number + turn) % 4]()
            except RunError:
                pass
            except BaseException as error:
                odd.append(error)

    threads = [threading.Thread(target=push, args=(number,)) for number in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(20)
    run.stop()
    run.wait()
    assert odd == []
    run.train(1, wait=True)
    assert list(values(run, "train/loss")) == list(range(1, run.progress.step + 1))


# --- reading from elsewhere -------------------------------------------------------------------------


def test_everything_can_be_read_while_steps_give_their_memory_away():
    run, odd, seen = new_run(), [], []
    run.train(5, wait=True)
    run.train(100_000, wait=False)

    def look() -> None:
        try:
            for _ in range(15):
                state = run.state
                time.sleep(0.001)  # steps go on
                assert is_alive(state)
                context = run.context
                assert np.isfinite(np.asarray(context.loss_total))
                seen.append((int(state.step), int(context.step)))
                assert len(run.history.series("train/loss").steps) <= run.progress.step
                assert run.history.window("train/loss", 0, 10**6, 50).steps.size
                repr(run), repr(run.timeline), run.events, run.hyperparameters, run.data_position
        except BaseException as error:
            odd.append(error)

    threads = [threading.Thread(target=look) for _ in range(3)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(30)
    assert run.status == "training"
    run.stop()
    run.wait()
    assert odd == []
    assert len(seen) == 45
    assert all(step <= made + 1 for step, made in seen)  # the context was asked for after the state
    assert len({step for step, _ in seen}) > 5


def test_a_function_is_called_with_the_live_state_between_two_steps():
    run = new_run(slow_stream())
    run.train(30, wait=False)
    norm = run.call(lambda state: float(optax.tree.norm(state.params)))
    assert norm > 0
    assert run.status == "training"
    kept = run.call(lambda state: state)
    until(lambda: run.progress.step > int(run.state.step) or run.status != "training")
    with pytest.raises(ValueError, match="of the function"):
        run.call(lambda state: (_ for _ in ()).throw(ValueError("of the function")))
    run.wait()
    assert (run.status, run.progress.step) == ("finished", 30)
    assert is_clean(run)
    with pytest.raises((RuntimeError, ValueError), match="deleted"):  # as its docstring says
        jax.block_until_ready(jax.tree.map(jnp.copy, kept.params))


def test_a_function_that_is_called_may_ask_the_run_for_more():
    run = new_run()
    run.train(6, wait=True)

    def look(state: Any) -> tuple[int, int, int]:
        run.edit(learning_rate=0.5)
        return int(state.step), int(run.state.step), int(run.explain(3).step)

    assert run.call(look) == (6, 6, 2)
    assert run.hyperparameters["learning_rate"] == 0.5
    with pytest.raises(RunError, match=r"^The training cannot wait for its own end\. Call run\.wait\(\)"):
        run.call(lambda state: run.train(5, wait=True))
    assert run.progress.step == 6


# --- from inside ------------------------------------------------------------------------------------


def test_a_listener_may_do_what_a_cell_may():
    run, found = new_run(slow_stream(), eval_every=5), []

    def listen(event: Any) -> None:
        if event.kind == "rows" and run.progress.step > 5 and not found:
            found.append(int(run.state.step))
            run.pause()
            run.wait()
            found.append(run.status)
            run.log("my/number", 3.0)
            found.append(int(run.step().step))

    stop = run.subscribe(listen)
    run.train(2000, wait=False)
    until(lambda: len(found) == 3)
    stop()
    assert found[1] == "paused"
    assert found[2] == run.progress.step - 1
    assert values(run, "my/number").popitem() == (found[2], 3.0)


def test_a_listener_that_fails_is_shown_once_and_harms_nothing():
    run, told = new_run(slow_stream(0.01)), []

    def fail(event: Any) -> None:
        raise ValueError(f"of the listener, at {event.kind}")

    run.subscribe(fail)
    run.subscribe(told.append)
    with pytest.warns(
        ListenerWarning, match=r"(?s)is not called any more\. Training goes on\..*of the liste"
    ):
        run.train(30, wait=True)
    assert {"status", "rows"} <= {event.kind for event in told}
    assert is_clean(run)


def test_a_watch_may_edit_pause_and_go_on_by_itself():
    run = new_run(eval_every=4)

    def watch(step: int, values: Any, state: Any) -> None:
        if step == 4:
            run.edit(learning_rate=0.02)
        if step == 8:
            run.pause()
        with pytest.raises(RunError, match="cannot wait for its own end"):
            run.wait()

    run.train(20, watch=watch, wait=True)
    assert (run.status, run.progress.step) == ("paused", 8)
    rates = values(run, "optim/learning_rate")
    assert rates[4] == pytest.approx(0.01)
    assert rates[5] == pytest.approx(0.02)


def test_the_data_may_look_at_the_run_and_log_but_not_move_it():
    run: Any = None
    found: dict[str, Any] = {}

    def attempt(name: str, fn: Any) -> None:
        try:
            found[name] = fn()
        except RunError as error:
            found[name] = str(error)

    def batch(number: int) -> Any:
        if number == 3 and run is not None and not found:
            attempt("state", lambda: int(run.state.step))
            attempt("log", lambda: run.log("my/number", 1.5))
            attempt("goto", lambda: run.goto(1))
            attempt("step", run.step)
            attempt("edit", lambda: run.edit(learning_rate=1.0))
            attempt("pause", run.pause)
        return data()[number % LENGTH]

    run = new_run(toolshed.data.from_function(batch, LENGTH))
    run.train(40, wait=True)
    assert found["state"] <= 3  # batches of quick steps are read several at once
    for name in ("goto", "step", "edit"):
        assert found[name].startswith("This was called from inside reading its data, which the run is in")
    assert run.status == "paused"
    assert found["state"] < run.progress.step < 40
    assert values(run, "my/number") == {found["state"]: 1.5}
    run.resume()
    run.wait()
    assert run.progress.step == 40
    assert is_clean(run)


# --- logging ----------------------------------------------------------------------------------------


def test_values_of_ones_own_are_logged_at_the_present_step():
    run = new_run()
    run.log("my/start", 1)
    run.train(3, wait=True)
    for name, value in (
        ("my/float", 0.25),
        ("my/bool", True),
        ("my/jax", jnp.float32(2.5)),
        ("my/numpy", np.int64(7)),
        ("my/bfloat16", jnp.bfloat16(1.5)),
        ("lonely", float("nan")),
    ):
        run.log(name, value)
    run.wait()
    assert values(run, "my/start") == {0: 1.0}
    assert [values(run, f"my/{name}")[3] for name in ("float", "bool", "jax", "numpy", "bfloat16")] == [
        0.25,
        1.0,
        2.5,
        7.0,
        1.5,
    ]
    assert np.isnan(values(run, "lonely")[3])


def test_a_name_that_is_logged_twice_at_one_step_is_told_once():
    run = new_run()
    run.train(2, wait=True)
    for value in (1.0, 2.0, 3.0):
        run.log("my/number", value)
    run.wait()
    assert values(run, "my/number") == {2: 1.0}
    notes = [event.text for event in events_of(run, "note")]
    assert len(notes) == 1
    assert notes[0].startswith("A value was not written down. my/number: step 2 on branch 'main', which has")


def test_a_loss_function_logs_through_a_callback_and_not_a_value_that_is_traced():
    run: Any = None
    refused: list[str] = []

    def loss_fn(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        try:
            run.log("my/mean", x.mean())
        except RunError as error:
            refused.append(str(error))
        jax.debug.callback(lambda value: run.log("my/loss", value), loss)
        return loss, state, aux

    run = toolshed.Run(zoo.mlp().model, optax.sgd(0.01), loss_fn, list(data()), norms_every=0)
    run.train(1, wait=True)
    run.wait()
    assert refused[0].startswith("my/mean is a value that jax is tracing; there is no number yet. Let the")
    assert "my/mean" not in run.history.names
    assert values(run, "my/loss").popitem()[1] == pytest.approx(values(run, "train/loss")[1])


def test_logging_in_a_tight_loop_does_not_fill_memory():
    run = new_run()
    run.train(1, wait=True)
    for number in range(4000):
        run.log(f"my/{number % 3}", number)
    assert run._publisher._writing.waiting < 1500
    run.wait()


# --- buttons ----------------------------------------------------------------------------------------


def test_buttons_do_what_the_methods_do_and_return_at_once():
    run = new_run()
    run.request("step", n=3)
    until(lambda: run.progress.step == 3)
    run.request("back")
    until(lambda: run.progress.step == 2)
    run.request("goto", step=3)
    until(lambda: run.progress.step == 3)
    run.request("edit", learning_rate=0.5)
    until(lambda: run.hyperparameters["learning_rate"] == 0.5)
    run.request("edit", learning_rate=0.01)
    run.request("train", steps=4)
    until(lambda: run.status == "finished")
    assert run.progress.step == 7
    assert events_of(run, "note") == []


@pytest.mark.parametrize(
    ("action", "arguments", "told"),
    [
        (
            "dance",
            {},
            "A run cannot 'dance'; it can train, pause, resume, stop, step, back, goto, edit, save",
        ),
        ("step", {"n": 0}, "n is 0; expected a whole number from 1."),
        ("step", {"n": "2"}, "n is '2'; expected a whole number from 1."),
        ("back", {"n": 3}, "This run begins at step 0; there is no step -1 in it."),
        ("goto", {"step": 9}, "Step 9 has not been made on the branch 'main', which ends at step 2."),
        ("goto", {}, "TypeError: Run.goto() missing 1 required positional argument: 'step'"),
        ("train", {"steps": 1.5}, "steps is 1.5; expected a whole number from 0."),
        ("resume", {}, "Nothing is paused: the run is finished."),
        ("edit", {"learning_rat": 1}, "There is no hyperparameter 'learning_rat' that can be set while"),
        ("edit", {}, "There is nothing to set. There are b1, b2, eps, eps_root, learning_rate."),
    ],
)
def test_a_button_that_cannot_be_pushed_says_so_in_a_note(action: str, arguments: Any, told: str):
    run = new_run()
    run.train(2, wait=True)
    run.request(action, **arguments)
    until(lambda: bool(events_of(run, "note")))
    assert events_of(run, "note")[0].text.startswith(told)
    assert run.progress.message.startswith(told)
    assert (run.status, run.progress.step) == ("finished", 2)
    run.step()
    assert is_clean(run)
    assert run.progress.message == ""


def test_a_run_that_reads_ahead_of_a_pause_loses_no_batch():
    stream = toolshed.data.from_function(lambda number: data()[number % LENGTH], LENGTH).prefetch(2)
    run = toolshed.Run(trainer(), stream)
    for steps in (3, 4, 1, 9):
        run.train(steps, wait=True)
    assert is_clean(run)
    run.goto(6)
    assert is_clean(run)
    run.train(12, wait=True)
    assert is_clean(run)


def test_a_run_without_an_end_trains_until_it_is_stopped():
    run = new_run(slowly(0.0))
    run.train(wait=False)
    assert run.progress.goal is None
    until(lambda: run.progress.step > 50)
    assert run.progress.remaining is None
    run.stop()
    run.wait()
    assert run.status == "stopped"
