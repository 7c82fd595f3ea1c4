"""How often `Trainer.fit` looks up from its steps."""

from __future__ import annotations

import time

from toolshed.training.stepper import at_once

_FIRST_LOOK = 0.02  # seconds
_LOOK_EVERY = 0.5  # seconds between two looks at the losses that came in


class Pace:
    """When to look at the losses, and how many steps to make in a call."""

    def __init__(self) -> None:
        self.at_once = 1
        self._steps, self._since = 0, time.monotonic()
        self._wait = _FIRST_LOOK

    def is_time_to_look(self, steps: int, most: int) -> bool:
        """Whether it is, ``steps`` after it was asked last. A call makes ``most`` at the most."""
        self._steps += steps
        now = time.monotonic()
        if now - self._since < self._wait:
            return False
        self.at_once = at_once(most, self._steps, now - self._since)
        self._steps, self._since = 0, now
        self._wait = min(2 * self._wait, _LOOK_EVERY)
        return True
