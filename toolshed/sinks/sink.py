"""What a sink is."""

from __future__ import annotations

from typing import Protocol

from toolshed.store import News


class Sink(Protocol):
    """Something that is told what is new in a run, in a thread of its own.

    What it raises ends it: the run says so and goes on.
    """

    def open(self, name: str) -> None:
        """Begins.

        Args:
          name: of the run.
        """

    def write(self, news: News) -> None:
        """Takes what came since the last time; each value comes once."""

    def close(self) -> None:
        """Ends: nothing more comes."""
