"""SavedRun: a run as it lies on the disk, to be looked at. It is read, and nothing else."""

from __future__ import annotations

import datetime
import os
import socket
from collections.abc import Iterable, Mapping
from typing import Any

import numpy as np

from toolshed.checkpoints import Repository
from toolshed.errors import HistoryError, StoreError
from toolshed.run.events import Event
from toolshed.run.history import History
from toolshed.store.folders import CHECKPOINTS, DATABASE, check_root
from toolshed.store.reading import Content, read
from toolshed.store.records import Block, Line, Record
from toolshed.views import Mark

BUSY = ("training", "pausing", "evaluating")


class SavedRun:
    """A run on the disk: its values, events, configuration and checkpoints.

    It may be one that another process trains at this moment: `history` is what there was when it was read,
    and `refresh` reads it again. To go on with a run, `toolshed.attach` it.

    Args:
      folder: the run's directory.

    Raises:
      StoreError: it is none.
    """

    def __init__(self, folder: str | os.PathLike[str]):
        self.folder = check_root(folder)
        self._file = self.folder / DATABASE
        if not self._file.is_file():
            raise StoreError(f"{self.folder} is no directory of a run: it has no {DATABASE}.")
        self._content: Content | None = None
        self._history: History | None = None
        self.facts = read(self._file, values=False).facts

    def refresh(self) -> None:
        """Has everything read again when it is next asked for."""
        self._content = self._history = None
        self.facts = read(self._file, values=False).facts

    @property
    def name(self) -> str:
        """What the run is called."""
        return str(self.facts.get("name", self.folder.name))

    @property
    def status(self) -> str:
        """As `Run.status`; ``"killed"`` where its process ended while it trained."""
        status = str(self.facts.get("status", "ready"))
        return "killed" if status in BUSY and not self._is_alive() else status

    def _is_alive(self) -> bool:
        """Whether the process that wrote last may still be there; of another machine nobody knows."""
        pid = self.facts.get("pid")
        if self.facts.get("host") != socket.gethostname() or not isinstance(pid, int) or pid < 1:
            return True
        try:
            os.kill(pid, 0)
        except ProcessLookupError:
            return False
        except OSError:
            pass
        return True

    @property
    def step(self) -> int:
        """Number of steps done."""
        step = self.facts.get("step", 0)
        return step if isinstance(step, int) else 0

    @property
    def created(self) -> datetime.datetime | None:
        """When the run began, in UTC."""
        return _time(self.facts.get("created"))

    @property
    def seen(self) -> datetime.datetime | None:
        """When something was written last, in UTC."""
        return _time(self.facts.get("seen"))

    @property
    def config(self) -> dict[str, Any]:
        """How it was made: optimiser, model, data, options."""
        return _dict(self.facts.get("config"))

    @property
    def given(self) -> dict[str, Any]:
        """What was given as ``config``."""
        return _dict(self.config.get("config"))

    @property
    def code(self) -> dict[str, Any]:
        """The git commit of the directory it was started in, and whether files differed from it."""
        return _dict(self.facts.get("code"))

    @property
    def environment(self) -> dict[str, Any]:
        """Versions and devices that it was started with."""
        return _dict(self.facts.get("environment"))

    @property
    def history(self) -> History:
        """All values."""
        if self._history is None:
            self._history = history_of(self._read())
        return self._history

    @property
    def events(self) -> tuple[Event, ...]:
        """What happened."""
        return events_of(self._read().events)

    @property
    def checkpoints(self) -> Repository:
        """The run's checkpoints."""
        return Repository(self.folder / CHECKPOINTS)

    def _read(self) -> Content:
        if self._content is None:
            self._content = read(self._file)
        return self._content

    def plot(self, names: Iterable[str] | None = None, **options: Any) -> Any:
        """The values as a matplotlib Figure; as `History.plot`, with what happened as marks."""
        marks = [
            Mark(event.step, event.kind, event.text) for event in self.events if event.kind != "branched"
        ]
        return self.history.plot(names, **{"marks": marks, **options})

    def __repr__(self) -> str:
        return f"SavedRun({self.folder.name!r}: {self.status}, step {self.step:,})"


def history_of(content: Content, *, branch: str | None = None, until: int = 0) -> History:
    """The values that were read, as a history.

    Args:
      content: what was read.
      branch: the branch that is cut, and becomes the current one; None for all as it was.
      until: the last step that it keeps.

    Raises:
      StoreError: the values do not fit each other.
    """
    history = History()
    parts: dict[tuple[str, str], list[Block]] = {}
    for block in content.blocks:
        parts.setdefault((block.name, block.branch), []).append(block)
    try:
        _begin_branches(history, content.lines)
        for name, on in sorted(parts, key=_order_of(content.facts.get("names"))):
            steps = np.concatenate([block.steps for block in parts[name, on]])
            values = np.concatenate([block.values for block in parts[name, on]])
            stop = int(np.searchsorted(steps, until, "right")) if on == branch else len(steps)
            history.switch(on)
            history.append(name, steps[:stop], values[:stop])
        history.switch(str(content.facts.get("branch", "main")) if branch is None else branch)
    except HistoryError as error:
        raise StoreError(f"The values of this run do not fit each other: {error}") from error
    return history


def _begin_branches(history: History, lines: Iterable[Line]) -> None:
    for line in lines:
        if line.parent is not None:
            history.switch(line.parent)
            history.begin_branch(line.name, at=line.start)


def _order_of(names: Any) -> Any:
    """Names in the order in which they appeared first."""
    known = {name: place for place, name in enumerate(names)} if isinstance(names, list) else {}
    return lambda part: (known.get(part[0], len(known)), part)


def events_of(records: Iterable[Record]) -> tuple[Event, ...]:
    """What was read, as events."""
    return tuple(Event(*record[:5], dict(record.data)) for record in records)


def _dict(value: Any) -> dict[str, Any]:
    return dict(value) if isinstance(value, Mapping) else {}


def _time(value: Any) -> datetime.datetime | None:
    try:
        return datetime.datetime.fromtimestamp(value, datetime.UTC)
    except (TypeError, ValueError, OverflowError, OSError):
        return None
