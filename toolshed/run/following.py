"""Following: sinks are told what is new in a run, each in a thread of its own. One that fails is dropped."""

from __future__ import annotations

import contextlib
import os
import threading
import time
import weakref
from collections.abc import Callable, Mapping
from typing import Any

from toolshed.errors import ListenerWarning
from toolshed.latch import Latch
from toolshed.run.cursor import Cursor
from toolshed.run.events import Event, one_line, warn_aloud
from toolshed.run.publisher import Publisher
from toolshed.run.serial import Serial
from toolshed.sinks import Sink

_EVERY = 0.5  # seconds between two times that a sink is told
_PATIENCE = 20.0  # seconds that the end of the interpreter waits for all sinks together
_SLOW = 60.0  # seconds after which a sink that takes nothing is shown


class Follower:
    """Tells one sink what is new.

    Args:
      sink: is told.
      name: of the run.
      config: how the run was made, as JSON can hold it.
      publisher: of the run.
    """

    def __init__(self, sink: Sink, name: str, config: Mapping[str, Any], publisher: Publisher):
        self._sink = sink
        self._name = name
        self._facts = {"name": name, "config": config}
        self._publisher = publisher
        self._cursor = Cursor(publisher.history, len(publisher.listeners.kept), whole=False)
        self._serial = Serial(f"toolshed: {type(sink).__name__}")
        self._pid = os.getpid()
        self._is_open, self._asked = False, False
        self._due = 0.0
        self._began = float("inf")  # when the sink was called that has not come back
        self._hurry = threading.Event()
        self._ended = Latch()
        self._ends: Callable[[], None] = publisher.listeners.add(self._heard)
        _ALL.add(self)

    def _heard(self, event: Event) -> None:
        del event
        if not self._asked:
            self._asked = True
            with contextlib.suppress(RuntimeError):  # the interpreter is about to end
                self._serial.put(self._work)
        elif time.monotonic() - self._began > _SLOW:
            self._began = float("inf")  # said once
            self._say("note", f"{self._label} has taken nothing for {_SLOW:.0f} s. Training goes on.")

    def _work(self) -> None:
        self._hurry.wait(max(0.0, self._due - time.monotonic()))
        self._asked = False
        self._tell()
        self._due = time.monotonic() + _EVERY

    def _tell(self) -> None:
        if self not in _ALL:
            return
        publisher = self._publisher
        self._began = time.monotonic()
        try:
            if not self._is_open:
                self._sink.open(self._name)
                self._is_open = True
            news = self._cursor.news(publisher.history, publisher.listeners.kept, self._facts)
            self._sink.write(news)
            self._cursor.wrote(news)
        except Exception as error:
            self._drop(error)
        finally:
            self._began = float("inf")

    def _drop(self, error: Exception) -> None:
        self._ends()
        _ALL.discard(self)
        words = f"{self._label} failed and is told nothing more: {one_line(error)}"
        self._say("error", words)
        warn_aloud(f"{words} Training goes on.", ListenerWarning)

    def _say(self, kind: str, words: str) -> None:
        history = self._publisher.history
        self._publisher.event(kind, history.bounds()[1], history.branch, words)

    @property
    def _label(self) -> str:
        return type(self._sink).__name__

    def finish(self, patience: float = _PATIENCE) -> None:
        """Tells what is left, and closes the sink. One that takes longer is left behind, and that is said.

        Args:
          patience: seconds.
        """
        self.begin_to_end()
        self.wait_for_end(patience)

    def begin_to_end(self) -> None:
        """Has the sink told what is left, and closed. Returns at once."""
        self._ends()
        self._hurry.set()
        if self not in _ALL or self._pid != os.getpid():
            self._ended.set()
        else:
            self._serial.put(self._end)

    def wait_for_end(self, patience: float) -> None:
        """Waits for what `begin_to_end` began, for some seconds at most."""
        if not self._ended.wait(patience):
            _ALL.discard(self)
            self._serial.abandon()
            words = f"{self._label} was not done in time: it may lack the last values of {self._name}."
            warn_aloud(words, ListenerWarning)

    def _end(self) -> None:
        self._tell()
        _ALL.discard(self)
        if self._is_open:
            with contextlib.suppress(Exception):  # there is nobody left to be told
                self._sink.close()
        self._ended.set()


_ALL: weakref.WeakSet[Follower] = weakref.WeakSet()


def _finish_all() -> None:
    followers, deadline = list(_ALL), time.monotonic() + _PATIENCE
    for follower in followers:
        follower.begin_to_end()
    for follower in followers:
        follower.wait_for_end(max(0.0, deadline - time.monotonic()))


getattr(threading, "_register_atexit", lambda function: None)(_finish_all)
