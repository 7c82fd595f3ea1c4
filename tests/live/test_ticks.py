"""Ticks: round numbers, told apart by their texts."""

from __future__ import annotations

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from toolshed.live.ticks import linear, logarithmic


@pytest.mark.parametrize(
    ("low", "high", "texts"),
    [
        (0, 1, ["0", "0.25", "0.50", "0.75", "1.00"]),
        (-1, 1, ["-1.0", "-0.5", "0", "0.5", "1.0"]),
        (0, 1_000_000, ["0", "0.25M", "0.50M", "0.75M", "1.00M"]),
        (0, 0.001, ["0", "2.5e-4", "5e-4", "7.5e-4", "1e-3"]),
        (9_998, 10_002, ["9.998k", "9.999k", "10.000k", "10.001k", "10.002k"]),
    ],
)
def test_linear_ticks(low, high, texts):
    assert [text for _, text in linear(low, high, 4)] == texts


def test_whole_ticks_of_a_short_axis_are_whole():
    assert [text for _, text in linear(0, 2, 6, whole=True)] == ["0", "1", "2"]
    assert [text for _, text in linear(0, 10, 4, whole=True)] == ["0", "3", "6", "9"]


@settings(deadline=None, max_examples=100)
@given(st.floats(-1e9, 1e9), st.floats(1e-6, 1e9), st.integers(2, 8))
def test_linear_ticks_lie_inside_and_their_texts_differ(low, span, number):
    high = low + span
    assume(span > 1e-7 * abs(low))
    ticks = linear(low, high, number)
    assert 1 <= len(ticks) <= number + 1
    slack = 1e-6 * span
    assert all(low - slack <= at <= high + slack for at, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks)


@settings(deadline=None, max_examples=100)
@given(st.floats(1e-30, 1e20), st.floats(1.02, 1e30))
def test_logarithmic_ticks_lie_inside_and_their_texts_differ(low, ratio):
    ticks = logarithmic(low, low * ratio)
    assert ticks
    assert all(low * 0.999 <= at <= low * ratio * 1.001 for at, _ in ticks)
    assert len({text for _, text in ticks}) == len(ticks) <= 14
