"""Backprop is jax's own gradient, and applies nothing."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np

from toolshed.gradients import backprop


def loss_fn(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
    noise = jax.random.normal(rng, batch["x"].shape)
    loss = jnp.sum((params["w"] * batch["x"] + noise) ** 2)
    return loss, ((carry[0] + 1, loss), {"noise": noise})


def test_backprop_gives_loss_carry_aux_and_exact_gradients():
    params, batch, key = {"w": jnp.float32(2)}, {"x": jnp.array([1.0, -3.0])}, jax.random.key(0)
    loss, (carry, aux), grads = backprop(loss_fn, params, (jnp.int32(4), jnp.float32(0)), batch, key)
    noise = np.asarray(jax.random.normal(key, (2,)))
    x = np.array([1.0, -3.0])
    np.testing.assert_allclose(loss, np.sum((2 * x + noise) ** 2), rtol=1e-5)
    np.testing.assert_allclose(grads["w"], np.sum(2 * (2 * x + noise) * x), rtol=1e-5)  # d/dw Σ(wx + n)²
    assert int(carry[0]) == 5
    assert float(carry[1]) == float(loss)
    np.testing.assert_array_equal(aux["noise"], noise)
    assert float(params["w"]) == 2.0


def test_what_is_carried_is_not_differentiated():
    def through_the_carry(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        return params["w"] * carry, (params["w"] * 100, {})

    _, (carry, _), grads = backprop(
        through_the_carry, {"w": jnp.float32(3)}, jnp.float32(5), {}, jax.random.key(0)
    )
    assert float(grads["w"]) == 5.0
    assert float(carry) == 300.0
