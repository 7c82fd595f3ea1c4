"""A training that is killed and attached to again ends with the bits of one that was left alone.

The short form; `python -m tests.crash --training 50` is the long one.
"""

from __future__ import annotations

import random

from tests.crash.harness import Breaker, Zygote


def test_a_training_that_was_killed_ends_with_the_same_bits(tmp_path):
    zygote = Zygote("tests.crash.training", JAX_COMPILATION_CACHE_DIR=str(tmp_path / "compiled"))
    try:
        left_alone = Breaker(tmp_path / "alone", source=random.Random(0), steps=240)
        broken = Breaker(tmp_path / "broken", source=random.Random(1), steps=240, seconds=0.01, life=1.2)
        assert broken.break_it(zygote, kills=3) == left_alone.break_it(zygote, kills=0)
    finally:
        zygote.close()
