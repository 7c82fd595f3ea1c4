"""Taps: values looked at where they are computed, deep inside a model or a loss function.

``tap("name", value)`` gives the value back unchanged. While a training step is traced it is also noted,
and becomes ``Context.interms["name"]``; at all other times a tap does nothing.
"""

from __future__ import annotations

import contextlib
import contextvars
from collections.abc import Iterator
from typing import Any, TypeVar

from toolshed.errors import ToolshedError

T = TypeVar("T")


class _Collector:
    """The values tapped during one call of a loss function."""

    def __init__(self) -> None:
        self.values: dict[str, Any] = {}
        self.trace = _trace()


_collector: contextvars.ContextVar[_Collector | None] = contextvars.ContextVar("collector", default=None)


def tap(name: str, value: T) -> T:
    """Notes a value as ``Context.interms[name]``, and gives it back.

    A name that is tapped again in the same step, by a layer that is called twice say, gets a number:
    ``name``, ``name#2``, ``name#3``.

    Args:
      name: a path of your own; ``/`` makes groups that globs can match.
      value: any pytree of arrays.

    Raises:
      ToolshedError: the tap stands inside a function that jax transforms apart (the body of a scan, a
        vmap, an inner jit or checkpoint), whose values cannot leave it this way.
    """
    collector = _collector.get()
    if collector is None:
        return value
    if not isinstance(name, str) or not name:
        raise ToolshedError(f"The name of a tap is {name!r}; expected a string.")
    if _trace() != collector.trace:
        raise ToolshedError(
            f"tap({name!r}) stands inside a function that jax transforms apart: the body of a scan or a"
            " loop, a vmap, an inner jit or checkpoint. Let that function return the value, and tap it"
            " outside."
        )
    unique, number = name, 1
    while unique in collector.values:
        number += 1
        unique = f"{name}#{number}"
    collector.values[unique] = value
    return value


@contextlib.contextmanager
def collecting() -> Iterator[dict[str, Any]]:
    """Notes all that is tapped within, in the dict that it gives. Innermost first, where nested."""
    collector = _Collector()
    token = _collector.set(collector)
    try:
        yield collector.values
    finally:
        _collector.reset(token)


def tapped_now() -> dict[str, Any]:
    """What was tapped so far in the call of a loss function that is under way."""
    collector = _collector.get()
    return {} if collector is None else collector.values


def _trace() -> Any:
    import jax.extend  # slow to import, and only a step that is being traced needs it

    return jax.extend.core.get_opaque_trace_state(convention="toolshed")
