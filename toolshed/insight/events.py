"""What was seen while a program was replayed: each operation that made a value not finite."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import numpy as np

from toolshed import paths
from toolshed.insight.autopsy import Fault, Iteration, Operand
from toolshed.insight.finite import on_host
from toolshed.insight.operations import Label, Operation
from toolshed.insight.source import OPTIMIZER, is_transposed, plain_scope, source_of
from toolshed.insight.statistics import leaf_statistics
from toolshed.keys import is_key

_INDICES = 8  # places that a fault lists
_DETAILED = 100  # events that are described; a flood of them has the same few causes
_NEAR = 3

Origins = frozenset[int]
"""The numbers of the events that made a value not finite."""

NOWHERE: Origins = frozenset()


class Around(NamedTuple):
    """What is around an operation.

    Attributes:
      labels: by place, the inputs that a value comes from.
      iterations: the loops, outermost first.
      forward: the places of values that are computed for their own sake, not for a derivative's.
    """

    labels: dict[int, tuple[Label, ...]]
    iterations: tuple[Iteration, ...]
    forward: set[int]


class Event(NamedTuple):
    """A fault, and the events that made its arguments infinite, if they were."""

    fault: Fault
    causes: Origins


class Log:
    """The events of a replay, in the order in which they happened."""

    def __init__(self) -> None:
        self.events: list[Event] = []

    def add(self, fault: Fault, causes: Iterable[int] = ()) -> Origins:
        """Takes in an event; gives its origin."""
        self.events.append(Event(fault, frozenset(causes)))
        return frozenset([len(self.events) - 1])

    @property
    def is_full(self) -> bool:
        """True if there are so many events that no more are described."""
        return len(self.events) >= _DETAILED

    def root(self, origins: Iterable[int]) -> tuple[Fault | None, Fault | None]:
        """The first fault that led to some values, and the one that made NaN of its infinity."""
        seen = self._leading_to(origins)
        if not seen:
            return None, None
        first = min(seen, key=self._order)
        later = (self.events[number].fault for number in sorted(seen) if number > first)
        fault = self.events[first].fault
        turned = None if fault.value != fault.value else next((f for f in later if f.value != f.value), None)
        return fault, turned

    def is_settled(self, origins: Iterable[int]) -> bool:
        """True if no event, seen or to come, can be an earlier cause than the first of these."""
        first = min(self._leading_to(origins), key=self._order)
        return first == min(range(len(self.events)), key=self._order) and not self.events[first].fault.written

    def _order(self, number: int) -> tuple[bool, int]:
        """What happens comes before what is only written in the program."""
        return self.events[number].fault.written, number

    def _leading_to(self, origins: Iterable[int]) -> set[int]:
        seen: set[int] = set()
        waiting = list(origins)
        while waiting:
            number = waiting.pop()
            if number not in seen:
                seen.add(number)
                waiting.extend(self.events[number].causes)
        return seen


def input_fault(name: str, value: Any) -> Fault:
    """An argument that is not finite to begin with."""
    return Fault("input", source=None, near=(name,), **_places(value, None))


def constant_fault(value: Any) -> Fault:
    """A result that is written in the program, and is not finite."""
    return Fault("the result", source=None, written=True, **_places(value, None))


def written_fault(operation: Operation, around: Around, value: Any) -> Fault:
    """A value in the program itself that is not finite, as an operation meets it."""
    return Fault(operation.name, written=True, **_site(operation, around), **_places(value, None))


def fused_fault(operation: Operation, around: Around, value: Any) -> Fault:
    """A loop whose result is not finite, although in no iteration an operation was found that made it so."""
    return Fault(operation.name, vanished=True, **_site(operation, around), **_places(value, None))


def fault_of(
    operation: Operation, around: Around, arguments: Sequence[Any], result: Any, fresh: np.ndarray | None
) -> Fault:
    """An operation that gave a value that is not finite.

    Args:
      operation: the operation.
      around: what is around it.
      arguments: what it was given.
      result: the result that is not finite.
      fresh: where it is not although the arguments there are; None where places do not correspond.
    """
    places = _places(result, fresh)
    near: dict[str, int] = {}
    for atom in operation.ins:
        for distance, name in around.labels.get(atom, ()) if isinstance(atom, int) else ():
            near[name] = min(distance, near.get(name, distance))
    return Fault(
        operation.name,
        operands=_operands(operation, arguments, places["index"], fresh is not None, around.labels),
        near=tuple(sorted(near, key=lambda name: (near[name], name))[:_NEAR]),
        **_site(operation, around),
        **places,
    )


def _site(operation: Operation, around: Around) -> dict[str, Any]:
    backward = is_transposed(operation.scope) or not around.forward.intersection(operation.outs)
    return {
        "source": source_of(operation.trail),
        "phase": "optimizer" if OPTIMIZER in operation.scope else "backward" if backward else "forward",
        "scope": plain_scope(operation.scope),
        "iterations": around.iterations,
    }


def _places(value: Any, fresh: np.ndarray | None) -> dict[str, Any]:
    """Where a value is not finite, and what it is there."""
    array = on_host(value)
    bad = ~np.isfinite(array) if fresh is None else fresh
    indices = tuple(tuple(int(i) for i in index) for index in np.argwhere(bad)[:_INDICES])
    there = array[indices[0]] if indices else np.nan
    real = there.real if np.iscomplexobj(there) and not np.isfinite(there.real) else there
    return {
        "value": float(np.imag(real) if np.iscomplexobj(real) else real),
        "index": indices[0] if indices else (),
        "indices": indices,
        "count": int(bad.sum()),
        "result": paths.describe(value),
    }


def _operands(
    operation: Operation,
    arguments: Sequence[Any],
    index: tuple[int, ...],
    corresponds: bool,
    labels: dict[int, tuple[Label, ...]],
) -> tuple[Operand, ...]:
    summaries = leaf_statistics({f"{i}": value for i, value in enumerate(arguments)})
    operands = []
    for number, (atom, value) in enumerate(zip(operation.ins, arguments, strict=True)):
        known = labels.get(atom, ()) if isinstance(atom, int) else ((0, "literal"),)
        name = next((label for distance, label in known if distance == 0), "")
        at = index if np.ndim(value) else ()
        there = None
        if corresponds and len(at) == np.ndim(value) and not is_key(value):
            there = float(on_host(value)[at].real)
        operands.append(Operand(name, summaries[f"{number}"], there))
    return tuple(operands)
