"""Words for an optimiser: which transformations it chains, with which hyperparameters.

An optax transformation is a pair of closures. Its hyperparameters are the variables that the update
function closes over, under the names that optax gave them, and they are read from there. What cannot
be read is left out; nothing is called.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optax

_MAX_DEPTH = 12


def describe_optimizer(optimizer: Any) -> str:
    """The optimiser as one line: ``scale_by_adam(b1=0.9, …) → scale_by_learning_rate(…)``.

    Two optimisers with the same line have the same transformations and hyperparameters, as far as
    those are plain values. The reverse need not hold between versions of optax.
    """
    return " → ".join(_transformations(optimizer, _describe)) or "identity()"


def name_optimizer(optimizer: Any) -> str:
    """The names of the transformations alone: ``scale_by_adam → scale_by_learning_rate``."""
    return " → ".join(_transformations(optimizer, lambda update, _: _name(update))) or "identity"


def _transformations(
    optimizer: Any, word: Callable[[Callable[..., Any], int], str], depth: int = 0
) -> Iterator[str]:
    """One word for each transformation, chains and wrappers that add nothing flattened."""
    closure = _closure(optimizer.update)
    name = _name(optimizer.update)
    if depth < _MAX_DEPTH and name == "with_extra_args_support":
        yield from _transformations(closure["tx"], word, depth + 1)
    elif depth < _MAX_DEPTH and name == "chain":
        for update in closure["update_fns"]:
            yield from _transformations(
                optax.GradientTransformation(optax.identity().init, update), word, depth + 1
            )
    else:
        yield word(optimizer.update, depth)


def _name(function: Callable[..., Any]) -> str:
    owner = getattr(function, "__self__", function)
    name = getattr(owner, "__qualname__", None) or type(owner).__qualname__
    return name.split(".<locals>")[0]


def _closure(function: Callable[..., Any]) -> dict[str, Any]:
    """What a function closes over; for a method or a callable object, the object's attributes."""
    owner = getattr(function, "__self__", function)
    if not hasattr(owner, "__code__"):
        attributes = getattr(owner, "__dict__", {})
        return {name.lstrip("_"): value for name, value in attributes.items() if value is not owner}
    code, cells = getattr(function, "__code__", None), getattr(function, "__closure__", None)
    values = {}
    for name, cell in zip(code.co_freevars if code else (), cells or (), strict=True):
        try:
            values[name] = cell.cell_contents
        except ValueError:  # the cell is still empty
            continue
    return values


def _describe(function: Callable[..., Any], depth: int) -> str:
    inside = (f"{name}={_value(value, depth + 1)}" for name, value in sorted(_closure(function).items()))
    return f"{_name(function)}({', '.join(inside)})" if depth < _MAX_DEPTH else "…"


def _value(value: Any, depth: int) -> str:
    if depth > _MAX_DEPTH:
        return "…"
    if isinstance(value, optax.GradientTransformation) and callable(value.update):
        return " → ".join(_transformations(value, _describe, depth))
    if isinstance(value, dict):
        return "{" + ", ".join(f"{k}: {_value(v, depth + 1)}" for k, v in value.items()) + "}"
    if isinstance(value, (tuple, list)):
        return "[" + ", ".join(_value(v, depth + 1) for v in value) + "]"
    if hasattr(value, "dtype") and getattr(value, "ndim", 1) == 0:
        value = np.asarray(value).item()
    if isinstance(value, float) and value.is_integer():
        return repr(int(value))  # optax turns some whole numbers into floats once they are used
    if isinstance(value, (bool, int, float, complex, str, type(None))):
        return repr(value)
    if callable(value) and not isinstance(value, type):
        return _describe(value, depth)
    return getattr(value, "__qualname__", type(value).__name__)
