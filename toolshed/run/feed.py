"""The batches of a run: one after another, for ever, from a position that can be gone back to."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import jax
import numpy as np

from toolshed.data import Stream, stream
from toolshed.errors import DataError
from toolshed.training.lookahead import Lookahead


class Feed:
    """Gives batch after batch, epoch after epoch.

    A stream that can go back is read from where it is, with a position of the feed's own. One that cannot
    belongs to the feed from then on.

    Args:
      data: a stream, a loader, a list or another iterable of batches.
    """

    def __init__(self, data: Any):
        if not isinstance(data, Stream):
            data = stream(data)
        self._stream: Stream = data.copy() if data.goes_back else data
        self._reader: Iterator[Any] | None = None
        self._ahead = Lookahead(self._read)

    @property
    def length(self) -> int | None:
        """Batches in an epoch, where that is known."""
        try:
            return len(self._stream)
        except TypeError:
            return None

    def take(self) -> Any:
        """The next batch.

        Raises:
          DataError: there is none, and iterating again gives none either.
        """
        return self.take_some(1)[0]

    def take_some(self, most: int) -> list[Any]:
        """The next batch, and up to ``most`` with those behind it that can be stepped on together with it.

        Raises as `take` does. An error behind the first is raised when it is the next.
        """
        return self._ahead.take(most)

    def _read(self) -> tuple[Any, Any]:
        mark = self._stream.mark()
        for _ in range(2):  # the end of an epoch, and the beginning of the next
            if self._reader is None:
                self._reader = iter(self._stream)
            for batch in self._reader:
                return batch, mark
            self._reader = None
        raise DataError(
            "The data gave no batch. If it is a generator, it is used up: pass something that can be"
            " iterated again, such as toolshed.data.from_arrays or a list."
        )

    def give_back(self) -> None:
        """Puts back what was taken last, for its steps were not done."""
        self._ahead.give_back()

    @property
    def position(self) -> Any:
        """Where the next batch is; one that was given back is the next."""
        return self._stream.state(self._ahead.place)

    @property
    def goes_back(self) -> bool:
        """Whether `restore` can go to an earlier position."""
        return self._stream.goes_back

    def check_goes_back(self) -> None:
        """Checks whether `restore` can be called.

        Raises:
          DataError: the data can be read only forwards.
        """
        if not self.goes_back:
            raise DataError(
                f"This run's data can be read only forwards: {self._stream!r}. To go back, or to look at a"
                " step again, give it data that can be iterated again: a list, toolshed.data.from_arrays or"
                " from_function."
            )

    def restore(self, position: Any) -> None:
        """Goes to a position."""
        self._reader = None
        self._ahead.clear()
        self._stream.restore(position)


def examples_in(batch: Any) -> int:
    """Entries along the first axis of a batch; reads no value."""
    for leaf in jax.tree.leaves(batch):
        shape = np.shape(leaf)
        if shape:
            return shape[0]
    return 1
