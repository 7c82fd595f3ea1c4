"""Transforms of one source, which `Stream` has as methods."""

from __future__ import annotations

import dataclasses
import itertools
import math
from collections import deque
from collections.abc import Callable
from typing import Any

from toolshed.data.collate import pad, stack_items
from toolshed.data.node import (
    MAP,
    SHUFFLE,
    Length,
    Node,
    Position,
    Reader,
    Transform,
    choice,
    generator,
    whole,
)
from toolshed.data.sources import name_of
from toolshed.errors import DataError


@dataclasses.dataclass(frozen=True)
class Repeat(Transform):
    """Several epochs of the source as one; see `Stream.repeat`."""

    n: int | None

    def __post_init__(self):
        if self.n is not None:
            whole("n", self.n, 1)

    def start(self, epoch: int) -> Position:
        first = epoch * (self.n or 1)
        return {"round": first, "at": self.source.start(first)}

    def read(self, at: Position) -> Reader:
        number, here = at["round"], at["at"]
        end = math.inf if self.n is None else (number // self.n + 1) * self.n
        while number < end:
            begin, gave = self.source.start(number), False
            for item, after in self.source.read(here):
                gave = True
                yield item, {"round": number, "at": after}
            if not gave and here == begin:
                raise DataError(f"There is nothing to repeat: {self.source.label} gave no item.")
            number += 1
            here = self.source.start(number)

    @property
    def length(self) -> Length:
        if self.n is None:
            return math.inf
        return None if self.source.length is None else self.n * self.source.length

    @property
    def label(self) -> str:
        return f"repeat({self.n})"

    def in_order(self) -> Node:
        return self.source.in_order()


@dataclasses.dataclass(frozen=True)
class Shuffle(Transform):
    """Blocks of items, each in a random order; see `Stream.shuffle`."""

    buffer_size: int
    seed: int

    def __post_init__(self):
        whole("buffer_size", self.buffer_size, 1)
        whole("seed", self.seed, 0)

    def start(self, epoch: int) -> Position:
        return {"epoch": epoch, "block": 0, "given": 0, "at": self.source.start(epoch)}

    def read(self, at: Position) -> Reader:
        epoch, block, given, here = at["epoch"], at["block"], at["given"], at["at"]
        pairs = self.source.read(here)
        while held := list(itertools.islice(pairs, self.buffer_size)):
            after = held[-1][1]
            order = generator(SHUFFLE, self.seed, epoch, block).permutation(len(held)).tolist()
            for number in range(given, len(held)):
                item, held[order[number]] = held[order[number]][0], (None, None)
                yield item, {"epoch": epoch, "block": block, "given": number + 1, "at": here}
            block, given, here = block + 1, 0, after

    @property
    def label(self) -> str:
        return f"shuffle({self.buffer_size}, seed={self.seed})"

    def in_order(self) -> Node:
        return self.source.in_order()


@dataclasses.dataclass(frozen=True)
class Batch(Transform):
    """Examples stacked to batches; see `Stream.batch`."""

    n: int
    last: str

    def __post_init__(self):
        whole("n", self.n, 1)
        choice("last", self.last, ("keep", "drop", "mask"))
        if self.last == "drop" and self.length == 0:
            raise DataError(
                f"last='drop' leaves no batch: n is {self.n}, there are {self.source.length} items."
            )

    def read(self, at: Position) -> Reader:
        pairs = self.source.read(at)
        while held := list(itertools.islice(pairs, self.n)):
            if len(held) < self.n and self.last == "drop":
                return
            batch = stack_items([item for item, _ in held])
            yield pad(batch, self.n) if self.last == "mask" else batch, held[-1][1]

    @property
    def length(self) -> Length:
        items = self.source.length
        if items is None or items == math.inf:
            return items
        return int(items // self.n if self.last == "drop" else -(-items // self.n))

    @property
    def label(self) -> str:
        return f"batch({self.n}, last={self.last!r})"

    def in_order(self) -> Node:
        last = "keep" if self.last == "drop" else self.last
        return dataclasses.replace(self, source=self.source.in_order(), last=last)


@dataclasses.dataclass(frozen=True)
class Map(Transform):
    """A function of each item; see `Stream.map`."""

    fn: Callable[..., Any]
    seed: int | None

    def __post_init__(self):
        if not callable(self.fn):
            raise DataError(f"map needs a function of an item, got {type(self.fn).__name__}.")
        if self.seed is not None:
            whole("seed", self.seed, 0)

    def start(self, epoch: int) -> Position:
        at = self.source.start(epoch)
        return at if self.seed is None else {"epoch": epoch, "index": 0, "at": at}

    def read(self, at: Position) -> Reader:
        if self.seed is None:
            for item, after in self.source.read(at):
                yield self.fn(item), after
            return
        epoch, first = at["epoch"], at["index"]
        for index, (item, after) in enumerate(self.source.read(at["at"]), first):
            changed = self.fn(item, generator(MAP, self.seed, epoch, index))
            yield changed, {"epoch": epoch, "index": index + 1, "at": after}

    @property
    def label(self) -> str:
        seed = "" if self.seed is None else f", seed={self.seed}"
        return f"map({name_of(self.fn)}{seed})"


@dataclasses.dataclass(frozen=True)
class Take(Transform):
    """The first items of each epoch; see `Stream.take`."""

    n: int

    def __post_init__(self):
        whole("n", self.n, 0)

    def start(self, epoch: int) -> Position:
        return {"taken": 0, "at": self.source.start(epoch)}

    def read(self, at: Position) -> Reader:
        first, left = at["taken"] + 1, self.n - at["taken"]
        pairs = itertools.islice(self.source.read(at["at"]), max(0, left))
        for taken, (item, after) in enumerate(pairs, first):
            yield item, {"taken": taken, "at": after}

    @property
    def length(self) -> Length:
        return None if self.source.length is None else min(self.n, self.source.length)

    @property
    def label(self) -> str:
        return f"take({self.n})"


@dataclasses.dataclass(frozen=True)
class PadLast(Transform):
    """Batches filled up to one size; see `Stream.pad_last`."""

    n: int

    def __post_init__(self):
        whole("n", self.n, 1)

    def read(self, at: Position) -> Reader:
        for batch, after in self.source.read(at):
            yield pad(batch, self.n), after

    @property
    def label(self) -> str:
        return f"pad_last({self.n})"


@dataclasses.dataclass(frozen=True)
class Window(Transform):
    """Neighbouring items stacked; see `Stream.window`."""

    size: int
    stride: int

    def __post_init__(self):
        whole("size", self.size, 1)
        whole("stride", self.stride, 1)

    def start(self, epoch: int) -> Position:
        return {"skip": 0, "at": self.source.start(epoch)}

    def read(self, at: Position) -> Reader:
        skip, before = at["skip"], at["at"]
        held: deque[tuple[Any, Position]] = deque()  # items, each with the position before it
        for item, after in self.source.read(before):
            if skip:
                skip -= 1
            else:
                held.append((item, before))
            before = after
            if len(held) == self.size:
                window = stack_items([item for item, _ in held], "window")
                skip = max(0, self.stride - self.size)
                follows = held[self.stride][1] if self.stride < self.size else before
                yield window, {"skip": skip, "at": follows}
                for _ in range(min(self.stride, self.size)):
                    held.popleft()

    @property
    def length(self) -> Length:
        items = self.source.length
        if items is None or items == math.inf:
            return items
        return max(0, int(items - self.size) // self.stride + 1)

    @property
    def label(self) -> str:
        return f"window({self.size}, stride={self.stride})"
