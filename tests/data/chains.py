"""Streams of every source and every chain of transforms, each built anew by a function without arguments."""

from __future__ import annotations

import dataclasses
from collections.abc import Callable, Iterator
from typing import Any

import jax
import numpy as np

from toolshed.data import GroupSequencer, Stream, from_arrays, from_function, from_iterable


def example(n: int) -> dict[str, Any]:
    """An example that shows its number."""
    return {"n": np.int32(n), "pair": {"both": np.array([n, -n], np.float32)}}


def examples(n: int) -> Stream:
    return from_iterable([example(i) for i in range(n)])


def arrays(n: int) -> dict[str, np.ndarray]:
    return {"n": np.arange(n, dtype=np.int32), "x": np.arange(2.0 * n).reshape(n, 2)}


def jitter(item: dict[str, Any], rng: np.random.Generator) -> dict[str, Any]:
    return {**item, "noise": rng.normal(size=2)}


def double(item: dict[str, Any]) -> dict[str, Any]:
    return {**item, "n": item["n"] * 2}


class Loader:
    """A loader with a state of its own, like torchdata's StatefulDataLoader.

    An iterator is made anew for each epoch, ``state_dict`` is about the newest one, and a loaded state
    counts for the next one. The order of an epoch follows from its number; or, if ``running``, comes from
    a generator that goes on from epoch to epoch, which is not told its number.
    """

    def __init__(self, n: int, *, running: bool = False):
        self._n = n
        self._running = np.random.default_rng(7) if running else None
        self._epoch = 0
        self._loaded: dict[str, Any] | None = None
        self._now: dict[str, Any] | None = None

    def __len__(self) -> int:
        return self._n

    def set_epoch(self, epoch: int) -> None:
        self._epoch = epoch

    def __iter__(self) -> Iterator[dict[str, Any]]:
        loaded, self._loaded = self._loaded, None
        rng = np.random.default_rng(self._epoch) if self._running is None else self._running
        if loaded is not None:
            rng.bit_generator.state = loaded["rng"]
        now = {"rng": rng.bit_generator.state, "given": loaded["given"] if loaded else 0}
        order = rng.permutation(self._n)
        self._now = now
        while now["given"] < self._n:
            now["given"] += 1
            yield example(int(order[now["given"] - 1]))

    def state_dict(self) -> dict[str, Any]:
        if self._now is None:
            rng = np.random.default_rng(self._epoch) if self._running is None else self._running
            return {"rng": rng.bit_generator.state, "given": 0}
        return dict(self._now)

    def load_state_dict(self, state: dict[str, Any]) -> None:
        self._loaded = state


def chains() -> dict[str, Callable[[], Stream]]:
    """Each with epochs that end, so that three of them can be read."""
    from toolshed.data import stream

    return {
        "arrays": lambda: from_arrays(arrays(7), 3),
        "arrays masked": lambda: from_arrays(arrays(7), 3, last="mask"),
        "arrays dropped": lambda: from_arrays(arrays(7), 3, last="drop"),
        "arrays one by one": lambda: from_arrays(arrays(5), None),
        "arrays and map": lambda: from_arrays(arrays(7), 3).map(double),
        "iterable": lambda: examples(5),
        "iterable of one": lambda: examples(1),
        "function": lambda: from_function(example, 4),
        "endless function": lambda: from_function(example).take(4),
        "repeat": lambda: from_arrays(arrays(4), 2).repeat(2),
        "repeat of an iterable": lambda: examples(3).repeat(2),
        "endless repeat": lambda: from_arrays(arrays(5), 2).repeat().take(4),
        "shuffle": lambda: examples(7).shuffle(3, seed=4),
        "shuffle of everything": lambda: examples(5).shuffle(100),
        "shuffle of one by one": lambda: examples(4).shuffle(1),
        "shuffle twice": lambda: examples(8).shuffle(4, seed=1).shuffle(3, seed=1),
        "batch": lambda: examples(7).batch(3),
        "batch dropped": lambda: examples(7).batch(3, last="drop"),
        "batch masked": lambda: examples(7).batch(3, last="mask"),
        "batch of batches": lambda: examples(8).batch(2).batch(2),
        "map": lambda: examples(4).map(double),
        "seeded map": lambda: examples(4).map(jitter, seed=3),
        "seeded map before a shuffle": lambda: examples(5).map(jitter, seed=3).shuffle(3),
        "take": lambda: examples(7).take(4),
        "take all": lambda: examples(3).take(9),
        "pad last": lambda: examples(7).batch(3).pad_last(4),
        "window": lambda: examples(6).window(3),
        "window with a stride": lambda: examples(9).window(3, stride=2),
        "window side by side": lambda: examples(7).window(2, stride=2),
        "window with gaps": lambda: examples(11).window(2, stride=4),
        "concat": lambda: examples(2).concat(examples(3), examples(1)),
        "concat of shuffled": lambda: examples(4).shuffle(4).concat(from_arrays(arrays(3), None)),
        "zip": lambda: examples(5).zip(from_arrays(arrays(4), None)),
        "zip of a shuffle and itself": lambda: (lambda s: s.zip(s, s.shuffle(3)))(examples(4)),
        "interleave": lambda: examples(2).interleave(examples(4), examples(1)),
        "weighted interleave": lambda: examples(4).interleave(examples(5), weights=[3, 1], seed=2),
        "prefetch": lambda: examples(5).prefetch(),
        "prefetch far": lambda: examples(5).batch(2).prefetch(10),
        "prefetch in the middle": lambda: examples(6).prefetch(1).shuffle(4).batch(2),
        "prefetch of a prefetch": lambda: examples(4).prefetch().prefetch(1),
        "prefetch of arrays": lambda: from_arrays(arrays(7), 3).prefetch(device=jax.devices()[0]),
        "groups": lambda: GroupSequencer([1, 1, 2, 5, 5, 9], 3, seed=1).map(lambda g: {"n": g.groups}),
        "groups by coverage": lambda: GroupSequencer([4, 2, 3], 2, sampling="coverage-uniform", sequences=5),
        "a loader": lambda: stream(Loader(4)),
        "a loader in a chain": lambda: stream(Loader(7)).shuffle(3).batch(2).prefetch(),
        "everything": lambda: (
            examples(9)
            .shuffle(4, seed=1)
            .map(jitter, seed=1)
            .interleave(examples(4).map(jitter, seed=2), weights=[2, 1])
            .repeat(2)
            .batch(3, last="mask")
            .window(2)
            .prefetch(2)
        ),
    }


def plain(tree: Any) -> Any:
    """A tree of arrays as lists and dtypes, which compare with ==."""
    if isinstance(tree, dict):
        return {name: plain(part) for name, part in tree.items()}
    if isinstance(tree, (list, tuple)):
        return [plain(part) for part in tree]
    if dataclasses.is_dataclass(tree):
        return plain(vars(tree))
    array = np.asarray(tree)
    return array.dtype.str, array.shape, array.tolist()


def numbers(items: Any) -> list[Any]:
    """The ``n`` of each item, as lists."""
    return [np.asarray(item["n"]).tolist() for item in items]
