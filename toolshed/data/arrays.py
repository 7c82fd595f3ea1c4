"""Batches out of arrays in memory: seeded, reshuffled each epoch, resumable, addressable."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Literal

import jax
import jax.numpy as jnp
import numpy as np

from toolshed.data.node import Node, Position, Reader
from toolshed.data.streams import Stream, check_entries
from toolshed.errors import DataError
from toolshed.paths import describe

Batch = dict[str, Any]


def from_arrays(
    arrays: Mapping[str, Any],
    batch_size: int | None,
    *,
    seed: int = 0,
    shuffle: bool = True,
    last: Literal["keep", "drop", "mask"] = "keep",
) -> ArrayStream:
    """A stream of batches over arrays that share their first axis.

    Args:
      arrays: arrays by name, each [examples, ...].
      batch_size: examples in a batch; None for a stream of single examples, each [...].
      seed: of the order, together with the epoch's number.
      shuffle: whether each epoch has an order of its own; otherwise all have the arrays' order.
      last: what becomes of a last batch that is not full. ``"keep"``: it is shorter (and a step is
        compiled once more for it). ``"drop"``: it is left out. ``"mask"``: every batch gets an entry
        ``mask``, bool[batch_size], and the last one is filled up with copies of its first example,
        whose mask is False.

    Raises:
      DataError: the arrays are empty or differ in length, or an argument is out of range.
    """
    return ArrayStream(arrays, batch_size, seed=seed, shuffle=shuffle, last=last)


class ArrayStream(Stream):
    """Batches of arrays in memory; see `from_arrays`.

    The batch at a position is a function of the seed and the position alone (`batch_at`). Iterating
    goes from the stream's position to the end of that epoch, and the next iteration goes on with the
    next epoch in its own order. A loop that was broken off goes on where it was.

    Attributes:
      size: number of examples.
      position: number of batches given so far, over all epochs. `state` saves it, `restore` sets it.
    """

    def __init__(
        self, arrays: Mapping[str, Any], batch_size: int | None, *, seed: int, shuffle: bool, last: str
    ):
        self._source = ArraySource(arrays, batch_size, seed=seed, shuffle=shuffle, last=last)
        super().__init__(self._source)
        self.size = self._source.size

    def __len__(self) -> int:
        """Batches in an epoch."""
        return self._source.length

    @property
    def epoch(self) -> int:
        """The number of the epoch that the next batch belongs to."""
        return self.position // len(self)

    def __iter__(self) -> Iterator[Batch]:
        """The batches from here to the end of the epoch."""
        end = (self.epoch + 1) * len(self)
        while self.position < end:
            batch = self.batch_at(self.position)
            self.position += 1
            yield batch

    def batch_at(self, position: int) -> Batch:
        """The batch at a position counted over all epochs. Moves nothing."""
        return self._source.batch(*divmod(position, len(self)))

    def in_order(self) -> Iterator[Batch]:
        """All examples once, in the arrays' order. Moves nothing; what evaluation uses."""
        return super().in_order()

    def mark(self) -> int:
        """Where the stream is, for `state`. Unlike that it costs nothing, and means nothing elsewhere."""
        return self.position

    def state(self, mark: int | None = None) -> dict[str, Any]:
        """Where the stream is, as plain data, with what tells the data set apart from others.

        Args:
          mark: what `mark` gave earlier, for where the stream was then.
        """
        return {
            "position": self.position if mark is None else mark,
            **self._source.options,
            "fingerprint": self.fingerprint,
        }

    def restore(self, state: Mapping[str, Any]) -> None:
        """Goes to a saved position.

        Raises:
          DataError: the position belongs to another data set, seed or batch size.
        """
        here = self.state()
        check_entries(state, tuple(here))
        different = [name for name in here if name != "position" and state[name] != here[name]]
        if different:
            lines = ", ".join(f"{name} {state[name]!r} is not {here[name]!r}" for name in different)
            raise DataError(f"The saved position is of another stream: {lines}.")
        position = state["position"]
        if not isinstance(position, (int, np.integer)) or position < 0:
            raise DataError(f"The saved position is {position!r}; expected a whole number from 0.")
        self.position = int(position)

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, shapes, dtypes and values of the arrays; computed once."""
        return self._source.fingerprint

    def __repr__(self) -> str:
        size = self._source.options["batch_size"]
        what = "one by one" if size is None else f"{len(self)} batches of {size}"
        number = f"{'example' if size is None else 'batch'} {self.position % len(self)}"
        return f"ArrayStream({self.size:,} examples, {what}; epoch {self.epoch}, {number})"


class ArraySource(Node):
    """Arrays that share their first axis, in batches or one by one; see `from_arrays`."""

    def __init__(
        self, arrays: Mapping[str, Any], batch_size: int | None, *, seed: int, shuffle: bool, last: str
    ):
        self._arrays = {name: np.asarray(array) for name, array in arrays.items()}
        self.size = _common_length(self._arrays)
        _check_options(self._arrays, self.size, batch_size, seed, last)
        self._batch_size, self._seed, self._shuffle, self._last = batch_size, seed, shuffle, last
        self._order: tuple[int, np.ndarray] = (-1, np.zeros(0, np.int64))
        self._fingerprint: str | None = None

    @property
    def options(self) -> dict[str, Any]:
        """What the stream was made with, beside the arrays."""
        return {
            "seed": self._seed,
            "batch_size": self._batch_size,
            "shuffle": self._shuffle,
            "last": self._last,
        }

    def start(self, epoch: int) -> Position:
        return {"epoch": epoch, "index": 0}

    def read(self, at: Position) -> Reader:
        epoch = at["epoch"]
        for index in range(at["index"], self.length):
            yield self.batch(epoch, index), {"epoch": epoch, "index": index + 1}

    @property
    def length(self) -> int:
        if self._batch_size is None:
            return self.size
        return self.size // self._batch_size if self._last == "drop" else -(-self.size // self._batch_size)

    @property
    def label(self) -> str:
        options = ", ".join(f"{name}={value!r}" for name, value in self.options.items())
        return f"from_arrays({self.size} examples, {options})"

    @property
    def identity(self) -> str:
        return f"{self.label} with data {self.fingerprint}"

    def in_order(self) -> Node:
        last = "keep" if self._last == "drop" else self._last
        return ArraySource(self._arrays, **{**self.options, "shuffle": False, "last": last})

    def batch(self, epoch: int, index: int) -> Batch:
        """The batch of a number within its epoch: a copy, which may be changed."""
        order = self._order_of(epoch)
        if self._batch_size is None:
            return {name: array[order[index]].copy() for name, array in self._arrays.items()}
        chosen = order[index * self._batch_size : (index + 1) * self._batch_size]
        missing = self._batch_size - len(chosen)
        if self._last != "mask":
            return {name: array[chosen] for name, array in self._arrays.items()}
        mask = np.arange(self._batch_size) < len(chosen)
        padded = np.concatenate([chosen, np.repeat(chosen[:1], missing)]) if missing else chosen
        return {**{name: array[padded] for name, array in self._arrays.items()}, "mask": mask}

    @property
    def fingerprint(self) -> str:
        """SHA-256 of names, shapes, dtypes and values of the arrays; computed once."""
        if self._fingerprint is None:
            self._fingerprint = fingerprint(self._arrays)
        return self._fingerprint

    def _order_of(self, epoch: int) -> np.ndarray:
        known, order = self._order  # read at once: a prefetching thread may be in another epoch
        if known != epoch:
            rng = np.random.default_rng((self._seed, epoch))
            order = rng.permutation(self.size) if self._shuffle else np.arange(self.size)
            self._order = (epoch, order)
        return order


def fingerprint(arrays: Mapping[str, np.ndarray]) -> str:
    """SHA-256 of names, shapes, dtypes and values of arrays, in hexadecimal."""
    digest = hashlib.sha256()
    for name in sorted(arrays):
        array = np.ascontiguousarray(arrays[name])
        digest.update(f"{name}:{array.dtype}:{array.shape};".encode())
        digest.update(array.view(np.uint8).data if array.size else b"")
    return digest.hexdigest()


def stack(batches: Sequence[Batch]) -> Batch:
    """Several batches of one shape as one with a new first axis, for ``steps_per_call``."""

    def stacked(*leaves: Any) -> Any:
        on_device = any(isinstance(leaf, jax.Array) for leaf in leaves)
        return jnp.stack(leaves) if on_device else np.stack(leaves)

    return jax.tree.map(stacked, *batches)


def _common_length(arrays: Mapping[str, np.ndarray]) -> int:
    if not arrays:
        raise DataError("Expected arrays by name, got an empty dict.")
    for name, array in arrays.items():
        if array.ndim == 0:
            raise DataError(f"{name} is a scalar; expected an array whose first axis counts examples.")
        if array.dtype.kind in "OSUMm":
            raise DataError(f"{name} is {describe(array)}; expected numbers. Encode it first.")
    lengths = {name: len(array) for name, array in arrays.items()}
    if len(set(lengths.values())) > 1:
        listed = ", ".join(f"{name} {length}" for name, length in lengths.items())
        raise DataError(f"The arrays differ in their number of examples: {listed}.")
    length = next(iter(lengths.values()))
    if length == 0:
        raise DataError("The arrays hold no example.")
    return length


def _check_options(arrays: Mapping[str, Any], size: int, batch_size: Any, seed: Any, last: Any) -> None:
    if batch_size is not None and (not isinstance(batch_size, int) or batch_size < 1):
        raise DataError(f"batch_size is {batch_size!r}; expected a whole number from 1.")
    if not isinstance(seed, (int, np.integer)) or seed < 0:
        raise DataError(f"seed is {seed!r}; expected a whole number from 0.")
    if last not in ("keep", "drop", "mask"):
        raise DataError(f"last is {last!r}; expected 'keep', 'drop' or 'mask'.")
    if batch_size is None and last != "keep":
        raise DataError(f"last={last!r} is about batches; without a batch_size there are only examples.")
    if last == "drop" and batch_size is not None and batch_size > size:
        raise DataError(
            f"last='drop' leaves no batch: batch_size is {batch_size}, there are {size} examples."
        )
    if last == "mask" and "mask" in arrays:
        raise DataError("last='mask' adds an entry 'mask', and the arrays have one already. Rename it.")
