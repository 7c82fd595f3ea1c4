"""Trouble: failures of a view, which are said once and never reach the run."""

from __future__ import annotations

import contextlib
import warnings

from toolshed.errors import ViewWarning
from toolshed.live.scene import clip

TRIES = 3
"""Failures in a row after which a view stops."""


class Trouble:
    """What went wrong in a view.

    Args:
      view: what the view is called in its messages.

    Attributes:
      text: the last failure in words; empty where there was none.
    """

    def __init__(self, view: str):
        self._view = view
        self._failures = 0
        self.text = ""

    @property
    def stopped(self) -> bool:
        """Whether it failed so often in a row that the view has stopped."""
        return self._failures >= TRIES

    def over(self) -> None:
        """Something worked again."""
        self._failures = 0

    def report(self, error: Exception) -> None:
        """Takes a failure; gives one warning, at the first."""
        first = not self.text
        self._failures += 1
        what = clip(f"{type(error).__name__}: {error}")
        self.text = (
            f"{self._view} has stopped, after {what}. The run is not touched."
            if self.stopped
            else f"{self._view} failed once, with {what}. The run goes on."
        )
        if first:
            with contextlib.suppress(ViewWarning):  # where warnings are errors: nobody could catch it here
                warnings.warn(self.text, ViewWarning, stacklevel=3)
