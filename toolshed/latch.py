"""Waiting for another thread where Ctrl-C may come at any moment.

`threading.Event` and `Condition` take and give back their lock in Python code. A KeyboardInterrupt in the
middle of that leaves the lock taken, or given back twice, and whoever shares it stops: the thread that was
waited for dies of "release unlocked lock", or both wait for ever.
"""

from __future__ import annotations

import threading
import time

_LOOK_EVERY = 0.1  # seconds: the longest that anybody waits in vain


class Latch:
    """Is set once, by any thread, and can be waited for by any. No interrupt of any of them breaks it."""

    __slots__ = ("_is_set", "_lock")

    def __init__(self) -> None:
        self._is_set = False
        self._lock = threading.Lock()  # taken until it is set; only single calls into C touch it
        self._lock.acquire()

    def is_set(self) -> bool:
        """Whether it is set."""
        return self._is_set

    def set(self) -> None:
        """Sets it, and wakes those who wait."""
        was, self._is_set = self._is_set, True
        if not was:
            self._lock.release()

    def wait(self, timeout: float | None = None) -> bool:
        """Waits until it is set, for ``timeout`` seconds at most; whether it is set."""
        end = None if timeout is None else time.monotonic() + timeout
        while not self._is_set:
            left = _LOOK_EVERY if end is None else min(_LOOK_EVERY, end - time.monotonic())
            if left <= 0:
                break
            if self._lock.acquire(timeout=left):
                self._lock.release()  # for the next one
        return self._is_set
