"""Values of people's own: what `Run.log` takes."""

from __future__ import annotations

import numbers
from collections.abc import Collection
from typing import Any

import jax.numpy as jnp
from jax.core import Tracer

from toolshed import paths
from toolshed.errors import RunError


def is_number(value: Any) -> bool:
    """Whether this is one real number, of Python's or in an array. Waits for nothing."""
    dtype = getattr(value, "dtype", None)
    if dtype is None:
        return isinstance(value, numbers.Real)
    kinds = (jnp.floating, jnp.integer, jnp.bool_)
    return getattr(value, "shape", None) == () and any(jnp.issubdtype(dtype, kind) for kind in kinds)


def check_logged(name: Any, value: Any, own: Collection[str]) -> None:
    """Checks a value without waiting for it.

    Args:
      name: what it is to be called.
      value: the value.
      own: names that the run gives values of its own.

    Raises:
      RunError: it is no real number, or cannot have this name.
    """
    if not isinstance(name, str) or not name:
        raise RunError(f"A value is to be logged as {name!r}; expected a name such as 'probe/norm'.")
    if name in own:
        raise RunError(
            f"The run writes values named {name!r} itself. Choose another name, such as 'my/{name}'."
        )
    if isinstance(value, Tracer):
        raise RunError(
            f"{name} is a value that jax is tracing; there is no number yet. Let the loss function return it"
            " in its aux, make it a metric, or call run.log from jax.debug.callback."
        )
    if not is_number(value):
        raise RunError(f"{name} is {paths.describe(value)}; expected one real number.")
