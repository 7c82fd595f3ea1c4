"""Following: sinks are told what is new in a run, each in a thread of its own. One that fails is dropped."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable

from toolshed.errors import ListenerWarning
from toolshed.run.cursor import Cursor
from toolshed.run.events import Event, one_line, warn_aloud
from toolshed.run.publisher import Publisher
from toolshed.run.serial import Serial
from toolshed.sinks import Sink

_EVERY = 0.5  # seconds between two times that a sink is told


class Follower:
    """Tells one sink what is new.

    Args:
      sink: is told.
      name: of the run.
      publisher: of the run.
    """

    def __init__(self, sink: Sink, name: str, publisher: Publisher):
        self._sink = sink
        self._name = name
        self._publisher = publisher
        self._cursor = Cursor(publisher.history, len(publisher.listeners.kept), whole=False)
        self._serial = Serial(f"toolshed: {type(sink).__name__}")
        self._pid = os.getpid()
        self._is_open, self._asked = False, False
        self._due = 0.0
        self._hurry = threading.Event()
        self._ends: Callable[[], None] = publisher.listeners.add(self._heard)
        _ALL.add(self)

    def _heard(self, event: Event) -> None:
        del event
        if not self._asked:
            self._asked = True
            with contextlib.suppress(RuntimeError):  # the interpreter is about to end
                self._serial.put(self._work)

    def _work(self) -> None:
        self._hurry.wait(max(0.0, self._due - time.monotonic()))
        self._asked = False
        self._tell()
        self._due = time.monotonic() + _EVERY

    def _tell(self) -> None:
        if self not in _ALL:
            return
        publisher = self._publisher
        try:
            if not self._is_open:
                self._sink.open(self._name)
                self._is_open = True
            news = self._cursor.news(publisher.history, publisher.listeners.kept, {})
            self._sink.write(news)
            self._cursor.wrote(news)
        except Exception as error:
            self._drop(error)

    def _drop(self, error: Exception) -> None:
        self._ends()
        _ALL.discard(self)
        words = f"{type(self._sink).__name__} failed and is told nothing more: {one_line(error)}"
        history = self._publisher.history
        step = history.bounds()[1]
        self._publisher.event("error", step, history.branch, words)
        warn_aloud(f"{words} Training goes on.", ListenerWarning)

    def finish(self) -> None:
        """Tells what is left, and closes the sink."""
        if self not in _ALL or self._pid != os.getpid():
            return
        self._ends()
        self._hurry.set()
        self._serial.put(self._tell).done.wait()
        _ALL.discard(self)
        if self._is_open:
            with contextlib.suppress(Exception):  # there is nobody left to be told
                self._sink.close()


_ALL: weakref.WeakSet[Follower] = weakref.WeakSet()


def _finish_all() -> None:
    for follower in list(_ALL):
        follower.finish()


getattr(threading, "_register_atexit", lambda function: None)(_finish_all)
