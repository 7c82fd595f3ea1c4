"""Totals that stay right over long runs, in float32.

A total is a pair: the sum as float32 holds it, and what its rounding left out. Each addition finds its
own rounding error (Knuth's two-sum) and keeps it in the second number, so that a total of counts is
exact up to 2**48, where a single float32 stands still at 2**24. Pairs are rows of one array,
``float32[2, ...]``, so that however many totals a metric has, its state is one array and one addition.

References:
  D. Knuth, The Art of Computer Programming 2, section 4.2.2, theorem B. T. Dekker, "A floating-point
  technique for extending the available precision", Numerische Mathematik 18, 1971.
"""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
from jaxtyping import Array, Float32

Pairs = Float32[Array, "2 ..."]


def zeros(*shape: int) -> Pairs:
    """Totals of nothing, float32[2, *shape]."""
    return jnp.zeros((2, *shape), jnp.float32)


def two_sum(a: Any, b: Any) -> tuple[Any, Any]:
    """The rounded sum of two numbers and its exact rounding error; no error where it is not finite."""
    total = a + b
    part = total - a
    error = (a - (total - part)) + (b - part)
    return total, jnp.where(jnp.isfinite(total), error, 0)


def add(a: Pairs, b: Pairs) -> Pairs:
    """Totals of both, element by element."""
    high, error = two_sum(a[0], b[0])
    return jnp.stack(two_sum(high, error + (a[1] + b[1])))


def total(values: Any, axis: int | tuple[int, ...] | None = None) -> Pairs:
    """The sum of float32 values over axes (None: all of them), as pairs."""
    values = jnp.asarray(values, jnp.float32)
    axes = range(values.ndim) if axis is None else (axis,) if isinstance(axis, int) else axis
    axes = tuple(number % values.ndim for number in axes)
    zero = jnp.float32(0)

    def combine(a: Any, b: Any) -> Any:
        high, error = two_sum(a[0], b[0])
        return high, error + (a[1] + b[1])

    high, low = jax.lax.reduce((values, jnp.zeros_like(values)), (zero, zero), combine, axes)
    return jnp.stack(two_sum(high, low))


def count(mask: Any, axis: int | None = None) -> Pairs:
    """How many entries of bool[...] are true, as pairs; exact."""
    return from_integers(jnp.asarray(mask).sum(axis=axis, dtype=jnp.int32))


def from_integers(numbers: Any) -> Pairs:
    """Integers as pairs; exact up to 2**31 - 65."""
    high = numbers.astype(jnp.float32)
    # Below 2**24 float32 holds every integer; above, the second row holds the difference.
    return jnp.stack([high, (numbers - high.astype(jnp.int32)).astype(jnp.float32)])


def pack(*pairs: Pairs) -> Float32[Array, "2 k"]:
    """Single totals side by side in one array."""
    return jnp.stack(pairs, axis=1)


def exact(values: Any) -> Pairs:
    """Values that are float32 numbers as they are, as pairs."""
    values = jnp.asarray(values, jnp.float32)
    return jnp.stack([values, jnp.zeros_like(values)])


def value(pairs: Pairs) -> Float32[Array, "..."]:
    """The totals, rounded to float32."""
    return pairs[0] + pairs[1]


def ratio(total: Any, count: Any) -> Any:
    """``total / count``, NaN where the count is 0."""
    return jnp.where(count != 0, total / jnp.where(count != 0, count, 1), jnp.nan)
