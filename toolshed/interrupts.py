"""Ctrl-C between steps, never inside one.

A step that donates has used up the old state before the new one is in the caller's hands. An interrupt
in between would lose both. While a step runs, it is therefore put off until the state is stored.
"""

from __future__ import annotations

import signal
import threading
from types import FrameType
from typing import Any


class InterruptGuard:
    """Puts off Ctrl-C while `busy`. Active in the main thread; elsewhere no signal arrives anyway.

    Set ``busy`` before the step and clear it once the new state is stored, then call `check` if
    ``pending``. A second Ctrl-C during one step (a compilation that takes long, say) is not put off.

    Attributes:
      busy: whether a step is under way.
      pending: whether an interrupt is waiting for it.
    """

    def __init__(self) -> None:
        self.busy = False
        self.pending = False
        self._outer: Any = None

    def __enter__(self) -> InterruptGuard:
        if threading.current_thread() is threading.main_thread():
            outer = signal.getsignal(signal.SIGINT)
            if callable(outer):
                self._outer = outer
                signal.signal(signal.SIGINT, self._handle)
        return self

    def __exit__(self, *exc_info: object) -> None:
        if self._outer is not None:
            signal.signal(signal.SIGINT, self._outer)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        put_off = self.busy and not self.pending
        self.pending = True
        if not put_off:
            self._outer(number, frame)  # raises, as a rule; in a callback of the garbage collection in vain
            self.pending = False

    def check(self) -> None:
        """Delivers the interrupt that was put off."""
        self.pending = False
        if self._outer is not None:
            self._outer(signal.SIGINT, None)


class Uninterrupted(InterruptGuard):
    """A block that Ctrl-C comes after, not into: starting a thread, say, which otherwise might never run."""

    def __init__(self) -> None:
        super().__init__()
        self.busy = True

    def __exit__(self, *exc_info: object) -> None:
        super().__exit__(*exc_info)
        if self.pending:
            self.check()
