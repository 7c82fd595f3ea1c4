"""Several sources as one: one after another, side by side, or in turn."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections.abc import Iterator

import numpy as np

from toolshed.data.node import INTERLEAVE, Length, Node, Position, Reader, generator, whole
from toolshed.errors import DataError

_DRAWN_AT_ONCE = 256


@dataclasses.dataclass(frozen=True)
class Combination(Node):
    """A node over several sources.

    Attributes:
      parts: the sources, at least one.
    """

    parts: tuple[Node, ...]

    @property
    def sources(self) -> tuple[Node, ...]:
        return self.parts

    def in_order(self) -> Node:
        return dataclasses.replace(self, parts=tuple(part.in_order() for part in self.parts))

    def _others(self, identity: bool) -> str:
        chains = (part.chain() if identity else part.labels() for part in self.parts[1:])
        return ", ".join(map(" | ".join, chains))

    @property
    def label(self) -> str:
        return self._written(self._others(identity=False))

    @property
    def identity(self) -> str:
        return self._written(self._others(identity=True))

    def _written(self, others: str) -> str:
        return f"{type(self).__name__.lower()}({others})"


class Concat(Combination):
    """One source after another; see `Stream.concat`. A part that has ended has no position any more."""

    def start(self, epoch: int) -> Position:
        return [part.start(epoch) for part in self.parts]

    def read(self, at: Position) -> Reader:
        here = list(at)
        for number, part in enumerate(self.parts):
            if here[number] is None:
                continue
            for item, after in part.read(here[number]):
                here[number] = after
                yield item, list(here)
            here[number] = None

    @property
    def length(self) -> Length:
        return _sum([part.length for part in self.parts])


class Zip(Combination):
    """Items side by side; see `Stream.zip`."""

    def in_order(self) -> Node:
        return self  # other orders would make other pairs

    def start(self, epoch: int) -> Position:
        return [part.start(epoch) for part in self.parts]

    def read(self, at: Position) -> Reader:
        readers = [part.read(here) for part, here in zip(self.parts, at, strict=True)]
        for pairs in zip(*readers, strict=False):
            yield tuple(item for item, _ in pairs), [after for _, after in pairs]

    @property
    def length(self) -> Length:
        lengths = [part.length for part in self.parts]
        return None if None in lengths else min(length for length in lengths if length is not None)


@dataclasses.dataclass(frozen=True)
class Interleave(Combination):
    """Items in turn; see `Stream.interleave`."""

    weights: tuple[float, ...] | None
    seed: int

    def __post_init__(self):
        whole("seed", self.seed, 0)
        if self.weights is None:
            return
        if len(self.weights) != len(self.parts):
            raise DataError(f"There are {len(self.weights)} weights for {len(self.parts)} streams.")
        if not all(math.isfinite(weight) and weight > 0 for weight in self.weights):
            raise DataError(f"The weights are {list(self.weights)}; expected finite numbers above 0.")

    def start(self, epoch: int) -> Position:
        return {"epoch": epoch, "turn": 0, "at": [part.start(epoch) for part in self.parts]}

    def read(self, at: Position) -> Reader:
        epoch, turn, here = at["epoch"], at["turn"], list(at["at"])
        readers = {
            number: part.read(here[number])
            for number, part in enumerate(self.parts)
            if here[number] is not None
        }
        draws = self._draws(epoch, turn)
        while readers:
            number = self._chosen(list(readers), next(draws))
            turn += 1
            if number not in readers:
                continue
            pair = next(readers[number], None)
            if pair is None:
                del readers[number]
                here[number] = None
                continue
            item, here[number] = pair
            yield item, {"epoch": epoch, "turn": turn, "at": list(here)}

    def _draws(self, epoch: int, turn: int) -> Iterator[float]:
        """A number from 0 to 1 for each turn from ``turn`` on; without weights the turn itself."""
        if self.weights is None:
            yield from itertools.count(turn)
        block, first = divmod(turn, _DRAWN_AT_ONCE)
        while True:
            yield from generator(INTERLEAVE, self.seed, epoch, block).random(_DRAWN_AT_ONCE)[first:]
            block, first = block + 1, 0

    def _chosen(self, going: list[int], draw: float) -> int:
        if self.weights is None:
            return int(draw) % len(self.parts)
        shares = np.cumsum([self.weights[number] for number in going])
        place = int(np.searchsorted(shares, draw * shares[-1], side="right"))
        return going[min(place, len(going) - 1)]  # draw * sum may round up to the sum

    @property
    def length(self) -> Length:
        return _sum([part.length for part in self.parts])

    def _written(self, others: str) -> str:
        weights = "" if self.weights is None else f", weights={list(self.weights)}, seed={self.seed}"
        return f"interleave({others}{weights})"


def _sum(lengths: list[Length]) -> Length:
    if math.inf in lengths:
        return math.inf
    return None if None in lengths else sum(length for length in lengths if length is not None)
