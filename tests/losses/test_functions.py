"""Losses that optax lacks: values derived by hand, gradients by finite differences, masks left out."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.losses import correlation, quantile, sharpe

RNG = np.random.default_rng(0)
X, Y = (RNG.normal(size=12).astype(np.float32) for _ in range(2))
MASK = np.arange(12) % 3 != 0


def test_a_quantile_loss_weighs_errors_above_and_below():
    # errors 2 and -4: 0.9 * 2 and (0.9 - 1) * -4
    losses = quantile(jnp.array([1.0, 5.0]), jnp.array([3.0, 1.0]), q=0.9)
    assert losses.tolist() == pytest.approx([1.8, 0.4])


def test_half_the_absolute_error_is_the_loss_of_the_median():
    np.testing.assert_allclose(quantile(jnp.array(X), jnp.array(Y)), np.abs(X - Y) / 2, rtol=1e-6)


def test_the_best_constant_prediction_is_the_quantile():
    targets = jnp.arange(101.0)
    losses = [float(quantile(jnp.full(101, c), targets, q=0.8).mean()) for c in range(101)]
    assert int(np.argmin(losses)) == 80


@pytest.mark.parametrize("q", [0.0, 1.0, -0.1, 90])
def test_a_quantile_outside_of_0_to_1_is_an_error(q):
    with pytest.raises(ValueError, match=rf"^q is {q}; expected a number between 0 and 1\.$"):
        quantile(jnp.array(X), jnp.array(Y), q=q)


@settings(deadline=None, max_examples=30)
@given(st.integers(0, 2**32 - 1), st.floats(0.1, 10), st.floats(-5, 5))
def test_correlation_is_pearsons_whatever_scale_and_shift(seed, scale, shift):
    x, y = np.random.default_rng(seed).normal(size=(2, 20)).astype(np.float32)
    expected = 1 - np.corrcoef(x, y)[0, 1]
    found = correlation(jnp.array(x * np.float32(scale) + np.float32(shift)), jnp.array(y))
    assert float(found) == pytest.approx(expected, abs=1e-4)


def test_correlation_is_0_for_a_perfect_fit_and_2_for_the_opposite():
    assert float(correlation(jnp.array(X), jnp.array(3 * X + 1))) == pytest.approx(0, abs=1e-6)
    assert float(correlation(jnp.array(X), jnp.array(-X))) == pytest.approx(2, abs=1e-6)


def test_sharpe_is_minus_the_mean_over_the_deviation():
    # mean 2, deviations -1 and 1
    assert float(sharpe(jnp.array([1.0, 3.0]))) == pytest.approx(-2.0)
    assert float(sharpe(jnp.array(X))) == pytest.approx(-X.mean() / X.std(), rel=1e-5)


@pytest.mark.parametrize("poison", [np.nan, np.inf, 1e30])
def test_what_is_masked_stays_out_with_its_gradient(poison):
    x = np.where(MASK, X, poison).astype(np.float32)
    value, grad = jax.value_and_grad(correlation)(jnp.array(x), jnp.array(Y), jnp.array(MASK))
    assert float(value) == pytest.approx(1 - np.corrcoef(X[MASK], Y[MASK])[0, 1], abs=1e-5)
    assert np.all(np.isfinite(grad))
    assert np.all(np.asarray(grad)[~MASK] == 0)
    value, grad = jax.value_and_grad(sharpe)(jnp.array(x), jnp.array(MASK))
    assert float(value) == pytest.approx(-X[MASK].mean() / X[MASK].std(), rel=1e-5)
    assert np.all(np.isfinite(grad))
    assert np.all(np.asarray(grad)[~MASK] == 0)


@pytest.mark.parametrize("values", [np.full(4, 2.0), np.zeros(4)], ids=["all the same", "all zero"])
def test_what_does_not_vary_has_a_loss_and_a_gradient_without_nan(values):
    values = jnp.array(values, jnp.float32)
    value, grad = jax.value_and_grad(correlation)(values, jnp.arange(4.0))
    assert float(value) == 1
    assert grad.tolist() == [0, 0, 0, 0]
    value, grad = jax.value_and_grad(sharpe)(values)
    assert float(value) == 0
    assert grad.tolist() == [0, 0, 0, 0]


@pytest.mark.parametrize(
    "loss",
    [
        lambda x, y: quantile(x, y, q=0.3).mean(),
        lambda x, y: correlation(x, y),
        lambda x, y: sharpe(x * y),
        lambda x, y: correlation(x, y, MASK),
        lambda x, y: sharpe(x * y, MASK),
    ],
    ids=["quantile", "correlation", "sharpe", "correlation, masked", "sharpe, masked"],
)
def test_gradients_agree_with_finite_differences(loss):
    with jax.enable_x64(True):
        x, y = jnp.array(X, jnp.float64), jnp.array(Y, jnp.float64)
        grad = np.asarray(jax.grad(loss)(x, y))
        for i in range(len(X)):
            nudge = jnp.zeros(len(X)).at[i].set(1e-6)
            slope = (loss(x + nudge, y) - loss(x - nudge, y)) / 2e-6
            assert grad[i] == pytest.approx(float(slope), abs=1e-8)
