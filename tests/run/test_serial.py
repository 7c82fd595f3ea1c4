"""Jobs are done in order in one thread, under the settings of whoever asked, and leave nothing behind."""

from __future__ import annotations

import contextvars
import gc
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

import jax
import jax.numpy as jnp
import pytest

from toolshed.run import serial as module
from toolshed.run.serial import Serial


def asked(serial: Serial, fn: Callable[[], Any]) -> Any:
    """What a function gives that is called there."""
    job = serial.put(fn)
    assert job.done.wait(10)
    return job.result()


def threads_of(name: str) -> list[threading.Thread]:
    return [thread for thread in threading.enumerate() if thread.name == name]


def until(condition: Callable[[], bool], seconds: float = 10.0) -> float:
    """Waits for a condition; how long that took."""
    start = time.monotonic()
    while not condition():
        assert time.monotonic() < start + seconds, "this did not come true"
        time.sleep(0.005)
    return time.monotonic() - start


def test_no_thread_is_started_before_there_is_a_job():
    Serial("idle")
    assert threads_of("idle") == []


def test_jobs_are_done_one_after_another_in_the_order_in_which_each_thread_put_them():
    serial, done, going = Serial("in order"), [], []

    def job(caller: int, number: int) -> Callable[[], None]:
        def do() -> None:
            going.append(True)
            assert len(going) == 1, "two at once"
            done.append((caller, number))
            going.pop()

        return do

    def put_all(caller: int) -> None:
        for number in range(300):
            serial.put(job(caller, number))

    callers = [threading.Thread(target=put_all, args=(caller,)) for caller in range(4)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    asked(serial, lambda: None)
    assert len(done) == 1200
    for caller in range(4):
        assert [number for who, number in done if who == caller] == list(range(300))


def test_what_a_job_gives_can_be_had_again_and_what_it_raises_is_raised_once():
    serial = Serial("results")
    good = serial.put(lambda: 5)
    bad = serial.put(lambda: 1 / 0)
    assert bad.done.wait(10)
    assert (good.result(), good.result()) == (5, 5)
    with pytest.raises(ZeroDivisionError):
        bad.result()
    assert bad.result() is None


@pytest.mark.parametrize("error", [ValueError, KeyboardInterrupt, SystemExit, MemoryError, GeneratorExit])
def test_no_error_of_a_job_ends_the_thread(error):
    serial = Serial("goes on")

    def fail() -> None:
        raise error("of the job")

    with pytest.raises(error, match="of the job"):
        asked(serial, fail)
    assert asked(serial, lambda: "next") == "next"


def test_a_job_that_takes_long_does_the_others_where_it_says_so():
    serial, done = Serial("served"), []

    def long() -> None:
        assert serial.is_here()
        assert not serial.has_jobs()
        for letter in "ab":
            serial.put(lambda letter=letter: done.append(letter))
        assert serial.has_jobs()
        assert done == []
        serial.serve()
        assert done == ["a", "b"]
        done.append("long")

    asked(serial, long)
    assert done == ["a", "b", "long"]
    assert not serial.is_here()


def test_each_job_sees_the_context_variables_of_whoever_asked_and_sets_them_for_itself_alone():
    variable = contextvars.ContextVar("cell", default="none")
    serial, seen = Serial("variables"), []

    def look() -> None:
        seen.append(variable.get())
        variable.set("of the job")

    for cell in ("first", "second"):
        contextvars.copy_context().run(lambda cell=cell: (variable.set(cell), serial.put(look)))
    asked(serial, look)
    assert seen == ["first", "second", "none"]
    assert variable.get() == "none"


def test_each_job_runs_under_jax_s_settings_of_whoever_asked():
    serial = Serial("settings")

    def dtype() -> Any:
        return jnp.zeros(1).dtype

    assert asked(serial, dtype) == jnp.float32
    with jax.enable_x64(True):
        assert asked(serial, dtype) == jnp.float64  # the thread was there before
    assert asked(serial, dtype) == jnp.float32


def test_a_job_that_is_served_inside_another_has_its_own_settings_and_the_other_gets_its_back():
    serial, seen = Serial("nested"), []

    def look() -> None:
        seen.append(jnp.zeros(1).dtype.name)

    begun, go_on = threading.Event(), threading.Event()

    def long() -> None:
        begun.set()
        assert go_on.wait(10)
        serial.serve()
        look()

    with jax.enable_x64(True):
        outer = serial.put(long)
        assert begun.wait(10)
    serial.put(look)
    go_on.set()
    assert outer.done.wait(10)
    outer.result()
    assert seen == ["float32", "float64"]


def test_the_thread_ends_about_a_second_after_the_last_job_and_another_begins_with_the_next():
    serial = Serial("comes and goes")
    first = asked(serial, threading.get_ident)
    took = until(lambda: not threads_of("comes and goes"))
    assert 0.5 < took < 5
    assert asked(serial, lambda: 3) == 3
    assert len(threads_of("comes and goes")) == 1
    assert first is not None


def test_jobs_that_come_just_as_the_thread_ends_are_done(monkeypatch):
    monkeypatch.setattr(module, "_LINGER", 0.0)
    serial = Serial("always ending")
    for number in range(300):
        assert asked(serial, lambda number=number: number) == number
        if number % 3 == 0:
            time.sleep(0.0005)


def test_a_system_without_threads_says_so_and_no_job_waits_for_ever(monkeypatch):
    serial = Serial("none to be had")

    def start(thread: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    with monkeypatch.context() as patch:
        patch.setattr(threading.Thread, "start", start)
        with pytest.raises(RuntimeError, match="new thread"):
            serial.put(lambda: None)
    assert asked(serial, lambda: "now") == "now"


def test_nothing_that_a_job_held_is_kept():
    class Large:
        pass

    serial = Serial("keeps nothing")
    large = Large()
    gone = weakref.ref(large)
    asked(serial, lambda large=large: None)
    asked(serial, lambda: None)
    del large
    gc.collect()
    assert gone() is None


def test_one_that_is_closed_ends_what_it_does_and_takes_no_more():
    stopped = threading.Event()
    serial = Serial("closed", stop=stopped.set)
    job = serial.put(lambda: stopped.wait(10))
    serial.close()
    assert job.done.wait(10)
    assert job.result() is True
    serial.join(10)
    assert threads_of("closed") == []
    with pytest.raises(RuntimeError, match="about to end"):
        serial.put(lambda: None)
