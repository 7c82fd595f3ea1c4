"""Events: what happened to a run, as plain data, and who is told.

A run says what happens and does not know who listens: a dashboard, a terminal, a log. Listeners are
called on the run's publishing thread, so that none of them keeps a step waiting.
"""

from __future__ import annotations

import dataclasses
import traceback
import warnings
from collections.abc import Callable
from typing import Any

from toolshed.errors import ListenerWarning

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


class Listeners:
    """Who is told, and what was told.

    Attributes:
      kept: the events so far, without those that only say that something moved on.
    """

    def __init__(self) -> None:
        self.kept: tuple[Event, ...] = ()
        self._listeners: tuple[Listener, ...] = ()

    def add(self, listener: Listener) -> Callable[[], None]:
        """Has ``listener`` called with each event from now on; gives the function that ends it."""
        self._listeners = (*self._listeners, listener)
        return lambda: self._remove(listener)

    def _remove(self, listener: Listener) -> None:
        self._listeners = tuple(other for other in self._listeners if other is not listener)

    def keep(self, event: Event) -> None:
        """Writes an event down."""
        if event.kind not in _PASSING:
            self.kept = (*self.kept, event)

    def tell(self, event: Event) -> None:
        """Calls each listener. One that fails is shown once and told nothing more."""
        for listener in self._listeners:
            try:
                listener(event)
            except Exception as error:
                self._remove(listener)
                where = "".join(traceback.format_exception(error)).rstrip()
                with warnings.catch_warnings():
                    warnings.simplefilter("always")  # a filter that raises must not reach the run
                    warnings.warn(
                        f"A listener of a run failed and is not called any more. Training goes on.\n{where}",
                        ListenerWarning,
                        stacklevel=2,
                    )
