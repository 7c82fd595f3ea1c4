"""The time that training takes, and what is due when."""

from __future__ import annotations

import time
from typing import Any

from toolshed.run.feed import examples_in
from toolshed.run.publisher import Pace
from toolshed.training.stepper import at_once

_FLUSH_EVERY = 0.1  # seconds between two times that rows are handed over
_SNAPSHOT_EVERY = 1.0  # seconds between two snapshots, where no number of steps was given
_SNAPSHOT_WAIT = 10.0  # seconds between two snapshots at the most


class Clock:
    """Runs while training does. Belongs to the run's thread.

    Args:
      step: number of steps done.

    Attributes:
      elapsed: seconds of training.
      counted: number of steps done when it was looked at last.
      together: how many steps can be made in one call and still be waited for.
    """

    def __init__(self, step: int):
        self.elapsed = 0.0
        self.counted = step
        self.together = 1
        self._examples = 0
        self._looked = self._next_flush = self._next_snapshot = 0.0

    def start(self, step: int) -> Pace:
        """Starts it, at a step."""
        self._looked = self._next_flush = time.monotonic()
        self._next_snapshot = self._looked + _SNAPSHOT_EVERY
        self.counted = step
        return Pace(step, self._examples, self.elapsed)

    def rings(self) -> bool:
        """Whether it is time to look."""
        return time.monotonic() >= self._next_flush

    def look(self, step: int, batch: Any, most: int) -> Pace:
        """How far training is.

        Args:
          step: number of steps done.
          batch: the last one, which tells how many examples there are in a step.
          most: how many steps a call could make.
        """
        now = time.monotonic()
        self._next_flush = now + _FLUSH_EVERY
        seconds, steps = now - self._looked, step - self.counted
        self.together = at_once(most, steps, seconds) if steps else self.together
        self.elapsed += seconds
        self._examples += steps * examples_in(batch)
        self._looked, self.counted = now, step
        return Pace(step, self._examples, self.elapsed)

    def leave_out(self, start: float) -> None:
        """Does not count the time since ``start``, in seconds of `time.monotonic`: no step was made in it."""
        self._looked += time.monotonic() - start

    def wants_snapshot(self) -> bool:
        """Whether a snapshot is due."""
        return time.monotonic() >= self._next_snapshot

    def snapshot_took(self, seconds: float) -> None:
        """Has the next snapshot wait until the copying has taken a hundredth of the time."""
        wait = min(max(_SNAPSHOT_EVERY, 100 * seconds), _SNAPSHOT_WAIT)
        self._next_snapshot = time.monotonic() - seconds + wait
