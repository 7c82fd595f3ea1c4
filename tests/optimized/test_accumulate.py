"""Accumulated gradients hold one micro batch at a time."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp

from tests.gradients.by_hand import KEY
from toolshed.gradients import Accumulate, backprop


def test_one_micro_batch_is_held_at_a_time():
    """The largest array beside the batch itself: activations of 64 × 256, not of 512 × 256."""

    def wide(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        return jnp.mean(jnp.tanh(jnp.tanh(batch["x"] @ params["w"]) @ params["v"])), (carry, {})

    p = {"w": jnp.ones((4, 256)), "v": jnp.ones((256, 256))}
    b = {"x": jnp.ones((512, 4))}

    def held(strategy: Any) -> int:
        run = jax.jit(lambda p, b: strategy(wide, p, (), b, KEY)[2])
        return run.lower(p, b).compile().memory_analysis().temp_size_in_bytes

    assert held(Accumulate(8)) < held(backprop) / 2
