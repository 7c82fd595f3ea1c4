"""Loss functions that optax does not have. All others are optax's own."""

from __future__ import annotations

import jax
import jax.numpy as jnp
from jaxtyping import Array, Bool, Float


def quantile(
    predictions: Float[Array, "*examples"], targets: Float[Array, "*examples"], q: float = 0.5
) -> Float[Array, "*examples"]:
    """The quantile (pinball) loss of each example; its minimum over examples is their q-quantile.

    ``q * e`` where the error ``e = targets - predictions`` is positive, ``(q - 1) * e`` where it is not.

    Args:
      predictions: float[...].
      targets: float[...].
      q: which quantile, between 0 and 1.

    Raises:
      ValueError: ``q`` is not between 0 and 1.

    References:
      R. Koenker and G. Bassett, "Regression Quantiles", Econometrica 46(1), 1978.
    """
    if not 0 < q < 1:
        raise ValueError(f"q is {q!r}; expected a number between 0 and 1.")
    error = targets - predictions
    return jnp.maximum(q * error, (q - 1) * error)


def correlation(
    predictions: Float[Array, "*examples"],
    targets: Float[Array, "*examples"],
    mask: Bool[Array, "*examples"] | None = None,
) -> Float[Array, ""]:
    """One minus Pearson's correlation of predictions and targets: 0 at best, 2 at worst.

    Of a batch as a whole: batches that are small, or cut in several parts, give another loss. Where
    one of the two does not vary it is 1, with a gradient of 0.

    Args:
      predictions: float[...].
      targets: float[...].
      mask: which examples count, bool[...]; None for all.
    """
    predictions, targets = _centred(predictions, mask), _centred(targets, mask)
    product = jnp.sum(predictions**2) * jnp.sum(targets**2)
    varies = product > 0
    return 1 - jnp.where(
        varies, jnp.sum(predictions * targets) / jnp.sqrt(jnp.where(varies, product, 1.0)), 0.0
    )


def sharpe(
    returns: Float[Array, "*periods"], mask: Bool[Array, "*periods"] | None = None
) -> Float[Array, ""]:
    """The negative Sharpe ratio of returns: minus their mean over their standard deviation.

    Not annualised, and with a risk-free rate of 0: subtract yours first. The deviation is that of the
    sample at hand (divided by n). Where returns do not vary it is 0, with a gradient of 0.

    Args:
      returns: float[...], one a period.
      mask: which periods count, bool[...]; None for all.

    References:
      W. F. Sharpe, "The Sharpe Ratio", Journal of Portfolio Management 21(1), 1994.
    """
    count = jnp.maximum(jnp.sum(_real(returns, mask)), 1)
    deviations = _centred(returns, mask)
    variance = jnp.sum(deviations**2) / count
    varies = variance > 0
    mean = jnp.sum(jnp.where(_real(returns, mask), returns, 0)) / count
    return jnp.where(varies, -mean / jnp.sqrt(jnp.where(varies, variance, 1.0)), 0.0)


def _real(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    return jnp.ones(values.shape, bool) if mask is None else mask


def _centred(values: jax.Array, mask: jax.Array | None) -> jax.Array:
    """The deviations from the mean; 0 for what does not count, whatever it is."""
    real = _real(values, mask)
    values = jnp.where(real, values, 0)
    return jnp.where(real, values - jnp.sum(values) / jnp.maximum(jnp.sum(real), 1), 0)
