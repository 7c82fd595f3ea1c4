"""Ctrl-C, at whatever moment, ends a training between two steps and loses none."""

from __future__ import annotations

import functools
import gc
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import jax
import numpy as np
import optax
import pytest

from tests import zoo
from tests.training.by_hand import differing, values_of
from toolshed import Trainer, TrainState
from toolshed.interrupts import InterruptGuard

FOREVER = 200_000  # steps; an interrupt comes long before


def make_trainer(**options: Any) -> Trainer:
    case = zoo.dropout_mlp()  # its losses depend on the step's key, so that no step equals another
    return Trainer(case.model, optax.adam(1e-3), case.loss_fn, check_finite=False, **options)


@functools.cache
def trainer_of(steps_per_call: int) -> Trainer:
    trainer = make_trainer(steps_per_call=steps_per_call)
    for report in (None, ignore):
        trainer.fit(start(trainer), DATA, steps=steps_per_call + 1, report=report)
    return trainer


def start(trainer: Trainer) -> TrainState:
    return trainer.init(jax.random.key(1))


def ignore(step: int, loss: Any, state: Any) -> None:
    pass


DATA = [zoo.dropout_mlp().batch]


def clean_run(steps: set[int]) -> dict[int, dict[str, np.ndarray]]:
    """The values of the state after each of these numbers of steps, in a training left alone."""
    trainer, found = trainer_of(1), {}
    found[0] = values_of(start(trainer))

    def keep(step: int, loss: Any, state: TrainState) -> None:
        if step in steps:
            found[step] = values_of(state)

    trainer.fit(start(trainer), DATA, steps=max(1, *steps), report=keep)
    return found


def fit_and_interrupt(trainer: Trainer, state: TrainState, delay: float, report: Any = None) -> None:
    """Trains without end; another thread sends the interrupt after ``delay`` seconds."""
    trainer.last_state = None
    timer = threading.Timer(delay, os.kill, (os.getpid(), signal.SIGINT))
    try:
        timer.start()
        trainer.fit(state, DATA, steps=FOREVER, report=report)
    finally:
        timer.join()


@pytest.mark.parametrize(
    ("steps_per_call", "report"),
    [(1, None), (1, ignore), (5, None)],
    ids=["plain", "reported", "five a call"],
)
def test_interrupts_at_random_moments_lose_no_step_and_training_goes_on(steps_per_call, report):
    trainer, rng = trainer_of(steps_per_call), np.random.default_rng(steps_per_call)
    state, ends = start(trainer), []
    for delay in rng.uniform(0, 0.02, 14):
        with pytest.raises(KeyboardInterrupt) as caught:
            fit_and_interrupt(trainer, state, delay, report)
        state = trainer.last_state or state
        step = int(state.step)
        note = f"Training stopped after step {step}; its state is trainer.last_state."
        assert getattr(caught.value, "__notes__", [note]) == [note]  # none if it came before the loop
        ends.append((step, values_of(state)))
    steps = [step for step, _ in ends]
    assert steps == sorted(steps)
    assert steps[-1] > 100  # training did go on, from each state to the next
    clean = clean_run(set(steps))
    for step, values in ends:
        assert differing(values, clean[step]) == []
    assert int(trainer.fit(state, DATA, steps=3).step) == steps[-1] + 3


def test_an_interrupt_while_the_step_is_compiled_loses_nothing():
    for delay in (0.0, 0.03, 0.1):
        trainer = make_trainer()
        state = start(trainer)
        with pytest.raises(KeyboardInterrupt):
            fit_and_interrupt(trainer, state, delay)
        last = trainer.last_state or state
        step = int(last.step)
        assert differing(values_of(last), clean_run({step})[step]) == []


class InterruptAt:
    """Raises SIGINT at one line that is executed in some files, counted from 0 within this block."""

    def __init__(self, line: int, files: tuple[str, ...], times: int = 1):
        self.line, self.files, self.times = line, files, times
        self.count = 0
        self.where = ""

    def __enter__(self) -> InterruptAt:
        self._outer = sys.gettrace()
        sys.settrace(self._trace)
        return self

    def __exit__(self, *exc_info: object) -> None:
        sys.settrace(self._outer)

    def _trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        return self._trace_line if frame.f_code.co_filename.endswith(self.files) else None

    def _trace_line(self, frame: FrameType, event: str, argument: Any) -> Any:
        if event == "line":
            if self.line <= self.count < self.line + self.times:
                self.where = f"{frame.f_code.co_qualname} line {frame.f_lineno}"
                self.count += 1
                signal.raise_signal(signal.SIGINT)
                return self._trace_line
            self.count += 1
        return self._trace_line


FILES = ("training/trainer.py", "training/interrupts.py", "training/step.py", "data/feed.py")


def wrong_at_some_line(attempt: Callable[[int], tuple[str, list[str]]]) -> list[str]:
    """What goes wrong when a training is interrupted at each of its lines, each time from its beginning.

    Args:
      attempt: interrupts at a line, and gives where that was, nowhere after the last, and what was wrong.
    """
    wrong: list[str] = []
    line, where = 0, "at the beginning"
    while where:
        where, outcomes = attempt(line)
        wrong += [f"{where}: {outcome}" for outcome in outcomes if outcome]
        line += 1
    assert line > 50
    return wrong


def wrong_with(last: TrainState, clean: dict[int, dict[str, np.ndarray]]) -> str:
    """What tells the state that is left from that of a clean run; nothing, if they are the same."""
    try:
        step = int(last.step)
        return f"the state of step {step} differs" if differing(values_of(last), clean[step]) else ""
    except BaseException as error:
        return f"last_state cannot be used: {error}"


@pytest.mark.parametrize("report", [None, ignore], ids=["plain", "reported"])
def test_an_interrupt_at_any_line_of_the_loop_loses_no_step(report):
    """Every line that a training of three steps executes is interrupted once, in a training of its own."""
    trainer = trainer_of(1)
    clean = clean_run({0, 1, 2, 3})

    def attempt(line: int) -> tuple[str, list[str]]:
        state, pulled = start(trainer), []

        def data() -> Iterator[Any]:
            for number in range(3):
                pulled.append(number)
                yield DATA[0]

        trainer.last_state = None
        with InterruptAt(line, FILES) as interrupt:
            try:
                trainer.fit(state, data(), report=report)
                outcome = "nothing raised" if interrupt.where else ""
            except KeyboardInterrupt:
                outcome = ""
            except BaseException as error:
                outcome = f"{type(error).__name__} instead of KeyboardInterrupt: {error}"
        last = trainer.last_state or state
        lost = len(pulled) - int(last.step) if pulled else 0
        return interrupt.where, [
            outcome,
            wrong_with(last, clean),
            "" if lost in (0, 1) else f"{lost} steps lost",
            "the caller's state changed" if differing(values_of(state), clean[0]) else "",
        ]

    assert wrong_at_some_line(attempt) == []


def test_two_interrupts_in_a_row_at_any_line_of_the_loop_leave_a_state_that_can_be_used():
    trainer = trainer_of(1)
    clean = clean_run({0, 1, 2, 3})
    handler = signal.getsignal(signal.SIGINT)

    def attempt(line: int) -> tuple[str, list[str]]:
        state, outcome = start(trainer), ""
        trainer.last_state = None
        with InterruptAt(line, FILES, times=2) as interrupt:
            try:
                trainer.fit(state, DATA, steps=3)
            except KeyboardInterrupt:
                pass
            except BaseException as error:
                outcome = f"{type(error).__name__} instead of KeyboardInterrupt: {error}"
        signal.signal(signal.SIGINT, handler)
        return interrupt.where, [outcome, wrong_with(trainer.last_state or state, clean)]

    assert wrong_at_some_line(attempt) == []


SCRIPT = """
import signal, sys
from tests.test_interrupts import DATA, FOREVER, differing, clean_run, start, trainer_of, values_of

signal.signal(signal.SIGINT, signal.default_int_handler)
trainer = trainer_of(1)
state, ends = start(trainer), []
for _ in range(int(sys.argv[1])):
    print("ready", flush=True)
    try:
        trainer.fit(state, DATA, steps=FOREVER)
    except KeyboardInterrupt:
        state = trainer.last_state
        ends.append((int(state.step), values_of(state)))
clean = clean_run({step for step, _ in ends})
assert all(differing(values, clean[step]) == [] for step, values in ends)
print("same bits", len(ends), flush=True)
"""


def test_interrupts_from_another_process_lose_no_step():
    rounds, rng = 10, np.random.default_rng(0)
    process = subprocess.Popen(
        [sys.executable, "-c", SCRIPT, str(rounds)], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    for delay in rng.uniform(0.002, 0.05, rounds):
        assert process.stdout.readline() == "ready\n"
        time.sleep(delay)
        process.send_signal(signal.SIGINT)
    output, errors = process.communicate(timeout=120)
    assert (output, process.returncode) == (f"same bits {rounds}\n", 0), errors


# --- the guard by itself ----------------------------------------------------------------------------


@pytest.fixture
def received() -> Iterator[list[int]]:
    """Ctrl-C goes to a handler that notes it, as in a kernel that has one of its own."""
    signals: list[int] = []
    outer = signal.signal(signal.SIGINT, lambda number, frame: signals.append(number))
    yield signals
    signal.signal(signal.SIGINT, outer)


def interrupt() -> None:
    signal.raise_signal(signal.SIGINT)


def test_while_idle_an_interrupt_comes_through_at_once(received):
    with InterruptGuard() as guard:
        interrupt()
        assert received == [signal.SIGINT]
        assert not guard.pending


def test_while_busy_an_interrupt_is_put_off_until_it_is_asked_for(received):
    with InterruptGuard() as guard:
        guard.busy = True
        interrupt()
        assert (received, guard.pending) == ([], True)
        guard.busy = False
        guard.check()
        assert (received, guard.pending) == ([signal.SIGINT], False)


def test_a_second_interrupt_in_one_step_is_not_put_off(received):
    with InterruptGuard() as guard:
        guard.busy = True
        interrupt()
        interrupt()
        assert received == [signal.SIGINT]


def test_an_interrupt_that_garbage_collection_swallows_is_delivered_after_the_next_step(monkeypatch):
    """What is raised in a callback of the collection, such as jax's, is printed and forgotten."""
    trainer, swallowed = trainer_of(1), []

    def in_the_collection(phase: str, info: Any) -> None:
        if phase == "stop":
            interrupt()

    def data() -> Iterator[Any]:
        for number in range(FOREVER):
            if number == 3:
                gc.callbacks.append(in_the_collection)
                gc.collect()
                gc.callbacks.remove(in_the_collection)
            yield DATA[0]

    monkeypatch.setattr(sys, "unraisablehook", lambda error: swallowed.append(error.exc_type))
    with pytest.raises(KeyboardInterrupt):
        trainer.fit(start(trainer), data(), steps=FOREVER)
    assert swallowed == [KeyboardInterrupt]
    steps = int(trainer.last_state.step)
    assert steps < 100
    assert differing(values_of(trainer.last_state), clean_run({steps})[steps]) == []


def test_the_handler_from_before_is_back_afterwards(received):
    handler = signal.getsignal(signal.SIGINT)

    def fail_in_a_guard() -> None:
        with InterruptGuard():
            assert signal.getsignal(signal.SIGINT) != handler
            raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        fail_in_a_guard()
    assert signal.getsignal(signal.SIGINT) is handler


def test_guards_may_be_nested(received):
    with InterruptGuard() as outer:
        with InterruptGuard() as inner:
            outer.busy = inner.busy = True
            interrupt()
            assert (inner.pending, outer.pending) == (True, False)
            inner.busy = False
            inner.check()
            assert (outer.pending, received) == (True, [])
        outer.check()
    assert received == [signal.SIGINT]


def test_an_ignored_signal_stays_ignored(received):
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with InterruptGuard() as guard:
        interrupt()
        assert not guard.pending
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN


def test_another_thread_leaves_the_handler_alone(received):
    handler = signal.getsignal(signal.SIGINT)
    seen: list[Callable[..., Any] | Any] = []

    def guarded() -> None:
        with InterruptGuard():
            seen.append(signal.getsignal(signal.SIGINT))

    thread = threading.Thread(target=guarded)
    thread.start()
    thread.join()
    assert seen == [handler]
