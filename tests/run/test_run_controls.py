"""Pausing, stopping and going on, from cells, threads and buttons."""

from __future__ import annotations

import threading
import time
from typing import Any

import pytest

import toolshed
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
from toolshed.errors import RunError

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
