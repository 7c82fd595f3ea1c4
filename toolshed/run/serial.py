"""Jobs done one after another, by a thread that lives as long as there are any."""

from __future__ import annotations

import atexit
import collections
import contextlib
import contextvars
import queue
import sys
import threading
import time
import weakref
from collections.abc import Callable
from typing import Any

from toolshed.interrupts import Uninterrupted
from toolshed.latch import Latch
from toolshed.settings import Settings

_LINGER = 1.0  # seconds that a thread waits for more to do
_PATIENCE = 5.0  # seconds that the end of the interpreter waits for one

_all: weakref.WeakSet[Serial] = weakref.WeakSet()


class Job:
    """A function to be called in another thread, and what came of it.

    It is called with the context variables and jax's settings of whoever asked for it, so that what it
    prints lands in their cell.

    Attributes:
      done: set when it was called.
    """

    def __init__(self, fn: Callable[[], Any]):
        self._fn = fn
        self._context = contextvars.copy_context()
        self._settings = Settings.here()
        self.done = Latch()
        self._value: Any = None
        self._error: BaseException | None = None

    def run(self) -> None:
        """Calls the function."""
        try:
            self._value = self._context.run(self._call)
        except BaseException as error:  # the affair of whoever waits for it
            self._error = error
        finally:
            self.done.set()

    def _call(self) -> Any:
        with self._settings.hold():
            return self._fn()

    def wait(self) -> Any:
        """Waits for the call, and gives or raises what it did."""
        self.done.wait()
        return self.result()

    def result(self) -> Any:
        """What the function gave, once it is done; raises what it raised."""
        if self._error is None:
            return self._value
        error, self._error = self._error, None
        try:
            raise error
        finally:
            del error  # its traceback holds this frame


def wait_whatever_comes(done: Latch) -> None:
    """Waits for something; a Ctrl-C changes nothing."""
    while not done.is_set():
        try:
            done.wait()
        except KeyboardInterrupt:
            continue


class Serial:
    """Calls functions one after another in a thread of its own.

    The thread is a daemon; the interpreter's end waits for the function that is being called.

    Args:
      name: of the thread.
      stop: called at the end of the interpreter: asks the function that is being called to end.
    """

    def __init__(self, name: str, stop: Callable[[], None] = lambda: None):
        self._name = name
        self._stop = stop
        self._jobs: collections.deque[Job] = collections.deque()
        self._wake: queue.SimpleQueue[None] = queue.SimpleQueue()
        self._ending = threading.RLock()  # for the moments in which the thread begins or ends
        self._thread: threading.Thread | None = None
        self._closed = False
        _all.add(self)

    def has_jobs(self) -> bool:
        """Whether there are jobs that nobody has begun."""
        return bool(self._jobs)

    @property
    def waiting(self) -> int:
        """How many jobs nobody has begun."""
        return len(self._jobs)

    def is_here(self) -> bool:
        """Whether the caller is this thread."""
        return threading.current_thread() is self._thread

    def put(self, fn: Callable[[], Any]) -> Job:
        """Has a function called, after those before it."""
        job = Job(fn)
        with Uninterrupted(), self._ending:
            if self._closed:
                raise RuntimeError("The interpreter is about to end.")
            self._jobs.append(job)
            self._wake.put(None)
            if self._thread is None:
                self._start()
        return job

    def _start(self) -> None:
        self._thread = threading.Thread(target=self._work, name=self._name, daemon=True)
        try:
            self._thread.start()
        except RuntimeError:  # the system gives no more threads
            self._thread = None
            self._jobs.pop()
            raise

    def serve(self) -> None:
        """Does the waiting jobs now. Called in this thread, by a job that takes long."""
        while self._jobs:
            self._jobs.popleft().run()

    def _work(self) -> None:
        while True:
            self.serve()
            with contextlib.suppress(queue.Empty):
                self._wake.get(timeout=0 if self._closed else _LINGER)
                continue
            with self._ending:
                if not self._jobs:
                    self._thread = None
                    return

    def close(self) -> None:
        """Takes no more jobs, and asks the present one to end."""
        self._stop()
        self._closed = True
        self._wake.put(None)

    def abandon(self) -> None:
        """Has the end of the interpreter not wait for it. What it does must not be inside jax."""
        _all.discard(self)

    def join(self, patience: float) -> None:
        """Waits for the thread, for some seconds at most."""
        thread = self._thread
        if thread is not None and not self.is_here():
            thread.join(patience)


@atexit.register
def _close_all() -> None:
    """Ends the threads before the interpreter does: one that is inside jax then would crash it."""
    everything = list(_all)
    for serial in everything:
        serial.close()
    end = time.monotonic() + _PATIENCE
    for serial in everything:
        serial.join(max(0.0, end - time.monotonic()))
    sys.stdout.flush()
