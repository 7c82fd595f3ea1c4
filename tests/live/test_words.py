"""Numbers of a run in words."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.live.scripted import training
from toolshed.live.scene import head
from toolshed.live.words import duration, sentence, value


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599.6, "1:00:00"), (7325, "2:02:05"),
        (172_799, "47:59:59"), (172_800, "2 d 0 h"), (None, "–"), (float("inf"), "–"), (float("nan"), "–"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0"), (1, "1.000"), (-1.5, "-1.500"), (0.1234567, "0.1235"), (1234.5, "1234"), (99_999, "99,999"),
        (2.5e6, "2.5e6"), (1e-5, "1e-5"), (float("-inf"), "-∞"), (None, "–"),
    ],
)  # fmt: skip
def test_values(number, text):
    assert value(number) == text


@given(st.floats(-1e12, 1e12))
def test_a_value_reads_back_to_four_digits(number):
    read = float(value(number).replace(",", ""))
    assert read == pytest.approx(number, rel=1e-3, abs=1e-300)


def test_a_sentence_on_a_run():
    text = "training at step 1,234 of 5,000 · epoch 2.37 · 0:13 · 812 steps/s · on main"
    assert sentence(head(training())) == text
