"""Remat computes again instead of keeping, and comes to the same gradients."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gradients import by_hand
from tests.gradients.by_hand import CARRY, KEY, same
from toolshed.gradients import Backprop, Remat

POLICIES = [None, jax.checkpoint_policies.dots_saveable, jax.checkpoint_policies.everything_saveable]


def test_gradients_with_remat_agree_with_finite_differences():
    with jax.enable_x64(True):
        p, b = by_hand.params(np.float64), by_hand.batch(5, [1, 1, 0, 1, 1], np.float64)
        by_hand.check_exact(Remat(), by_hand.loss_fn, p, CARRY, b)


@pytest.mark.parametrize("policy", POLICIES)
def test_everything_else_is_as_in_backprop(policy):
    p, b = by_hand.params(), by_hand.batch(8, [1, 0, 1, 1, 0, 1, 1, 1])
    ours = jax.jit(lambda: Remat(policy)(by_hand.noisy_loss_fn, p, CARRY, b, KEY))()
    same(ours, jax.jit(lambda: Backprop()(by_hand.noisy_loss_fn, p, CARRY, b, KEY))())


def test_activations_are_computed_again_as_far_as_the_policy_says():
    def times(strategy: Any, operation: str) -> int:
        run = jax.jit(lambda p: strategy(by_hand.loss_fn, p, CARRY, by_hand.batch(), KEY))
        return run.lower(by_hand.params()).as_text().count(operation)

    exact, nothing, products = Backprop(), Remat(), Remat(jax.checkpoint_policies.dots_saveable)
    assert times(exact, "stablehlo.tanh") == 1
    assert times(nothing, "stablehlo.tanh") == times(products, "stablehlo.tanh") == 2
    assert times(nothing, "dot_general") > times(products, "dot_general") == times(exact, "dot_general")


def test_a_function_that_was_traced_before_is_traced_anew():
    """Two calls with one function object, whose closure has another value the second time."""
    scale = {"now": 1.0}

    def scaled(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        return jnp.sum(params["second"]) * scale["now"], (carry, {})

    _, _, first = Remat()(scaled, by_hand.params(), (), {}, KEY)
    scale["now"] = 3.0
    _, _, second = Remat()(scaled, by_hand.params(), (), {}, KEY)
    assert (float(first["second"][0]), float(second["second"][0])) == (1.0, 3.0)
