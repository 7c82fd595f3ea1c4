"""Streams over what other packages load: recognised by its methods, imported never."""

from __future__ import annotations

import itertools
import math
import sys
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any

import jax
import numpy as np

from toolshed.data.node import Length, Node, Position, Reader
from toolshed.data.plain import from_plain, to_plain
from toolshed.data.sources import FunctionSource
from toolshed.data.streams import Stream, from_iterable
from toolshed.errors import DataError
from toolshed.paths import describe


def stream(source: Any) -> Stream:
    """A stream over a loader or a data set of another package, or over any iterable.

    - grain: a DataLoader, MapDataset or IterDataset. A position is the state of grain's iterator.
    - PyTorch: a DataLoader, whose tensors become numpy arrays. It has no state, so `Stream.restore` reads
      again what is before the position; with ``shuffle=True`` it draws another order each time, and a
      position means nothing. torchdata's StatefulDataLoader goes to its own saved state. A data set with
      ``__getitem__`` and ``__len__`` is read by number.
    - Hugging Face: a Dataset is read by number; an IterableDataset is read from its beginning, for its own
      resuming loses what was in the shuffle buffer. Columns become arrays, ``with_format`` or not.
    - TensorFlow: a tf.data.Dataset, read with ``as_numpy_iterator``, and restored with ``skip``.

    Each epoch iterates the source again. Before it ``set_epoch(epoch)`` is called, where the source or its
    ``sampler`` has that. Items come as the source gives them, a batch of PyTorch as a list, say; bring
    them into a dict by `Stream.map`.

    A source with a state of its own is one thing with one position: give each stream over it its own.

    Raises:
      DataError: it cannot be iterated, or is a dict, an array or a function.
    """
    if isinstance(source, Stream):
        return source
    if isinstance(source, Mapping) or hasattr(source, "dtype"):
        what = "a dict" if isinstance(source, Mapping) else describe(source)
        raise DataError(f"Expected a loader or an iterable, got {what}. For arrays by name use from_arrays.")
    if isinstance(source, (str, bytes)) or not _is_read(source):
        hint = " For a function of a number use from_function." if callable(source) else ""
        raise DataError(f"Expected a loader or an iterable, got {type(source).__name__}.{hint}")
    if isinstance(source, (Sequence, Iterator)):
        return from_iterable(source)
    if _has(source, "__getitem__", "__len__") and (_is_columns(source) or not hasattr(source, "__iter__")):
        convert = columns if _is_columns(source) else as_numpy
        size = len(source)
        return Stream(FunctionSource(lambda index: convert(source[index]), size, _label(source, size)))
    return Stream(LoaderSource(source))


class LoaderSource(Node):
    """The items of a loader, which may have a state of its own; see `stream`."""

    def __init__(self, loader: Any):
        self._loader = loader
        self._length = _length(loader)
        self._keeps_state = _has(loader, "state_dict", "load_state_dict") and not _is_columns(loader)
        self._first: Any = None  # the loader's state before the first item of all

    def start(self, epoch: int) -> Position:
        return {"epoch": epoch, "index": 0, "state": None}

    def read(self, at: Position) -> Reader:
        epoch, index = at["epoch"], at["index"]
        for source in (self._loader, getattr(self._loader, "sampler", None)):
            set_epoch = getattr(source, "set_epoch", None)
            if set_epoch is not None:
                set_epoch(epoch)
        convert = columns if _is_columns(self._loader) else as_numpy
        iterator = self._iterator(epoch, index, at["state"])
        for item in iterator:
            index += 1
            yield convert(item), {"epoch": epoch, "index": index, "state": self._state(iterator)}

    def _iterator(self, epoch: int, index: int, state: Any) -> Iterator[Any]:
        """An iterator that has given ``index`` items, by the shortest way there is."""
        if _has(self._loader, "as_numpy_iterator"):
            return iter((self._loader.skip(index) if index else self._loader).as_numpy_iterator())
        if self._keeps_state and state is None and epoch == 0:
            if self._first is None:
                self._first = to_plain(self._loader.state_dict())
            else:
                state = self._first
        if state is not None and self._keeps_state:
            self._loader.load_state_dict(from_plain(state))
        iterator = iter(self._loader)
        if state is None:
            next(itertools.islice(iterator, index, index), None)
        elif not self._keeps_state:
            iterator.set_state(from_plain(state))
        return iterator

    def _state(self, iterator: Any) -> Any:
        if self._keeps_state:
            return to_plain(self._loader.state_dict())
        return to_plain(iterator.get_state()) if _has(iterator, "get_state", "set_state") else None

    @property
    def length(self) -> Length:
        return self._length

    @property
    def label(self) -> str:
        return _label(self._loader, self._length)


def as_numpy(item: Any) -> Any:
    """An item whose tensors are numpy arrays. Other leaves stay as they are."""

    def convert(leaf: Any) -> Any:
        if _has(leaf, "detach", "cpu"):
            leaf = leaf.detach().cpu()
        return leaf.numpy() if _has(leaf, "numpy") else leaf

    return jax.tree.map(convert, item)


def columns(example: Any) -> Any:
    """A dict of columns whose lists and numbers are numpy arrays, and whose tensors are, too.

    Raises:
      DataError: the rows of a column differ in length.
    """
    if not isinstance(example, Mapping):
        return as_numpy(example)
    return {name: _column(name, value) for name, value in example.items()}


def _column(name: str, value: Any) -> Any:
    if isinstance(value, Mapping):
        return columns(value)
    if value is None or isinstance(value, (str, bytes)) or not _is_listlike(value):
        return as_numpy(value)
    try:
        return np.asarray(value)
    except ValueError as error:
        raise DataError(
            f"The rows of column {name} differ in length, so they are no array. Fill them up in the data"
            " set's own map first."
        ) from error


def _is_listlike(value: Any) -> bool:
    return isinstance(value, (list, tuple, bool, int, float)) or (
        hasattr(value, "__array__") and not isinstance(value, jax.Array) and not _has(value, "numpy")
    )


def _is_columns(source: Any) -> bool:
    return hasattr(source, "column_names") and hasattr(source, "features")


def _is_read(source: Any) -> bool:
    return isinstance(source, Iterable) or _has(source, "__getitem__", "__len__")


def _has(source: Any, *methods: str) -> bool:
    return all(callable(getattr(source, method, None)) for method in methods)


def _length(source: Any) -> Length:
    try:
        length = len(source)
    except TypeError:
        return None
    return math.inf if length >= sys.maxsize else length


def _label(source: Any, length: Length) -> str:
    package = type(source).__module__.split(".")[0]
    size = "" if length is None else f" of {length}"
    return f"stream({package} {type(source).__name__}{size})"
