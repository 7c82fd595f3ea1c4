"""Which arrays are measured in one call, so that trees of thousands of leaves compile in seconds."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from toolshed.insight import measure
from toolshed.insight.leaves import Leaf

_SMALL = 1 << 20  # arrays with fewer values are copied together, up to so many at once
_FEWEST_LINES = 64


class _Place(NamedTuple):
    """What arrays must share to be measured in one call."""

    wide: bool
    sharding: Any
    one_cpu: bool


def measure_leaves(leaves: Mapping[str, Leaf]) -> dict[str, np.ndarray]:
    """The words of each leaf, as `toolshed.insight.measure` defines them. Waits for the devices, once.

    Args:
      leaves: numbers, none of them empty.
    """
    arrays = {name: _one_copy(leaf.array) for name, leaf in leaves.items()}
    calls = list(_calls(arrays))
    words = [_measure([arrays[name] for name in names], place) for names, place in calls]
    return {
        name: row
        for (names, _), rows in zip(calls, jax.device_get(words), strict=True)
        for name, row in zip(names, rows, strict=False)  # a pack has room for more
    }


def _measure(arrays: list[Any], place: _Place) -> jax.Array:
    with jax.enable_x64(True) if place.wide else contextlib.nullcontext():
        if not _is_small(arrays[0]):
            return measure.measure_whole(arrays[0], one_cpu=place.one_cpu)
        lines = [-(-array.size // measure.WIDTH) for array in arrays]
        room = max(_FEWEST_LINES, 1 << (sum(lines) - 1).bit_length())
        filled = [array.size - measure.WIDTH * np.arange(n) for array, n in zip(arrays, lines, strict=True)]
        rows = np.repeat(np.arange(len(arrays)), lines)
        spare = (0, room - len(rows))
        return measure.measure_packed(
            measure.pack(arrays, lines=room),
            np.pad(np.concatenate(filled), spare).astype(np.int32),
            np.pad(rows, spare, mode="edge").astype(np.int32),
            one_cpu=place.one_cpu,
        )


def _one_copy(array: Any) -> Any:
    """One of the copies of an array that several devices hold whole."""
    if isinstance(array, jax.Array) and len(array.sharding.device_set) > 1 and array.is_fully_replicated:
        return array.addressable_data(0)
    return array


def _calls(arrays: Mapping[str, Any]) -> Iterator[tuple[list[str], _Place]]:
    """The leaves in groups that are measured in one call.

    Many arrays of one shape fill groups of their own, which are compiled once; what is left over of all
    shapes shares groups.
    """
    alike: dict[tuple[_Place, Any, Any], list[str]] = {}
    for name, array in arrays.items():
        if _is_small(array):
            alike.setdefault((_place(array), array.dtype, array.shape), []).append(name)
        else:
            yield [name], _place(array)
    left_over: dict[_Place, list[str]] = {}
    for (place, _, shape), names in alike.items():
        together = min(measure.TOGETHER, _SMALL // int(np.prod(shape)))
        whole = len(names) - len(names) % together
        yield from ((names[at : at + together], place) for at in range(0, whole, together))
        left_over.setdefault(place, []).extend(names[whole:])
    for place, names in left_over.items():
        yield from ((some, place) for some in _cut(names, arrays))


def _cut(names: list[str], arrays: Mapping[str, Any]) -> Iterator[list[str]]:
    """Groups of at most so many leaves and so many values."""
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


def _is_small(array: Any) -> bool:
    """True for an array that may be copied: it is small, and lies on one device."""
    if isinstance(array, jax.Array) and len(array.sharding.device_set) > 1:
        return False
    return array.size < _SMALL


def _place(array: Any) -> _Place:
    wide = measure.format_of(array.dtype) is measure.DOUBLE
    if not isinstance(array, jax.Array):
        return _Place(wide, None, jax.default_backend() == "cpu")
    devices = array.sharding.device_set
    on_cpu = next(iter(devices)).platform == "cpu"
    return _Place(wide, array.sharding, on_cpu and len(devices) == 1)
