"""Means and squared deviations that merge without the cancellation of sums of squares.

The state of k quantities over the same n values is one array of pairs (see `toolshed.metrics.sums`):
``float32[2, 1 + 2k]`` with n, then a mean and a sum of squared deviations from it for each.

References:
  T. Chan, G. Golub and R. LeVeque, "Updating formulae and a pairwise algorithm for computing sample
  variances", 1979.
"""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
from jaxtyping import Array, Float32

from toolshed.metrics import sums

Moments = Float32[Array, "2 n"]


def no_moments(k: int, more: int = 0) -> Moments:
    """The moments of no value, of ``k`` quantities, with room for ``more`` totals behind them."""
    return sums.zeros(1 + 2 * k + more)


def moments(mask: Any, *quantities: Any) -> Moments:
    """The moments of the entries of some arrays whose mask, in their shape, is true."""
    number = mask.sum(dtype=jnp.int32)
    columns = [sums.from_integers(number)]
    for values in quantities:
        columns += _mean_and_squares(jnp.asarray(values, jnp.float32), mask, number.astype(jnp.float32))
    return sums.pack(*columns)


def _mean_and_squares(values: Any, mask: Any, number: Any) -> list[Any]:
    n = jnp.maximum(number, 1)
    # Measured from one of the values, equal values have a deviation of exactly 0.
    origin = jnp.where(mask, values, -jnp.inf).max(initial=-jnp.inf)
    origin = jnp.where(number > 0, origin, 0)
    center = origin + sums.value(sums.total(jnp.where(mask, values - origin, 0))) / n
    deviations = jnp.where(mask, values - center, 0)
    rest = sums.value(sums.total(deviations))  # what rounding the mean left out
    squares = sums.total(deviations * deviations)
    mean = jnp.stack(sums.two_sum(center, rest / n))
    return [mean, sums.add(squares, sums.exact(-rest * rest / n))]


def merge_moments(a: Moments, b: Moments, k: int) -> Moments:
    """The moments of both sets of values; totals behind those of ``k`` quantities are added."""
    counts = sums.add(a[:, 0], b[:, 0])
    n = jnp.maximum(sums.value(counts), 1)
    n_a, n_b = sums.value(a[:, 0]), sums.value(b[:, 0])
    columns = [counts]
    for i in range(1, 1 + 2 * k, 2):
        apart = sums.value(sums.add(b[:, i], -a[:, i]))
        apart = jnp.where((n_a > 0) & (n_b > 0), apart, 0)  # from no mean there is no distance
        columns.append(_moved(a[:, i], b[:, i], apart, n_a, n_b, n))
        between = sums.exact(apart * apart * (n_a * (n_b / n)))
        columns.append(sums.add(sums.add(a[:, i + 1], b[:, i + 1]), between))
    columns += [sums.add(a[:, i], b[:, i]) for i in range(1 + 2 * k, a.shape[1])]
    return sums.pack(*columns)


def _moved(mean_a: Any, mean_b: Any, apart: Any, n_a: Any, n_b: Any, n: Any) -> Any:
    """The mean of both, reached from that of the larger set, where the step is shorter."""
    from_a = sums.add(mean_a, sums.exact(apart * (n_b / n)))
    from_b = sums.add(mean_b, sums.exact(-apart * (n_a / n)))
    return jnp.where(n_a >= n_b, from_a, from_b)
