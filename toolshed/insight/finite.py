"""Whether values are finite, and where they are not."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

INF, NAN = 1, 2
"""The bits that `nonfinite` gives: some value is infinite, some value is NaN."""


def nonfinite(value: Any) -> int:
    """0 for a value that is finite throughout; otherwise `INF`, `NAN` or both. Waits for the value."""
    if not is_inexact(value):
        return 0
    if isinstance(value, jax.Array) and next(iter(value.sharding.device_set)).platform != "cpu":
        nan, inf = map(bool, _look(value))
    else:
        array = on_host(value)  # of a CPU's memory no copy is made
        if np.isfinite(array).all():
            return 0
        nan, inf = bool(np.isnan(array).any()), bool(np.isinf(array).any())
    return (NAN if nan else 0) | (INF if inf else 0)


@jax.jit
def _look(value: Any) -> jax.Array:
    return flags(value)


def flags(value: Any) -> jax.Array:
    """Whether any value is NaN and whether any is infinite, bool[2]. For compiled code."""
    if not is_inexact(value):
        return jnp.zeros(2, bool)
    return jnp.stack([jnp.isnan(value).any(), jnp.isinf(value).any()])


def is_inexact(value: Any) -> bool:
    """True for what can be NaN or infinite at all."""
    return hasattr(value, "dtype") and jnp.issubdtype(value.dtype, jnp.inexact)


def on_host(value: Any) -> np.ndarray:
    """A value in numpy's hands; types that numpy cannot ask about finiteness as float32."""
    array = np.asarray(value)
    return array.astype(np.float32) if array.dtype.kind == "V" else array


def copied(tree: Any) -> Any:
    """A tree with arrays of its own, which can be given to a function that donates them."""
    return jax.tree.map(lambda leaf: jnp.copy(leaf) if isinstance(leaf, jax.Array) else leaf, tree)
