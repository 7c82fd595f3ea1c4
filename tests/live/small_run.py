"""A run that trains nothing: all that a view reads of a run, moved by the test."""

from __future__ import annotations

import dataclasses
import time
from collections.abc import Callable
from typing import Any, NamedTuple

from toolshed.run import History


class Event(NamedTuple):
    """As `toolshed.run` publishes them."""

    kind: str
    step: int
    branch: str
    time: float
    text: str
    data: dict[str, Any]


@dataclasses.dataclass(frozen=True)
class Progress:
    """As `toolshed.run` gives it."""

    status: str = "training"
    message: str = ""
    step: int = 0
    goal: int | None = None
    epoch: float | None = None
    elapsed: float = 0.0
    remaining: float | None = None
    steps_per_second: float | None = None
    examples_per_second: float | None = None
    device_bytes: int | None = None
    device_limit: int | None = None
    branch: str = "main"
    snapshot_bytes: int = 0
    snapshot_budget: int = 0


class SmallRun:
    """The members of a run that a view may use, and no others."""

    def __init__(self, name: str = "small", **progress: Any):
        self.name = name
        self.progress = Progress(**progress)
        self.history = History()
        self.events: tuple[Event, ...] = ()
        self.listeners: list[Callable[[Event], None]] = []

    @property
    def status(self) -> str:
        return self.progress.status

    def subscribe(self, listener: Callable[[Event], None]) -> Callable[[], None]:
        self.listeners.append(listener)
        return lambda: self.listeners.remove(listener)

    # --- what the test does ---

    def log(self, name: str, steps: Any, values: Any) -> None:
        self.history.append(name, steps, values)
        self.publish("rows", "", keep=False)

    def move(self, **progress: Any) -> None:
        self.progress = dataclasses.replace(self.progress, **progress)
        self.publish("status", "", keep=False)

    def publish(self, kind: str, text: str, *, step: int | None = None, keep: bool = True) -> None:
        step = self.progress.step if step is None else step
        event = Event(kind, step, self.history.branch, time.time(), text, {})
        if keep:
            self.events = (*self.events, event)
        for listener in tuple(self.listeners):
            listener(event)
