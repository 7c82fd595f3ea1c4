"""A small network, a loss that knows masks, and gradients by finite differences to check strategies by."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
from jax.flatten_util import ravel_pytree

from tests import zoo

KEY = jax.random.key(3)
CARRY = {"calls": np.int32(4)}


def params(dtype: Any = np.float32) -> dict[str, jax.Array]:
    """3 → 2 → 1: 10 numbers in three arrays."""
    rng = np.random.default_rng(0)
    shapes = {"bias": (2,), "first": (3, 2), "second": (2,)}
    return {name: jnp.asarray(rng.normal(size=shape), dtype) for name, shape in shapes.items()}


def batch(n: int = 8, mask: Any = None, dtype: Any = np.float32) -> dict[str, jax.Array]:
    """``x`` [n, 3], ``y`` [n] and, if it is given, ``mask`` bool[n]."""
    rng = np.random.default_rng(1)
    entries = {"x": rng.normal(size=(n, 3)), "y": rng.normal(size=n)}
    arrays = {name: jnp.asarray(entry, dtype) for name, entry in entries.items()}
    return arrays if mask is None else {**arrays, "mask": jnp.asarray(mask)}


def loss_fn(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
    """Mean squared error over the examples whose mask is true; 0/0 where none is. Counts its calls."""
    del rng
    preds = jnp.tanh(batch["x"] @ params["first"] + params["bias"]) @ params["second"]
    errors = (preds - batch["y"]) ** 2
    mask = batch.get("mask", jnp.ones(errors.shape, bool))
    loss = jnp.where(mask, errors, 0).sum() / mask.sum()
    return loss, ({"calls": carry["calls"] + 1}, {"preds": preds, "error": loss, "examples": mask.sum()})


def noisy_loss_fn(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
    """`loss_fn` with noise on the inputs, a number for each example; aux has the noise."""
    noise = jax.random.normal(rng, batch["x"].shape[:1])
    loss, (carry, aux) = loss_fn(params, carry, {**batch, "x": batch["x"] + noise[:, None]}, rng)
    return loss, (carry, {**aux, "noise": noise})


def masked_zoo_loss(*, model: Any, state: Any, rng: Any, x: Any, y: Any, mask: Any = None) -> Any:
    """The zoo's regression loss, as a mean over the examples whose mask is true."""
    _, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
    errors = jnp.mean((aux["preds"] - y) ** 2, axis=1)
    mask = jnp.ones(errors.shape, bool) if mask is None else mask
    loss = jnp.where(mask, errors, 0).sum() / mask.sum()
    return loss, state, {**aux, "losses": {"size": jnp.mean(aux["preds"] ** 2)}}


def differences(strategy: Any, loss_fn: Any, params: Any, carry: Any, batch: Any, rng: Any) -> Any:
    """The gradient of the loss that a strategy reports, by central differences in each number."""
    flat, unravel = ravel_pytree(params)
    eps = 1e-6

    @jax.jit
    @jax.vmap
    def loss_at(flat: Any) -> Any:
        return strategy(loss_fn, unravel(flat), carry, batch, rng)[0]

    shifts = eps * jnp.eye(len(flat), dtype=flat.dtype)
    return unravel((loss_at(flat + shifts) - loss_at(flat - shifts)) / (2 * eps))


def check_exact(strategy: Any, loss_fn: Any, params: Any, carry: Any, batch: Any, rng: Any = KEY) -> None:
    """Asserts that a strategy's gradients are those of the loss that it reports. In 64 bits."""
    expected = differences(strategy, loss_fn, params, carry, batch, rng)
    _, _, grads = jax.jit(lambda p, b: strategy(loss_fn, p, carry, b, rng))(params, batch)
    assert max(float(jnp.abs(leaf).max()) for leaf in jax.tree.leaves(grads)) > 1e-3
    for path in params:
        assert grads[path].dtype == np.float64
        np.testing.assert_allclose(grads[path], expected[path], rtol=1e-7, atol=1e-8, err_msg=path)


def same(a: Any, b: Any, rtol: float = 1e-5, atol: float = 1e-7) -> None:
    """Asserts that two trees are equal up to rounding, in structure, shapes and dtypes exactly."""
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert (np.shape(x), jnp.result_type(x)) == (np.shape(y), jnp.result_type(y))
        np.testing.assert_allclose(np.asarray(x), np.asarray(y), rtol=rtol, atol=atol)
