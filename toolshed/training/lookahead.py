"""Batches read ahead of their steps: as many as can be stepped on in one call."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from toolshed.training.stepper import kind_of


class Lookahead:
    """What a source gives, in groups. Nothing that was read is lost when the source or a step fails.

    Args:
      read: gives the next batch and where it was, or raises; StopIteration at the end.
    """

    def __init__(self, read: Callable[[], tuple[Any, Any]]):
        self._read = read
        self._held: list[tuple[Any, Any]] = []  # read already, and next
        self._last: list[tuple[Any, Any]] = []  # what was taken last
        self._failed: BaseException | None = None  # what came behind the last one that could be read

    def take(self, most: int) -> list[Any]:
        """The next batch, and up to ``most`` with those behind it that are of its kind.

        Raises whatever reading the next one does. An error behind it is raised when it is the next.
        """
        self._last = [self._next()]
        kind = kind_of(self._last[0][0]) if most > 1 else None
        try:
            while kind is not None and len(self._last) < most:
                following = self._next()
                if kind_of(following[0]) != kind:
                    self._held.insert(0, following)
                    break
                self._last.append(following)
        except BaseException as error:
            self._failed = error
        return [batch for batch, _ in self._last]

    def give_back(self) -> None:
        """Puts back what was taken last, for its steps were not made."""
        self._held, self._last = self._last + self._held, []

    def clear(self) -> None:
        """Forgets what was read."""
        self._held, self._last, self._failed = [], [], None

    @property
    def place(self) -> Any:
        """Where the next batch was, if it was read already, or None."""
        return self._held[0][1] if self._held else None

    def _next(self) -> tuple[Any, Any]:
        if self._held:
            return self._held.pop(0)
        if self._failed is not None:
            failed, self._failed = self._failed, None
            raise failed
        return self._read()
