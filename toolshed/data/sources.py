"""Sources of items: anything that can be iterated, and functions of a number."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Iterable, Iterator, Sized
from typing import Any

from toolshed.data.node import Length, Node, Position, Reader
from toolshed.errors import DataError


class IterableSource(Node):
    """The items of an iterable. A position is reached by skipping what is before it."""

    def __init__(self, iterable: Iterable[Any]):
        self._iterable = iterable

    def start(self, epoch: int) -> Position:
        return {"epoch": epoch, "index": 0}

    def read(self, at: Position) -> Reader:
        epoch, index = at["epoch"], at["index"]
        for number, item in enumerate(itertools.islice(iter(self._iterable), index, None), index + 1):
            yield item, {"epoch": epoch, "index": number}

    @property
    def length(self) -> Length:
        return len(self._iterable) if isinstance(self._iterable, Sized) else None

    @property
    def label(self) -> str:
        size = "" if self.length is None else f" of {self.length}"
        return f"from_iterable({type(self._iterable).__name__}{size})"


class OneShotSource(Node):
    """The items of an iterator, which can be taken once. Goes forwards only."""

    def __init__(self, iterator: Iterator[Any]):
        self._iterator = iterator
        self._taken = 0

    def start(self, epoch: int) -> Position:
        return {"epoch": epoch, "index": 0}

    def read(self, at: Position) -> Reader:
        index = at["index"]
        what = f"This {type(self._iterator).__name__} can be iterated only once"
        instead = "Pass something that can be iterated again, such as a list, or use from_function."
        if at["epoch"] > 0:
            raise DataError(f"{what}, and its {self._taken} items are used up. {instead}")
        if index < self._taken:
            raise DataError(
                f"{what}: it is after item {self._taken} and cannot go back to {index}. {instead}"
            )
        while self._taken < index:
            if next(self._iterator, self) is self:
                return
            self._taken += 1
        for item in self._iterator:
            self._taken += 1
            yield item, {"epoch": 0, "index": self._taken}

    @property
    def length(self) -> Length:
        return None

    @property
    def goes_back(self) -> bool:
        return False

    @property
    def label(self) -> str:
        return f"from_iterable({type(self._iterator).__name__})"


class FunctionSource(Node):
    """The values of a function at 0, 1, 2, ... Any position is reached at once."""

    def __init__(self, fn: Callable[[int], Any], length: int | None, label: str | None = None):
        self._fn = fn
        self._length = length
        self._label = label

    def start(self, epoch: int) -> Position:
        return {"epoch": epoch, "index": 0}

    def read(self, at: Position) -> Reader:
        epoch, index = at["epoch"], at["index"]
        while index < self.length:
            item = self._fn(index)
            index += 1
            yield item, {"epoch": epoch, "index": index}

    @property
    def length(self) -> int | float:
        return math.inf if self._length is None else self._length

    @property
    def label(self) -> str:
        return self._label or f"from_function({name_of(self._fn)}, length={self._length})"


def name_of(fn: Callable[..., Any]) -> str:
    """A function's name, or its type's where it has none. Not its module: a notebook's is no name."""
    return getattr(fn, "__name__", type(fn).__name__)
