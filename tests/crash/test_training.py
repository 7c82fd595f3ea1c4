"""A training that is killed and attached to again ends with the bits of one that was left alone.

The short form; `python -m tests.crash --training 50` is the long one.
"""

from __future__ import annotations

import random

from tests.crash.harness import Breaker, Kill, Zygote, moments

STEPS, EDIT_AT = 100, 50


def test_a_training_that_was_killed_ends_with_the_same_bits(tmp_path):
    kills = [Kill(20, 0.0), Kill(EDIT_AT, 0.0), Kill(EDIT_AT + 10, 0.02), Kill(-1, 0.02)]
    zygote = Zygote("tests.crash.training", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "compiled"))
    try:
        left_alone, broken = (
            Breaker(tmp_path / "alone", steps=STEPS),
            Breaker(tmp_path / "broken", steps=STEPS),
        )
        assert broken.break_it(zygote, kills) == left_alone.break_it(zygote)
    finally:
        zygote.close()
    killed = broken.killed()
    assert sum(killed.values()) == len(kills)
    assert killed["before"] > 0
    assert killed["on"] + killed["edited"] > 0
    assert killed["after"] > 0
    assert killed["beginning"] > 0


def test_the_moments_of_the_long_form_lie_before_on_and_after_the_edit():
    found = moments(50, 1000, 500, random.Random(0))
    assert found == moments(50, 1000, 500, random.Random(0)) != moments(50, 1000, 500, random.Random(1))
    assert len(found) == 50
    assert sum(moment.at == -1 for moment in found) == 6
    steps = [moment.at for moment in found if moment.at != -1]
    assert steps == sorted(steps)
    assert steps[0] == 5
    assert steps[-1] < 980
    assert sum(495 <= step < 500 for step in steps) >= 5
    assert steps.count(500) >= 10
    assert steps.count(501) >= 5
