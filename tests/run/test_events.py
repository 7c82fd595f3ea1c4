"""Events are plain data; listeners are told in order, and one that fails harms nobody."""

from __future__ import annotations

import dataclasses
import json
import math
import threading
import warnings

import pytest

from toolshed.errors import ListenerWarning, RunError
from toolshed.run import Event
from toolshed.run.events import KINDS, Listeners, one_line, plain


def event(kind: str = "note", step: int = 0) -> Event:
    return Event(kind, step, "main", 0.0, f"{kind} at {step}", {"step": step})


def test_each_listener_is_told_of_each_event_in_the_order_in_which_they_came():
    told, listeners = [], Listeners()
    for name in "abc":
        listeners.add(lambda event, name=name: told.append((name, event.step)))
    for step in range(3):
        listeners.tell(event(step=step))
    assert told == [(name, step) for step in range(3) for name in "abc"]


def test_all_kinds_are_kept_but_those_that_only_say_that_something_went_on():
    listeners = Listeners()
    for kind in KINDS:
        listeners.keep(event(kind))
    assert [kept.kind for kept in listeners.kept] == [
        kind for kind in KINDS if kind not in ("status", "rows", "evaluated")
    ]


def test_who_takes_leave_is_told_no_more_and_may_do_it_twice():
    told, listeners = [], Listeners()
    leave = listeners.add(lambda event: told.append(event.step))
    listeners.tell(event(step=1))
    leave()
    leave()
    listeners.tell(event(step=2))
    assert told == [1]


def test_one_that_came_twice_is_told_twice_and_leaves_once_at_a_time():
    told, listeners = [], Listeners()
    first, _ = listeners.add(told.append), listeners.add(told.append)
    listeners.tell(event())
    assert len(told) == 2
    first()
    listeners.tell(event())
    assert len(told) == 3


def test_a_listener_may_leave_or_bring_another_while_it_is_told():
    told, listeners = [], Listeners()

    def once(event: Event) -> None:
        leave()
        listeners.add(lambda event: told.append(event.step))

    leave = listeners.add(once)
    for step in range(3):
        listeners.tell(event(step=step))
    assert told == [1, 2]


@pytest.mark.parametrize("error", [ValueError, SystemExit, KeyboardInterrupt])
def test_one_that_fails_is_shown_once_with_its_traceback_and_the_others_are_told(error):
    told, listeners = [], Listeners()

    def broken(event: Event) -> None:
        raise error("of the listener")

    listeners.add(broken)
    listeners.add(lambda event: told.append(event.step))
    with pytest.warns(ListenerWarning, match=r"(?s)not called any more. Training goes on.*of the listener"):
        listeners.tell(event(step=1))
    listeners.tell(event(step=2))  # warnings are errors here: it is silent now
    assert told == [1, 2]


def test_one_that_fails_is_shown_in_every_run():
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("default")
        for _ in range(2):
            listeners = Listeners()
            listeners.add(lambda event: 1 / 0)
            listeners.tell(event())
    assert len(caught) == 2


def test_where_warnings_are_errors_a_failure_is_printed_and_reaches_nobody(capsys):
    told, listeners = [], Listeners()
    listeners.add(lambda event: 1 / 0)
    listeners.add(told.append)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        listeners.tell(event())
    assert len(told) == 1
    assert "ZeroDivisionError" in capsys.readouterr().err


def test_no_event_and_no_listener_is_lost_among_many_threads():
    listeners = Listeners()

    def come_and_go() -> None:
        for step in range(200):
            listeners.keep(event(step=step))
            listeners.add(lambda event: None)()

    threads = [threading.Thread(target=come_and_go) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(listeners.kept) == 1200
    told = []
    listeners.add(told.append)
    listeners.tell(event())
    assert len(told) == 1


def test_an_event_does_not_change_and_is_json():
    some = event("edited", 3)
    with pytest.raises(dataclasses.FrozenInstanceError):
        some.step = 4  # type: ignore[misc]
    assert json.loads(json.dumps(dataclasses.asdict(some)))["data"] == {"step": 3}


class Unspeakable(Exception):
    def __str__(self) -> str:
        raise RuntimeError


@pytest.mark.parametrize(
    ("error", "words"),
    [
        (RunError("There is no branch 'a'."), "There is no branch 'a'."),
        (KeyError("x"), "KeyError: 'x'"),
        (ValueError("first line\nsecond line"), "ValueError: first line"),
        (ValueError("\n\n  later\n"), "ValueError: later"),
        (MemoryError(), "MemoryError"),
        (RunError(), "RunError"),
        (Unspeakable(), "Unspeakable"),
    ],
    ids=lambda value: type(value).__name__,
)
def test_an_error_is_told_in_one_line(error, words):
    assert one_line(error) == words


def test_a_number_that_is_not_finite_is_told_in_words():
    assert plain(1.5) == 1.5
    assert [plain(x) for x in (math.nan, math.inf, -math.inf)] == ["nan", "inf", "-inf"]
