"""Node: what a stream is made of, a source or a transform without a position of its own.

A node is a pure description. It can be read from any position, and says after each item which position
follows, so that one number or two in a small dict are enough to go on exactly there. A transform holds
its source's position inside its own.

Where a reader is abandoned its generator is closed, and with it those that it reads from, down to the
thread of a prefetch.
"""

from __future__ import annotations

import abc
import dataclasses
from collections.abc import Generator
from typing import Any

import numpy as np

from toolshed.errors import DataError

Position = Any
"""Dicts and lists of whole numbers, strings and None: what JSON can hold. Never changed in place."""

Length = int | float | None
"""Items in an epoch: a number, ``math.inf`` where there is no end, None where nobody knows before."""

Reader = Generator[tuple[Any, Position], None, None]
"""Items, each with the position after it."""

# What a random number is drawn for. Without it an order and a choice of one seed would be alike.
SHUFFLE, INTERLEAVE, MAP, GROUPS = 1, 2, 3, 4


class Node(abc.ABC):
    """A source or a transform."""

    @property
    def sources(self) -> tuple[Node, ...]:
        """The nodes that this one reads from."""
        return ()

    @abc.abstractmethod
    def start(self, epoch: int) -> Position:
        """The position before the first item of an epoch."""

    @abc.abstractmethod
    def read(self, at: Position) -> Reader:
        """The items from a position to the end of its epoch, each with the position after it."""

    @property
    @abc.abstractmethod
    def length(self) -> Length:
        """Items in an epoch."""

    @property
    @abc.abstractmethod
    def label(self) -> str:
        """This node in one line, as it was written."""

    @property
    def goes_back(self) -> bool:
        """Whether a position can be read from again."""
        return all(source.goes_back for source in self.sources)

    @property
    def identity(self) -> str:
        """The label, and what else tells a position here from one in another stream."""
        return self.label

    def in_order(self) -> Node:
        """This node over sources in order: nothing shuffled, repeated or left out for an order's sake."""
        return self

    def labels(self) -> list[str]:
        """The labels of all nodes from the first source to this one."""
        return [*(self.sources[0].labels() if self.sources else ()), self.label]

    def chain(self) -> list[str]:
        """The identities of all nodes from the first source to this one; of those that have one."""
        return [*(self.sources[0].chain() if self.sources else ()), *filter(None, [self.identity])]


@dataclasses.dataclass(frozen=True)
class Transform(Node):
    """A node over one source. Its positions, unless a subclass says otherwise, are the source's.

    Attributes:
      source: what is transformed.
    """

    source: Node

    @property
    def sources(self) -> tuple[Node, ...]:
        return (self.source,)

    def start(self, epoch: int) -> Position:
        return self.source.start(epoch)

    @property
    def length(self) -> Length:
        return self.source.length

    def in_order(self) -> Node:
        return dataclasses.replace(self, source=self.source.in_order())


def generator(purpose: int, seed: int, *numbers: int) -> np.random.Generator:
    """Random numbers of a seed, a purpose and counters: the same wherever and whenever they are drawn."""
    return np.random.Generator(np.random.PCG64(np.random.SeedSequence((purpose, seed, *numbers))))


def whole(name: str, value: Any, least: int) -> int:
    """``value`` as an int.

    Raises:
      DataError: it is no whole number, or less than ``least``.
    """
    if isinstance(value, bool) or not isinstance(value, (int, np.integer)) or value < least:
        raise DataError(f"{name} is {value!r}; expected a whole number from {least}.")
    return int(value)


def choice(name: str, value: Any, options: tuple[str, ...]) -> str:
    """``value``, if it is one of some words.

    Raises:
      DataError: it is none of them.
    """
    if value not in options:
        listed = ", ".join(map(repr, options[:-1]))
        raise DataError(f"{name} is {value!r}; expected {listed} or {options[-1]!r}.")
    return value
