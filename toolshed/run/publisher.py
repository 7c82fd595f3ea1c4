"""Publishing: what the training thread hands over is read, written down and told in another thread.

The training thread gives device arrays and goes on. One thread waits for them and writes the history;
another one tells the listeners, so that one of them may wait for the run while the run waits for values.
"""

from __future__ import annotations

import collections
import time
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from toolshed.run.events import Event, Listeners, one_line, plain
from toolshed.run.history import History
from toolshed.run.recording import Recording
from toolshed.run.serial import Serial
from toolshed.training.tape import Rows, read_block

OWN_NAMES = ("speed/steps_per_second", "speed/examples_per_second", "memory/device_bytes")

_SPEED_EVERY = 1.0  # seconds between two speeds in the history
_SPEED_OVER = 5.0  # seconds that a speed is the mean of
_MOST_REASONS = 20  # different reasons, told, for which values were not written
_MANY = 16  # jobs that are waiting, from which on training had better wait for them
_MOST_TOLD = (
    1000  # events that are waiting, from which on those that only say that there is news are left out
)
_MOMENT = 0.002  # seconds
_NEWS = ("rows", "evaluated")


class Pace(NamedTuple):
    """How far training is, for its speed.

    Attributes:
      step: number of steps done.
      examples: number of examples seen.
      elapsed: seconds of training.
    """

    step: int
    examples: int
    elapsed: float


class Publisher:
    """Writes the history and tells the listeners, each in a thread of its own, and in order.

    Attributes:
      history: the values so far.
      listeners: who is told, and the events that are kept.
      lost: called with what the device raised, where rows cannot be read.
      steps_per_second: the newest speed, or None.
      examples_per_second: likewise.
      device_bytes: memory in use on the device, or None.
      device_limit: memory that can be used on it, or None.
    """

    def __init__(self) -> None:
        self.history = History()
        self.listeners = Listeners()
        self.lost: Callable[[Exception], None] = lambda error: None
        self.steps_per_second: float | None = None
        self.examples_per_second: float | None = None
        self.device_bytes: int | None = None
        self.device_limit: int | None = None
        self._writing = Serial("toolshed: values")
        self._telling = Serial("toolshed: events")
        self._refused: set[str] = set()
        self._paces: collections.deque[Pace] = collections.deque()
        self._begun = False  # whether the first of them is from before the first step of a training
        self._written = 0.0  # seconds of training when a speed was written last

    def event(self, kind: str, step: int, branch: str, text: str, **data: Any) -> None:
        """Something happened."""
        event = Event(kind, step, branch, time.time(), text, data)
        self.listeners.keep(event)
        self._writing.put(lambda: self._tell(event))  # after what was handed over before it

    def _tell(self, event: Event) -> None:
        if event.kind not in _NEWS or self._telling.waiting < _MOST_TOLD:
            self._telling.put(lambda: self.listeners.tell(event))

    def let_catch_up(self) -> None:
        """Waits for a moment where whoever gives values is far ahead of what is written. Never for long."""
        if self._writing.waiting > _MOST_TOLD and not self._writing.is_here():
            time.sleep(_MOMENT)

    @property
    def is_behind(self) -> bool:
        """Whether so much waits to be written that more would only fill memory."""
        return self._writing.waiting > _MANY

    def rows(
        self, blocks: list[jax.Array], recording: Recording, found: Callable[[int, float], None]
    ) -> None:
        """Blocks of a tape, in order; ``found(step, loss)`` is told of the first loss that is not finite."""
        self._writing.put(lambda: self._write_rows(blocks, recording, found))

    def _write_rows(
        self, blocks: list[jax.Array], recording: Recording, found: Callable[[int, float], None]
    ) -> None:
        try:
            read = [read_block(block) for block in blocks]
        except Exception as error:  # the device failed in a step that wrote to one of them
            self.lost(error)
            return
        for rows in read:
            if not len(rows.steps):
                continue
            first, last = int(rows.steps[0]) + 1, int(rows.steps[-1]) + 1
            try:
                self._write(rows, recording, found)
            except Exception as error:
                self._refuse(last, one_line(error))
            self._tell_rows(first, last)

    def missing_rows(self, rows: Rows, recording: Recording, found: Callable[[int, float], None]) -> None:
        """Writes those rows of steps made again that the current branch does not have. Waits."""
        self.finish()
        new = rows.steps >= self.last_step(self.history.branch)
        self._writing.put(lambda: self._write(Rows(rows.steps[new], rows.values[new]), recording, found))
        self.finish()

    def last_step(self, branch: str) -> int:
        """The last step of a branch's own with a loss, or 0."""
        if "train/loss" not in self.history.names:
            return 0
        steps = self.history.series("train/loss", branch, own=True).steps
        return int(steps[-1]) if len(steps) else 0

    def _write(self, rows: Rows, recording: Recording, found: Callable[[int, float], None]) -> None:
        for name, steps, values in recording.columns(rows):
            if len(steps):
                self.history.append(name, steps, values)
        bad = np.flatnonzero(~np.isfinite(rows.values[:, 0]))
        if len(bad):
            found(int(rows.steps[bad[0]]) + 1, float(rows.values[bad[0], 0]))

    def _tell_rows(self, first: int, last: int) -> None:
        text = f"values of steps {first:,} to {last:,}"
        data = {"from": first, "to": last}
        self._tell(Event("rows", last, self.history.branch, time.time(), text, data))

    def values(self, step: int, compute: Callable[[], Mapping[str, Any]], kind: str | None = None) -> None:
        """Values by name that ``compute`` gives; it is called here, and may wait for the device.

        With a ``kind`` they are an event, too. Values that are no numbers are left out. What cannot be
        computed or written is told in a note, once for each reason.
        """

        def write() -> None:
            try:
                values = compute()
            except Exception as error:
                self._refuse(step, one_line(error))
            else:
                self._write_values(step, values, kind)

        self._writing.put(write)

    def _write_values(self, step: int, values: Mapping[str, Any], kind: str | None) -> None:
        numbers = {}
        for name, value in values.items():
            if np.ndim(value) == 0:
                try:
                    numbers[name] = float(value)
                    self.history.append(name, [step], [numbers[name]])
                except Exception as error:
                    self._refuse(step, one_line(error))
        if kind is not None:
            words = ", ".join(f"{name} {value:.4g}" for name, value in numbers.items())
            finite = {name: plain(value) for name, value in numbers.items()}
            event = Event(kind, step, self.history.branch, time.time(), words, {"values": finite})
            self.listeners.keep(event)
            self._tell(event)

    def _refuse(self, step: int, reason: str) -> None:
        if reason not in self._refused and len(self._refused) < _MOST_REASONS:
            self._refused.add(reason)
            self.event("note", step, self.history.branch, f"A value was not written down. {reason}")

    def pace(self, pace: Pace) -> None:
        """How far training is now; the speed is that of the last few seconds."""
        if self._paces and pace.step < self._paces[-1].step:
            self._paces.clear()
        self._paces.append(pace)
        if self._begun and len(self._paces) > 2 and pace.step > self._paces[1].step:
            self._paces.popleft()
            self._begun = False
        while len(self._paces) > 2 and pace.elapsed - self._paces[0].elapsed > _SPEED_OVER:
            self._paces.popleft()
        first = self._paces[0]
        seconds = pace.elapsed - first.elapsed
        if seconds <= 0:
            return
        self.steps_per_second = (pace.step - first.step) / seconds
        self.examples_per_second = (pace.examples - first.examples) / seconds
        if pace.elapsed - self._written >= _SPEED_EVERY and pace.step > first.step:
            self._written = pace.elapsed
            self._write_speed(pace.step)

    def begin(self, pace: Pace) -> None:
        """Training begins. Until more is known its speed is the mean since then, compiling included."""
        self._paces.clear()
        self._paces.append(pace)
        self._begun = True

    def _write_speed(self, step: int) -> None:
        speeds = {
            "speed/steps_per_second": self.steps_per_second,
            "speed/examples_per_second": self.examples_per_second,
        }
        self._read_memory()
        if self.device_bytes is not None:
            speeds["memory/device_bytes"] = self.device_bytes
        self.values(step, lambda: speeds)

    def _read_memory(self) -> None:
        stats = jax.local_devices()[0].memory_stats() or {}
        self.device_bytes = stats.get("bytes_in_use")
        self.device_limit = stats.get("bytes_limit")

    def later(self, write: Callable[[], None]) -> None:
        """``write()`` after what was handed over before it; it may wait for the device."""

        def attempt() -> None:
            try:
                write()
            except Exception as error:
                self._refuse(0, one_line(error))

        self._writing.put(attempt)

    def begin_branch(self, name: str, at: int) -> None:
        """The values from here on belong to a new branch."""
        self._writing.put(lambda: self.history.begin_branch(name, at=at))

    def switch(self, branch: str) -> None:
        """The values from here on belong to a branch that there is."""
        self._writing.put(lambda: self.history.switch(branch))

    def finish(self, *, told: bool = False) -> None:
        """Waits until all that was handed over is written down; with ``told``, and told.

        What listeners do meanwhile is not waited for: one may itself be waiting for the run.
        """
        if self._writing.is_here():
            return
        self._writing.put(lambda: None).done.wait()
        if told and not self._telling.is_here():
            self._telling.put(lambda: None).done.wait()
