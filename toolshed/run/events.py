"""Events: what happened to a run, as plain data, and who is told.

A run says what happens and does not know who listens: a dashboard, a terminal, a log. Listeners are
called on the run's publishing thread, so that none of them keeps a step waiting.
"""

from __future__ import annotations

import dataclasses
import math
import sys
import threading
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from toolshed.errors import ListenerWarning, ToolshedError

KINDS = (
    "status",
    "rows",
    "evaluated",
    "edited",
    "model_edited",
    "moved",
    "branched",
    "saved",
    "nonfinite",
    "autopsy",
    "interrupted",
    "error",
    "note",
)
_PASSING = ("status", "rows", "evaluated")  # told, not kept


@dataclasses.dataclass(frozen=True)
class Event:
    """One thing that happened.

    Attributes:
      kind: one of `KINDS`.
      step: number of steps done when it happened.
      branch: the name of the branch that the run was on.
      time: when, seconds since 1970, UTC.
      text: one plain line for people.
      data: the details, as JSON can hold them.
    """

    kind: str
    step: int
    branch: str
    time: float
    text: str
    data: dict[str, Any] = dataclasses.field(default_factory=dict)


Listener = Callable[[Event], None]


def one_line(error: BaseException) -> str:
    """What an error says, in one line; with its kind, unless it is one of toolshed's own sentences."""
    try:
        lines = str(error).strip().splitlines()
    except Exception:
        lines = []
    kind = type(error).__name__
    if not lines:
        return kind
    return lines[0] if isinstance(error, ToolshedError) else f"{kind}: {lines[0]}"


def plain(value: float) -> float | str:
    """A number as every reader of JSON takes it: in words where it is not finite."""
    return value if math.isfinite(value) else str(value)


class Listeners:
    """Who is told, and what was told.

    Attributes:
      kept: the events so far, without those that only say that something moved on.
    """

    def __init__(self) -> None:
        self.kept: tuple[Event, ...] = ()
        self._listeners: tuple[list[Listener], ...] = ()  # each in a list of its own, for one may come twice
        self._changing = threading.Lock()

    def add(self, listener: Listener) -> Callable[[], None]:
        """Has ``listener`` called with each event from now on; gives the function that ends it."""
        entry = [listener]
        with self._changing:
            self._listeners = (*self._listeners, entry)
        return lambda: self._remove(entry)

    def _remove(self, entry: list[Listener]) -> None:
        with self._changing:
            self._listeners = tuple(other for other in self._listeners if other is not entry)

    def keep(self, event: Event) -> None:
        """Writes an event down."""
        if event.kind not in _PASSING:
            with self._changing:
                self.kept = (*self.kept, event)

    def tell(self, event: Event) -> None:
        """Calls each listener. One that fails is shown once and told nothing more."""
        for entry in self._listeners:
            try:
                entry[0](event)
            except BaseException as error:  # not the affair of those who are told next
                self._remove(entry)
                warn_of(error, "A listener of a run failed and is not called any more.")


def warn_of(error: BaseException, what: str) -> None:
    """Warns of a listener's or a view's failure, also where a filter makes errors of warnings."""
    where = "".join(traceback.format_exception(error)).rstrip()
    line = error.__traceback__.tb_lineno if error.__traceback__ is not None else 1
    warn_aloud(f"{what} Training goes on.\n{where}", ListenerWarning, line)


def warn_aloud(text: str, category: type[Warning], line: int = 1) -> None:
    """Warns from any thread; the text is printed where a filter makes errors of warnings."""
    try:
        warnings.warn_explicit(text, category, __file__, line)
    except category:
        print(text, file=sys.stderr)
