"""Many questions, few answers; and who looks."""

from __future__ import annotations

import contextvars
import threading
import time

from toolshed.live.pace import EVERY, SHARE, SILENCE, UNSURE, VIEWS, Looks, Pace

WAIT = 20.0  # seconds that no test reaches


def test_many_questions_lead_to_few_answers_and_the_last_one_is_answered():
    asked, seen, done = [0], [], threading.Event()

    def action() -> None:
        seen.append(asked[0])
        if asked[0] == 1000:
            done.set()

    pace = Pace(action, every=0.01)
    for i in range(1, 1001):
        asked[0] = i
        pace.ask()
    assert done.wait(WAIT), "what was asked last was answered"
    assert len(seen) < 500


def test_nothing_is_done_and_no_thread_lives_while_nobody_asks():
    calls, done = [], threading.Event()
    pace = Pace(lambda: (calls.append(1), done.set())[2:] or None, every=0.001)
    before = threading.active_count()
    assert threading.active_count() == before
    pace.ask()
    assert done.wait(WAIT)
    deadline = time.monotonic() + WAIT
    while pace._thread is not None and time.monotonic() < deadline:
        time.sleep(0.001)
    assert pace._thread is None
    assert calls == [1]
    done.clear()
    pace.ask()
    assert done.wait(WAIT), "it comes back to life"


def test_an_action_that_asks_to_be_called_later_is():
    times, done = [], threading.Event()

    def action() -> float | None:
        times.append(time.monotonic())
        if len(times) == 2:
            done.set()
            return None
        return 0.05

    Pace(action, every=0.001).ask()
    assert done.wait(WAIT)
    assert times[1] - times[0] >= 0.05


def test_an_action_that_takes_long_is_called_less_often():
    times, done = [], threading.Event()

    def action() -> None:
        times.append(time.monotonic())
        start = time.thread_time()
        while time.thread_time() < start + 0.005:
            pass
        if len(times) == 2:
            done.set()
        pace.ask()

    pace = Pace(action, every=0.0)
    pace.ask()
    assert done.wait(WAIT)
    assert times[1] - times[0] >= 0.005 / SHARE


def test_waiting_for_others_does_not_count():
    times, done = [], threading.Event()

    def action() -> None:
        times.append(time.monotonic())
        time.sleep(0.05)
        if len(times) == 2:
            done.set()
        pace.ask()

    pace = Pace(action, every=0.0)
    pace.ask()
    assert done.wait(WAIT)
    assert times[1] - times[0] < 0.05 / SHARE


def test_it_acts_in_the_context_in_which_it_was_made():
    """Or what it shows would land in another cell."""
    place = contextvars.ContextVar("place", default="nowhere")
    place.set("here")
    found, done = [], threading.Event()
    pace = Pace(lambda: (found.append(place.get()), done.set())[2:] or None)
    contextvars.Context().run(pace.ask)
    assert done.wait(WAIT)
    assert found == ["here"]


# --- who looks --------------------------------------------------------------------------------------


class Clock:
    now = 1000.0

    def __call__(self) -> float:
        return self.now


def test_before_the_first_word_somebody_is_taken_to_be_on_the_way():
    clock = Clock()
    looks = Looks(clock)
    assert looks.interval() == EVERY
    clock.now += SILENCE
    assert looks.interval() == UNSURE


def test_nobody_looks_when_all_have_gone():
    looks = Looks(Clock())
    looks.heard("a", True)
    looks.heard("b", True)
    looks.heard("a", False)
    assert looks.interval() == EVERY
    looks.heard("b", False)
    assert looks.interval() is None
    looks.heard("a", True)
    assert looks.interval() == EVERY


def test_one_that_has_been_silent_for_long_is_served_rarely():
    clock = Clock()
    looks = Looks(clock)
    looks.heard("a", True)
    clock.now += SILENCE + 1
    assert looks.interval() == UNSURE
    looks.heard("a", True)
    assert looks.interval() == EVERY


def test_views_that_never_said_goodbye_do_not_gather():
    looks = Looks(Clock())
    for i in range(10 * VIEWS):
        looks.heard(str(i), True)
    assert len(looks._views) == VIEWS
