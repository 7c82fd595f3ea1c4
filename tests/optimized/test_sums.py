"""Totals of float32 numbers that are as right as float64's, inside compiled programs, too."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.metrics import sums

floats = st.floats(-1e6, 1e6, width=32, allow_subnormal=False)


def as_float(pair: jax.Array) -> float:
    return float(np.asarray(pair, np.float64).sum(0))


@settings(deadline=None, max_examples=50)
@given(st.lists(floats, min_size=8, max_size=8))
def test_a_sum_and_its_error_are_the_exact_sum(values):
    a, b = values[0], values[1]
    total, error = jax.jit(sums.two_sum)(jnp.float32(a), jnp.float32(b))
    assert total == np.float32(a) + np.float32(b)
    assert math.fsum([float(total), float(error)]) == math.fsum([float(np.float32(a)), float(np.float32(b))])


@settings(deadline=None, max_examples=50)
@given(st.lists(floats, min_size=8, max_size=8))
def test_a_total_is_float64_s_to_twice_float32_s_digits(values):
    values = np.array(values, np.float32)
    total = as_float(jax.jit(sums.total)(jnp.asarray(values)))
    scale = np.abs(values.astype(np.float64)).sum()
    assert abs(total - math.fsum(values.tolist())) <= 2.0**-44 * scale


def test_a_long_run_of_additions_stays_right_where_float32_alone_does_not():
    """0.1 added 200,000 times inside one program; float32 alone ends 0.3 % off."""
    tenth = jnp.float32(0.1)

    @jax.jit
    def run(pair, plain):
        def body(_, carry):
            return sums.add(carry[0], sums.exact(tenth)), carry[1] + tenth

        return jax.lax.fori_loop(0, 200_000, body, (pair, plain))

    pair, plain = run(sums.zeros(), jnp.float32(0))
    expected = 200_000 * float(np.float32(0.1))
    assert as_float(pair) == pytest.approx(expected, rel=1e-11)
    assert abs(float(plain) - expected) > 1e-3 * expected


def test_counts_go_on_where_float32_stands_still():
    limit = sums.exact(jnp.float32(2**24))
    counted = sums.add(sums.add(limit, sums.count(jnp.ones(1, bool))), sums.count(jnp.ones(1, bool)))
    assert as_float(counted) == 2**24 + 2
    assert float(sums.value(sums.add(counted, sums.count(jnp.ones(2, bool))))) == 2**24 + 4
    assert float(jnp.float32(2**24) + 1) == 2**24  # the standstill


@pytest.mark.parametrize("number", [0, 1, 2**24 + 1, 2**31 - 65, -(2**30) - 1])
def test_integers_are_held_exactly(number):
    assert as_float(sums.from_integers(jnp.int32(number))) == number


def test_totals_along_an_axis_are_those_of_each_row():
    values = np.random.default_rng(0).normal(size=(3, 5)).astype(np.float32)
    np.testing.assert_allclose(sums.value(sums.total(values, axis=1)), values.sum(1), rtol=1e-6)
    np.testing.assert_allclose(sums.value(sums.total(values, axis=-2)), values.sum(0), rtol=1e-6)
    assert float(sums.value(sums.total(jnp.float32(3.0)))) == 3.0


@pytest.mark.parametrize(
    ("values", "total"),
    [
        ([np.inf, 1.0], np.inf),
        ([1.0, -np.inf], -np.inf),
        ([np.inf, -np.inf], np.nan),
        ([np.nan, 1.0], np.nan),
    ],
)
def test_what_is_not_finite_is_as_in_numpy(values, total):
    found = sums.value(sums.total(jnp.array(values, jnp.float32)))
    np.testing.assert_equal(float(found), total)
    np.testing.assert_equal(float(sums.value(sums.add(sums.exact(found), sums.exact(1.0)))), total)


def test_a_ratio_over_nothing_is_not_a_number():
    assert np.isnan(sums.ratio(jnp.float32(1), jnp.float32(0)))
    assert float(sums.ratio(jnp.float32(1), jnp.float32(4))) == 0.25
