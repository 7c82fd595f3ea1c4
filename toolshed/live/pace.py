"""How often a view is brought up to date, on which thread, and whether anybody looks."""

from __future__ import annotations

import contextvars
import threading
import time
import weakref
from collections.abc import Callable

from toolshed.run import Event, Run

EVERY = 0.1
"""Seconds between two updates, at least."""
SHARE = 0.03
"""The largest part of a core's time that updates may take…"""
LONGEST = 2.0
"""…unless that would make more seconds between two of them."""
UNSURE = 2.0
"""Seconds between two updates when those who look have not been heard of for `SILENCE`."""
SILENCE = 60.0
VIEWS = 64


class Pace:
    """Does something soon after it was asked for, not too often, on a thread that lives while there is work.

    Many questions at once lead to one answer. Asking costs nothing, whatever the answer costs.

    Args:
      action: called on a thread of its own, in the context in which the pace was made, so that what it
        shows appears there. It gives back in how many seconds it wants to be called again at the latest,
        or None.
      every: seconds between two calls, at least; more where calls would take more than `SHARE` of the time.
    """

    def __init__(self, action: Callable[[], float | None], *, every: float = EVERY):
        self._action = action
        self._every = every
        self._context = contextvars.copy_context()
        self._lock = threading.Lock()
        self._asked = threading.Event()
        self._thread: threading.Thread | None = None

    def ask(self) -> None:
        """Asks for the action. Returns at once; any thread may call it."""
        with self._lock:
            self._asked.set()
            if self._thread is None:
                # A context can be entered once at a time, so each thread gets a copy.
                run = self._context.copy().run
                self._thread = threading.Thread(
                    target=run, args=(self._work,), name="toolshed-view", daemon=True
                )
                self._thread.start()

    def _work(self) -> None:
        later: float | None = None
        while True:
            if not self._asked.wait(later if later is not None else 0.0) and later is None:
                with self._lock:
                    if not self._asked.is_set():
                        self._thread = None
                        return
            self._asked.clear()
            start = time.thread_time()  # of this thread alone: others may make it wait
            later = self._action()
            took = time.thread_time() - start
            time.sleep(min(max(self._every, took / SHARE), LONGEST))


def listen(run: Run, pace: Pace) -> Callable[[], None]:
    """Asks a pace for its action whenever a run says that something changed.

    Returns:
      What ends it. It does not keep the run alive, as what a run gives back may do.
    """
    listener = weakref.ref(_Listener(run, pace))

    def end() -> None:
        found = listener()
        if found is not None:
            found.end()

    return end


class _Listener:
    """Listens to a run, which alone keeps it alive."""

    def __init__(self, run: Run, pace: Pace):
        self._pace = pace
        self.end = run.subscribe(self)

    def __call__(self, event: Event) -> None:
        self._pace.ask()


class Looks:
    """Who looks: the front ends, each of which says when it comes into sight and when it goes.

    A browser that was killed says nothing. So one that has been silent for long is served rarely, and not
    never: while a cell runs, its word may not get through.

    Args:
      clock: seconds.
    """

    def __init__(self, clock: Callable[[], float] = time.monotonic):
        self._clock = clock
        self._views: dict[str, tuple[bool, float]] = {}
        self._since = clock()

    def heard(self, view: str, visible: bool) -> None:
        """A front end said whether it is in sight."""
        self._views.pop(view, None)
        self._views[view] = (visible, self._clock())
        while len(self._views) > VIEWS:
            self._views.pop(next(iter(self._views)))

    def interval(self) -> float | None:
        """Seconds between two updates; None where nobody looks.

        Before the first word of any front end, one is taken to be on its way.
        """
        views = list(self._views.values())
        seen = [at for visible, at in views if visible] if views else [self._since]
        if not seen:
            return None
        return EVERY if self._clock() - max(seen) < SILENCE else UNSURE
