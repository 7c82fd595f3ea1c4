"""A run in words."""

from __future__ import annotations

import pytest

from tests.live.scripted import training
from toolshed.live.scene import head
from toolshed.live.words import duration, sentence


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0:00"), (59.4, "0:59"), (59.6, "1:00"), (3599.6, "1:00:00"), (7325, "2:02:05"),
        (172_799, "47:59:59"), (172_800, "2 d 0 h"), (None, "–"), (float("inf"), "–"), (float("nan"), "–"),
    ],
)  # fmt: skip
def test_durations(seconds, text):
    assert duration(seconds) == text


def test_a_sentence_on_a_run():
    text = "training at step 1,234 of 5,000 · epoch 2.37 · 0:13 · 812 steps/s · on main"
    assert sentence(head(training())) == text
