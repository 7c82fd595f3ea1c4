"""The widget without a browser: what it tells the front ends, what it takes from them, and its failures."""

from __future__ import annotations

import gc
import threading
import time
import warnings
import weakref
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from tests.live.scripted import ScriptedRun, event, log_training, training, watch
from tests.live.test_frames import unpack
from tests.live.test_heat import unpack as maps_of
from toolshed.errors import ViewWarning
from toolshed.live import scene
from toolshed.live.dashboard import ANSWER, GONE, MAPS_EVERY, Dashboard
from toolshed.live.trouble import TRIES

WAIT = 20.0


def until(true: Callable[[], Any]) -> None:
    """Waits for something that another thread does."""
    deadline = time.monotonic() + WAIT
    while not true():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.002)


@pytest.fixture
def sent(monkeypatch: Any) -> list[dict[str, Any]]:
    """What a dashboard sends, one entry a message."""
    messages: list[dict[str, Any]] = []
    monkeypatch.setattr(Dashboard, "send_state", _keep(messages))
    return messages


def _keep(messages: list[dict[str, Any]]) -> Callable[..., None]:
    def send_state(self: Dashboard, key: Any = None) -> None:
        keys = {key} if isinstance(key, str) else set(key or ())
        if keys:
            messages.append({name: getattr(self, name) for name in keys})

    return send_state


def steps_shown(dashboard: Dashboard) -> int:
    return unpack(dashboard.overview)[0]["last"]


def look(dashboard: Dashboard, visible: bool = True, version: int = -1, view: str = "a") -> None:
    dashboard._hear(dashboard, {"kind": "look", "view": view, "visible": visible, "version": version}, [])


# --- from the run to the front ends -----------------------------------------------------------------


def test_it_holds_the_whole_state_from_the_beginning():
    """A front end that comes later, or again, has all it needs in the traits."""
    run = training()
    dashboard = Dashboard(run)
    assert dashboard.head["step"] == 1234
    assert steps_shown(dashboard) == 1234
    assert [mark["kind"] for mark in dashboard.marks] == ["edited", "saved"]


def test_what_the_run_says_arrives_in_one_message(sent):
    run = training()
    dashboard = Dashboard(run)
    sent.clear()
    log_training(run.history, 1234, 1300)
    run.events += (event("saved", 1300, "saved"),)
    run.set(step=1300)
    until(lambda: dashboard.head["step"] == 1300)
    until(lambda: len(sent))
    assert [sorted(message) for message in sent] == [["head", "marks", "overview"]]
    assert steps_shown(dashboard) == 1300


def test_only_what_changed_is_sent(sent):
    run = training()
    Dashboard(run)
    sent.clear()
    run.set(message="Paused.", status="paused")
    until(lambda: sent)
    assert [sorted(message) for message in sent] == [["head"]]


def test_nothing_is_sent_while_nothing_changes(sent):
    run = training()
    dashboard = Dashboard(run)
    sent.clear()
    for _ in range(50):
        run.tell(event("rows", 1234))
    until(lambda: dashboard._pace._thread is None)
    assert sent == []


def test_a_thousand_events_are_a_few_messages_and_the_last_is_shown(sent):
    run = training()
    dashboard = Dashboard(run)
    sent.clear()
    start = time.monotonic()
    for step in range(1001):
        run.set(step=step)
    until(lambda: dashboard.head["step"] == 1000)
    assert len(sent) <= 2 + 10 * (time.monotonic() - start), "ten a second at most"


def test_nothing_is_sent_while_nobody_looks_and_all_is_when_somebody_comes_back(sent):
    run = training()
    dashboard = Dashboard(run)
    version = unpack(dashboard.overview)[0]["version"]
    look(dashboard, True, version)
    look(dashboard, False, version)
    sent.clear()
    log_training(run.history, 1234, 1300)
    run.set(step=1300)
    until(lambda: dashboard._pace._thread is None)
    assert sent == []
    look(dashboard, True, version)
    until(lambda: dashboard.head["step"] == 1300)
    until(lambda: steps_shown(dashboard) == 1300)


def test_a_front_end_that_missed_something_gets_all_again(sent):
    run = training()  # kept alive: a dashboard does not
    dashboard = Dashboard(run)
    version = unpack(dashboard.overview)[0]["version"]
    sent.clear()
    look(dashboard, True, version)
    until(lambda: dashboard._pace._thread is None)
    assert sent == [], "it has all"
    look(dashboard, True, version - 1)
    until(lambda: sent)
    assert [sorted(message) for message in sent] == [["autopsy", "head", "marks", "overview", "watched"]]


def test_the_publishing_thread_never_waits_for_the_view(monkeypatch):
    held, free = threading.Event(), threading.Event()

    def slow(*_: Any, **__: Any) -> Any:
        held.set()
        assert free.wait(WAIT)
        return scene.Scene(1, "main", 0, 0, (), (), ())

    run = training()
    Dashboard(run)
    monkeypatch.setattr(scene, "whole", slow)
    log_training(run.history, 1234, 1300)
    run.set(step=1300)
    assert held.wait(WAIT)
    start = time.monotonic()
    for _ in range(1000):
        run.tell(event("rows", 1300))
    assert time.monotonic() - start < 5
    free.set()


# --- from a front end to the run --------------------------------------------------------------------


@pytest.mark.parametrize(
    ("action", "arguments"),
    [("pause", {}), ("step", {"n": 1}), ("edit", {"learning_rate": 3e-4}), ("train", {"steps": 5})],
)
def test_a_button_asks_the_run(action, arguments):
    run = training()
    dashboard = Dashboard(run)
    dashboard._hear(dashboard, {"kind": "request", "action": action, "arguments": arguments}, [])
    assert run.asked == [(action, arguments)]


def test_what_is_no_action_of_a_button_does_not_reach_the_run():
    run = training()
    dashboard = Dashboard(run)
    dashboard._hear(dashboard, {"kind": "request", "action": "__init__", "arguments": {}}, [])
    assert run.asked == []


def window(ids: list[int], start: float, stop: float, points: int) -> dict[str, Any]:
    return {
        "kind": "window", "view": "a", "number": 3, "ids": ids, "start": start, "stop": stop,
        "points": points,
    }  # fmt: skip


def test_a_question_for_a_part_is_answered_with_its_true_extremes():
    run = ScriptedRun()
    values = np.random.default_rng(1).standard_normal(300_000).astype(np.float32)
    run.history.append("train/loss", np.arange(1, 300_001), values)
    dashboard, answers = Dashboard(run), []
    dashboard.send = lambda message, buffers: answers.append((message, buffers))
    dashboard._hear(dashboard, window([0], 100_000.2, 199_999.7, 640), [])
    ((message, (frame,)),) = answers
    assert (message["kind"], message["view"], message["number"]) == ("window", "a", 3)
    _, (line,) = unpack(frame)
    assert 320 <= len(line["steps"]) <= 640
    part = values[99_999:200_000]
    assert (line["low"].min(), line["high"].max()) == (part.min(), part.max())


def test_an_answer_is_bounded_whatever_is_asked_for():
    run = ScriptedRun()
    for i in range(20):
        run.history.append(f"mine/{i}", np.arange(100_000), np.arange(100_000))
    dashboard, answers = Dashboard(run), []
    dashboard.send = lambda message, buffers: answers.append(buffers[0])
    dashboard._hear(dashboard, window(list(range(20)), 0, 1e12, 10**9), [])
    assert sum(len(line["steps"]) for line in unpack(answers[0])[1]) <= ANSWER


# --- failures ---------------------------------------------------------------------------------------


def test_a_failure_is_shown_once_and_the_view_goes_on(monkeypatch):
    run = training()
    dashboard = Dashboard(run)
    whole = scene.whole
    monkeypatch.setattr(scene, "whole", _fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        log_training(run.history, 1234, 1300)
        run.set(step=1300)
        until(lambda: dashboard.head["problem"])
    (warning,) = [one for one in caught if one.category is ViewWarning]
    assert "ZeroDivisionError: by the test" in str(warning.message)
    assert dashboard.head["problem"].endswith("The run goes on.")
    monkeypatch.setattr(scene, "whole", whole)
    run.set(step=1301)
    until(lambda: steps_shown(dashboard) == 1300)
    assert len(run.listeners) == 1


def test_a_view_that_fails_again_and_again_stops_and_says_so(monkeypatch):
    run = training()
    dashboard = Dashboard(run)
    monkeypatch.setattr(scene, "head", _fail)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for step in range(TRIES):
            dashboard._shown.at = 0.0
            run.set(step=step)
            until(lambda step=step: dashboard._trouble._failures > step)
    assert len([one for one in caught if one.category is ViewWarning]) == 1
    until(lambda: run.listeners == [])
    until(lambda: "has stopped" in dashboard.head["problem"])
    assert dashboard.head["problem"].endswith("The run is not touched.")


def test_a_message_that_makes_no_sense_is_a_failure_of_the_view_alone():
    dashboard = Dashboard(training())
    with pytest.warns(ViewWarning, match="KeyError"):
        dashboard._hear(dashboard, {"kind": "window"}, [])
    assert "KeyError" in dashboard.head["problem"]


def _fail(*_: Any, **__: Any) -> Any:
    raise ZeroDivisionError("by the test")


# --- life -------------------------------------------------------------------------------------------


def test_a_dashboard_does_not_keep_its_run_alive():
    run = training()
    dashboard, gone = Dashboard(run), weakref.ref(run)
    del run
    gc.collect()
    assert gone() is None
    assert repr(dashboard) == "Dashboard(of a run that is gone)"
    look(dashboard)
    assert dashboard.head["problem"] == GONE
    assert dashboard.head["step"] == 1234


def test_a_closed_dashboard_listens_no_more():
    run = training()
    dashboard = Dashboard(run)
    assert len(run.listeners) == 1
    dashboard.close()
    assert run.listeners == []
    dashboard.close()


# --- what is watched, and why it stopped --------------------------------------------------------------


def test_maps_are_sent_when_they_changed_and_not_more_often_than_twice_a_second(sent):
    run = training()
    seen = watch(run, 3, range(1, 100))
    dashboard = Dashboard(run)
    assert maps_of(dashboard.watched)[0]["maps"][0]["columns"] == 99
    sent.clear()
    start = time.monotonic()
    for step in range(100, 300):
        seen.append("main", step, np.ones((3, 2), np.float32))
        run.set(step=1000 + step)
        time.sleep(0.002)
    until(lambda: maps_of(dashboard.watched)[1][0][0].max() > 290)
    messages = [message for message in sent if "watched" in message]
    assert 1 <= len(messages) <= 1 + (time.monotonic() - start) / MAPS_EVERY
    sent.clear()
    for _ in range(20):
        run.tell(event("rows", 1234))
    until(lambda: dashboard._pace._thread is None)
    assert sent == []


def test_a_choice_of_a_statistic_is_followed_at_once():
    run = training()
    seen = watch(run, 3, range(1, 100))
    dashboard = Dashboard(run)
    dashboard.settings = {"watched": {"grads/**": {"statistic": "absmax"}}}
    until(lambda: maps_of(dashboard.watched)[0]["maps"][0]["statistic"] == "absmax")
    np.testing.assert_array_equal(maps_of(dashboard.watched)[1][0][1], seen.values("absmax")[1].T)


def test_the_autopsy_is_told():
    run = training()
    dashboard = Dashboard(run)
    assert dashboard.autopsy == {}
    run.happen(event("autopsy", 1235, "log gives -∞", headline="log gives -∞"))
    until(lambda: dashboard.autopsy)
    assert (dashboard.autopsy["step"], dashboard.autopsy["headline"]) == (1235, "log gives -∞")


def test_a_question_for_ridges_is_answered():
    run = training()
    watch(run, 3, range(1, 100))
    dashboard, answers = Dashboard(run), []
    dashboard.send = answers.append
    question = {"kind": "ridges", "view": "a", "number": 1, "pattern": "grads/**", "row": 0}
    dashboard._hear(dashboard, question, [])
    until(lambda: answers)
    assert answers[0]["error"] == "AttributeError: 'ScriptedRun' object has no attribute 'histograms'"
