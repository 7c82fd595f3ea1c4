"""Which arrays are measured in one call, so that trees of thousands of leaves compile in seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np

from toolshed.insight import measure
from toolshed.insight.leaves import Leaf

_SMALL = 1 << 20  # arrays with fewer values are copied together, up to so many at once
_FEWEST_LINES = 64


class Place(NamedTuple):
    """What arrays share that are measured in one call.

    Attributes:
      form: the format in which they are.
      sharding: where they lie; None for the host.
      one_cpu: whether that is a single CPU.
    """

    form: measure.Format
    sharding: Any
    one_cpu: bool

    def entered(self) -> Any:
        """A context in which jax knows types of 64 bits, if they are needed."""
        return jax.enable_x64(True) if self.form is measure.DOUBLE else contextlib.nullcontext()


class Lines(NamedTuple):
    """How the arrays of a pack lie in its lines.

    Attributes:
      filled: how many values of each line are no padding, int32[lines].
      rows: to which array each line belongs, int32[lines].
    """

    filled: np.ndarray
    rows: np.ndarray


def measure_leaves(leaves: Mapping[str, Leaf]) -> dict[str, np.ndarray]:
    """The words of each leaf, as `toolshed.insight.measure` defines them. Waits for the devices, once.

    Args:
      leaves: numbers, none of them empty.
    """
    arrays = {name: one_copy(leaf.array) for name, leaf in leaves.items()}
    places = {name: place_of(array) for name, array in arrays.items()}
    return fetch(
        (names, _measure([arrays[name] for name in names], place)) for names, place in calls(arrays, places)
    )


def fetch(measured: Iterable[tuple[list[str], jax.Array]]) -> dict[str, np.ndarray]:
    """The rows of several calls by name, in one transfer."""
    measured = list(measured)
    fetched = jax.device_get([rows for _, rows in measured])
    return {
        name: row
        for (names, _), rows in zip(measured, fetched, strict=True)
        for name, row in zip(names, rows, strict=False)  # a pack has room for more arrays than it holds
    }


def _measure(arrays: list[Any], place: Place) -> jax.Array:
    with place.entered():
        if not is_small(arrays[0]):
            return measure.measure_whole(arrays[0], one_cpu=place.one_cpu)
        lines = lines_of(arrays)
        packed = measure.pack(arrays, lines=len(lines.rows), form=place.form)
        return measure.measure_packed(packed, *lines, one_cpu=place.one_cpu)


def lines_of(arrays: Sequence[Any]) -> Lines:
    """How arrays are going to lie in a pack. The number of lines is one of a few, to compile seldom."""
    sizes = np.array([array.size for array in arrays])
    counts = -(-sizes // measure.WIDTH)
    rows = np.repeat(np.arange(len(arrays)), counts)
    line_in_array = np.arange(len(rows)) - (np.cumsum(counts) - counts)[rows]
    filled = sizes[rows] - measure.WIDTH * line_in_array
    spare = (0, max(_FEWEST_LINES, 1 << (len(rows) - 1).bit_length()) - len(rows))
    return Lines(
        np.pad(filled, spare).astype(np.int32),
        np.pad(rows, spare, mode="edge").astype(np.int32),
    )


def calls(arrays: Mapping[str, Any], places: Mapping[str, Place]) -> Iterator[tuple[list[str], Place]]:
    """The names of arrays in groups that are measured in one call: small ones together, others alone.

    Many arrays of one shape fill groups of their own, which are compiled once; what is left over of all
    shapes shares groups.
    """
    alike: dict[tuple[Place, Any, Any], list[str]] = {}
    for name, array in arrays.items():
        if is_small(array):
            alike.setdefault((places[name], array.dtype, array.shape), []).append(name)
        else:
            yield [name], places[name]
    left_over: dict[Place, list[str]] = {}
    for (place, _, shape), names in alike.items():
        together = min(measure.TOGETHER, _SMALL // int(np.prod(shape)))
        whole = len(names) - len(names) % together
        yield from ((names[at : at + together], place) for at in range(0, whole, together))
        left_over.setdefault(place, []).extend(names[whole:])
    for place, names in left_over.items():
        yield from ((some, place) for some in _cut(names, arrays))


def _cut(names: list[str], arrays: Mapping[str, Any]) -> Iterator[list[str]]:
    """Groups of at most so many arrays and so many values."""
    group: list[str] = []
    values = 0
    for name in names:
        if group and (len(group) == measure.TOGETHER or values + arrays[name].size > _SMALL):
            yield group
            group, values = [], 0
        group.append(name)
        values += arrays[name].size
    if group:
        yield group


def one_copy(array: Any) -> Any:
    """One of the copies of an array that several devices hold whole; any other array as it is."""
    if isinstance(array, jax.Array) and len(array.sharding.device_set) > 1 and array.is_fully_replicated:
        return array.addressable_data(0)
    return array


def is_small(array: Any) -> bool:
    """True for an array that may be copied: it is small, and lies on one device."""
    if isinstance(array, jax.Array) and len(array.sharding.device_set) > 1:
        return False
    return array.size < _SMALL


def place_of(array: Any) -> Place:
    """Where an array lies, and the format in which it is measured."""
    form = measure.format_of(array.dtype)
    if not isinstance(array, jax.Array):
        return Place(form, None, jax.default_backend() == "cpu")
    devices = array.sharding.device_set
    on_cpu = next(iter(devices)).platform == "cpu"
    return Place(form, array.sharding, on_cpu and len(devices) == 1)
