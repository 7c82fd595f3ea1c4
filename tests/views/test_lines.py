from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from toolshed.views.lines import alone, outline, smooth, smoothed, spread


def smooth_by_hand(steps, values, weight, stride):
    """The definition, term by term."""
    out = []
    for t in range(len(values)):
        terms = [
            (weight ** ((steps[t] - steps[i]) / stride), float(values[i]))
            for i in range(t + 1)
            if np.isfinite(values[i])
        ]
        total = sum(share * value for share, value in terms)
        out.append(total / sum(share for share, _ in terms) if np.isfinite(values[t]) else np.nan)
    return out


@settings(deadline=None, max_examples=60)
@given(
    number=st.integers(1, 120),
    weight=st.sampled_from([0.0, 0.3, 0.9, 0.999]),
    even=st.booleans(),
    seed=st.integers(0, 999),
)
def test_smoothing_is_its_definition(number, weight, even, seed):
    rng = np.random.default_rng(seed)
    steps = np.cumsum(np.full(number, 10) if even else rng.integers(1, 40, number))
    values = rng.standard_normal(number).astype(np.float32)
    values[rng.random(number) < 0.1] = np.nan
    expected = smooth_by_hand(steps, values, weight, 10.0)
    np.testing.assert_allclose(smooth(steps, values, weight, 10.0), expected, rtol=1e-6, atol=1e-9)


def test_the_first_value_counts_no_more_than_it_should():
    """0.9·1 + 0.1·0 over 0.9 + 0.1 would be 0.9 without the division's 1 / (1 - w²): it is w/(1 + w)."""
    assert smooth(np.array([1, 2]), np.array([1.0, 0.0]), 0.9)[1] == pytest.approx(0.9 / 1.9)
    assert smooth(np.arange(50), np.full(50, 3.0), 0.99) == pytest.approx(np.full(50, 3.0))


def test_a_line_logged_each_hundredth_step_is_smoothed_over_the_same_time():
    steps = np.arange(10_000)
    values = np.sin(steps / 700)
    every, hundredth = smooth(steps, values, 0.999), smooth(steps[::100], values[::100], 0.999)
    assert np.abs(every[::100] - hundredth)[20:].max() < 0.08
    by_points = smooth(np.arange(100), values[::100], 0.999)  # the control: as if they were neighbours
    assert np.abs(every[::100] - by_points)[20:].max() > 0.5


def test_lines_whose_values_lie_far_apart_are_left_as_they_are():
    steps, values = np.arange(0, 1000, 100), np.arange(10.0)
    assert smoothed(steps, values, 0.9, 1.0) is values  # 0.9¹⁰⁰ is 0.00003
    assert smoothed(steps, values, 0.0, 100.0) is values
    assert smoothed(steps[:1], values[:1], 0.9, 100.0)[0] == 0
    assert smoothed(steps, values, 0.9, 100.0)[1] == pytest.approx(1 / 1.9)


@settings(deadline=None, max_examples=60)
@given(number=st.integers(1, 900), columns=st.integers(1, 50), seed=st.integers(0, 999))
def test_an_outline_has_the_true_extremes_of_each_column(number, columns, seed):
    rng = np.random.default_rng(seed)
    steps = np.cumsum(rng.integers(1, 9, number))
    values = rng.standard_normal(number).astype(np.float32)
    values[rng.random(number) < 0.2] = np.inf
    x, y = outline(steps, values, columns)
    finite = np.isfinite(values)
    if number <= 2 * columns:
        assert x.tolist() == steps.tolist()
        assert y[finite].tolist() == values[finite].tolist()
        assert np.isnan(y[~finite]).all()
        return
    assert len(x) <= 2 * columns
    starts = x[::2]
    for place, start in enumerate(starts):
        stop = starts[place + 1] if place + 1 < len(starts) else np.inf
        inside = values[(steps >= start) & (steps < stop) & finite]
        drawn = sorted(y[2 * place : 2 * place + 2])
        assert drawn == [inside.min(), inside.max()] if len(inside) else np.isnan(drawn).all()


def test_an_outline_of_a_million_values_keeps_a_single_spike():
    values = np.zeros(1_000_000, np.float32)
    values[765_432] = 7
    x, y = outline(np.arange(1_000_000), values)
    assert len(x) <= 2400
    assert y.max() == 7
    assert 765_432 - 834 <= x[y.argmax()] <= 765_432  # a column is 834 steps


def test_points_between_gaps_are_found():
    nan = np.nan
    values = np.array([1, nan, 2, nan, 3, 4, nan, 5])
    assert alone(np.arange(8), values).tolist() == [0, 2, 7]
    assert alone(np.arange(3), np.ones(3)).tolist() == []
    assert alone(np.array([4, 4, 5, 5]), np.array([1, 1, nan, nan])).tolist() == [0]
    assert alone(np.zeros(0), np.zeros(0)).tolist() == []


def test_many_steps_are_spread_and_few_are_all_there():
    assert spread(np.arange(150)).tolist() == list(range(150))
    assert spread(np.arange(10_000), 4).tolist() == [0, 2500, 5000, 7500]
    assert len(spread(np.array([0, 1, 2, 10**12]), 3)) == 2
