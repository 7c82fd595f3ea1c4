"""Keeping: what a run does is written to its store, in a thread of its own and in batches.

Nothing is handed over: the writer looks at the history, which it may read at any time, and writes what it
has not written yet. So no step waits for the disk, and after a failure nothing is missed.
"""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from toolshed.checkpoints.lock import Lock
from toolshed.errors import StoreWarning
from toolshed.latch import Latch
from toolshed.run.cursor import Cursor
from toolshed.run.events import Event, one_line, warn_aloud
from toolshed.run.publisher import Publisher
from toolshed.run.serial import Serial
from toolshed.store import Store
from toolshed.store.folders import DATABASE, LOCK

EVERY = 0.5  # seconds between two batches, and between two attempts where one failed
_GIVE_UP = 3600.0  # seconds after the last news until nothing more is attempted by itself


class Keeper:
    """Writes a run's values and events to its directory.

    Args:
      folder: the run's directory.
      lock: what keeps other processes from writing to it; None to make it.
      publisher: whose history and events are written.
      facts: gives where the run stands; called in the writer's thread.
      cursor: what is written already.

    Attributes:
      folder: the run's directory.
      lock: what keeps other processes from writing to it.
      problem: why nothing can be written now, in words; or empty.
      returned: called when it can be written again, in the writer's thread.
    """

    def __init__(
        self,
        folder: Path,
        lock: Lock | None,
        publisher: Publisher,
        facts: Callable[[], Mapping[str, Any]],
        cursor: Cursor,
    ):
        self.folder = folder
        self.lock = lock or Lock(folder / LOCK)
        self.problem = ""
        self.returned: Callable[[], None] = lambda: None
        self._publisher = publisher
        self._facts = facts
        self._cursor = cursor
        self._store: Store | None = None
        self._serial = Serial("toolshed: store")
        self._asked = False
        self._hurry = Latch()
        self._due = 0.0
        self._last_news = time.monotonic()
        self._finished = False
        self._told: set[str] = set()  # problems since it was written to last
        self._removed = False  # since then
        self._ends: Callable[[], None] = lambda: None

    def begin(self) -> None:
        """Takes the lock, makes the file, and writes from now on whenever something happens.

        Raises:
          RepositoryLockedError: another process writes there.
          OSError, sqlite3.Error: it cannot be written to.
        """
        self.lock.acquire()
        self._store = Store(self.folder / DATABASE)
        self._ends = self._publisher.listeners.add(self._heard)
        self.ask()

    def end(self) -> None:
        """Writes what is left, and lets others write."""
        self._ends()
        self.sync()
        self._close()
        self.lock.release()

    def finish(self) -> None:
        """Writes what is left, for the last time: the interpreter ends. What was removed stays so."""
        self._ends()
        if self.folder.is_dir():
            self.sync()
        self._finished = True
        self._close()

    def _heard(self, event: Event) -> None:
        del event
        self.ask()

    def ask(self) -> None:
        """Has what is new written soon. Returns at once."""
        self._last_news = time.monotonic()
        self._soon()

    def _soon(self) -> None:
        if not self._asked:
            self._asked = True
            with contextlib.suppress(RuntimeError):  # the interpreter is about to end
                self._serial.put(self._work)

    def sync(self) -> bool:
        """Writes what is new now, and waits for it; whether that succeeded."""
        self._hurry.set()
        try:
            return self._serial.put(self._attempt).wait()
        finally:
            self._hurry = Latch()

    def _work(self) -> None:
        self._hurry.wait(max(0.0, self._due - time.monotonic()))
        self._asked = False
        self._attempt()

    def _attempt(self) -> bool:
        """Writes what is new. Where that fails it is tried again."""
        if self._finished:
            return True
        try:
            self._write()
        except Exception as error:  # whatever it is, training goes on
            self._close()
            self._failed(error)
            if time.monotonic() - self._last_news < _GIVE_UP:
                self._soon()
            return False
        finally:
            self._due = time.monotonic() + EVERY
        if self.problem:
            self._recovered()
        return True

    def _recovered(self) -> None:
        words = f"{self.folder} is written to again; no value is missing in it."
        if self._removed:
            words += " Checkpoints that were removed are lost; a new one is made now."
        self.problem, self._removed = "", False
        self._told.clear()
        self._tell("note", words)
        self.returned()

    def _write(self) -> None:
        store = self._store
        if store is not None and not store.is_there():
            self._close()
            self._cursor, self._removed = Cursor(), True
            raise FileNotFoundError(2, "it was removed; it is made anew", str(self.folder))
        if store is None:
            self.folder.mkdir(parents=True, exist_ok=True)
            self.lock.acquire()
            store = self._store = Store(self.folder / DATABASE)
        publisher = self._publisher
        news = self._cursor.news(publisher.history, publisher.listeners.kept, self._facts())
        store.write(news)
        self._cursor.wrote(news)

    def _close(self) -> None:
        if self._store is not None:
            self._store.close()
            self._store = None

    def _failed(self, error: Exception) -> None:
        reason = error.strerror if isinstance(error, OSError) and error.strerror else one_line(error)
        self.problem = f"{self.folder} cannot be written: {reason.rstrip('.')}."
        if self.problem not in self._told:
            self._told.add(self.problem)
            self._tell("error", self.problem)
            warn_aloud(
                f"{self.problem} Training goes on, and what is missing is written later.", StoreWarning
            )

    def _tell(self, kind: str, text: str) -> None:
        publisher, facts = self._publisher, self._facts()
        publisher.event(kind, facts["step"], publisher.history.branch, text)
