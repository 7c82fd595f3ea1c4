"""Curvature of a loss: its Hessian, seen through products with vectors, which cost about two gradients each.

The Hessian itself has as many rows as there are parameters and is never formed. Give any function of
parameters; `toolshed.insight.objective` makes one out of a loss function, a state and a batch.
"""

from __future__ import annotations

import functools
import math
from collections.abc import Callable
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from toolshed.errors import ToolshedError
from toolshed.insight.objectives import Objective

Loss = Callable[[Any], jax.Array]


class Eigenvalue(NamedTuple):
    """The largest eigenvalue of a Hessian.

    Attributes:
      value: the largest one. Gradient descent with learning rate η becomes unstable where it exceeds 2/η.
      error: how far the true eigenvalue that it stands for can be, at most, but for rounding.
      smallest: the smallest one; below 0 where the loss is curved downwards in some direction.
      smallest_error: the same for it.
      iterations: products with the Hessian that it took.
    """

    value: float
    error: float
    smallest: float
    smallest_error: float
    iterations: int


class Trace(NamedTuple):
    """An estimate of the trace of a Hessian.

    Attributes:
      value: the mean over the samples.
      error: its standard error.
      samples: how many there were.
    """

    value: float
    error: float
    samples: int


def hessian_vector_product(loss: Loss, params: Any, vector: Any) -> Any:
    """The Hessian of a loss times a vector: how the gradient changes in a direction.

    ``d/dr ∇loss(params + r·vector)`` at r = 0, forward over reverse. It can be called in compiled code.

    Args:
      loss: a function of parameters that gives a scalar.
      params: where, any pytree.
      vector: the direction, a tree like ``params``.

    Returns:
      A tree like ``params``.

    Example:
      >>> import jax.numpy as jnp, toolshed
      >>> loss = lambda p: p["x"] ** 2 * p["y"]  # Hessian [[2y, 2x], [2x, 0]]
      >>> at, along = {"x": jnp.float32(3), "y": jnp.float32(5)}, {"x": jnp.float32(1), "y": jnp.float32(0)}
      >>> found = toolshed.insight.hessian_vector_product(loss, at, along)
      >>> float(found["x"]), float(found["y"])
      (10.0, 6.0)

    References:
      B. Pearlmutter, Fast Exact Multiplication by the Hessian, Neural Computation 6 (1994).
    """
    return jax.jvp(jax.grad(loss), (params,), (vector,))[1]


def top_eigenvalue(
    loss: Loss, params: Any, *, iterations: int = 32, key: jax.Array | None = None
) -> Eigenvalue:
    """The largest eigenvalue of the Hessian, with the smallest, by Lanczos iteration.

    The Hessian is applied again and again, and the parts of the results that are new span a small
    tridiagonal matrix T whose extreme eigenvalues come close to the Hessian's within some tens of
    iterations. The error of one of them is at most |β s|, with β the next entry that T would get and s
    the last entry of its eigenvector. Needs memory for three vectors like the parameters. Compiled once
    for each function and shapes; waits for the device.

    Args:
      loss: a function of parameters that gives a scalar; an `Objective` is compiled once for all batches.
      params: where.
      iterations: products with the Hessian.
      key: of the vector to start from.

    Raises:
      ToolshedError: ``iterations`` is less than 1, or there is no parameter.

    References:
      C. Lanczos, J. Res. Nat. Bur. Standards 45 (1950). The error: B. Parlett, The Symmetric Eigenvalue
      Problem (1998), theorem 13.2.1. The limit 2/η: J. Cohen et al., Gradient Descent on Neural Networks
      Typically Occurs at the Edge of Stability, arXiv:2103.00065.
    """
    size = sum(leaf.size for leaf in jax.tree.leaves(params))
    if not isinstance(iterations, int) or iterations < 1 or not size:
        raise ToolshedError(
            f"top_eigenvalue got iterations={iterations!r} and {size} parameters; expected a whole number"
            " from 1, and at least one parameter."
        )
    key = jax.random.key(0) if key is None else key
    found = _lanczos(_argument(loss), params, key, min(iterations, size))
    diagonal, beside = (np.asarray(x, np.float64) for x in jax.device_get(found))
    # Where nothing new is left, T ends: what follows is rounding.
    scale = np.abs(diagonal).max() + beside.max()
    ends = np.flatnonzero(beside <= 1e-5 * scale)
    n = int(ends[0]) + 1 if len(ends) else len(diagonal)
    matrix = np.diag(diagonal[:n]) + np.diag(beside[: n - 1], 1) + np.diag(beside[: n - 1], -1)
    values, vectors = np.linalg.eigh(matrix)
    errors = np.abs(beside[n - 1] * vectors[-1])
    return Eigenvalue(float(values[-1]), float(errors[-1]), float(values[0]), float(errors[0]), n)


def hessian_trace(loss: Loss, params: Any, *, samples: int = 32, key: jax.Array | None = None) -> Trace:
    """An estimate of the trace of the Hessian: the sum of its eigenvalues, by Hutchinson's method.

    For v with entries ±1 at random, the mean of vᵀHv is tr H, and its variance 2 Σ_{i≠j} H²ᵢⱼ. Compiled
    once for each function and shapes; waits for the device.

    Args:
      loss: a function of parameters that gives a scalar.
      params: where.
      samples: vectors to take; four times as many halve the error.
      key: of the vectors.

    Raises:
      ToolshedError: ``samples`` is less than 2, so that there is no error to tell.

    References:
      M. Hutchinson, A stochastic estimator of the trace of the influence matrix for Laplacian smoothing
      splines, Comm. Stat. Simulation and Computation 19 (1990).
    """
    if not isinstance(samples, int) or samples < 2:
        raise ToolshedError(f"hessian_trace got samples={samples!r}; expected a whole number from 2.")
    key = jax.random.key(0) if key is None else key
    found = np.asarray(_samples_of_trace(_argument(loss), params, key, samples), np.float64)
    return Trace(float(found.mean()), float(found.std(ddof=1) / math.sqrt(samples)), samples)


def _argument(loss: Loss) -> Any:
    """A loss as an argument of compiled code: its arrays, if it has any, are no part of the program."""
    return loss if isinstance(loss, Objective) else jax.tree_util.Partial(loss)


@functools.partial(jax.jit, static_argnums=3)
def _lanczos(loss: Any, params: Any, key: jax.Array, iterations: int) -> tuple[jax.Array, jax.Array]:
    """The diagonal of T, and what stands beside it, with the entry that would come next; [iterations]."""

    def product(vector: Any) -> Any:
        narrow = jax.tree.map(lambda v, p: v.astype(p.dtype), vector, params)
        return jax.tree.map(_wide, hessian_vector_product(loss, params, narrow))

    def body(state: Any, _: Any) -> Any:
        before, vector, length = state
        new = product(vector)
        along = _dot(new, vector)
        new = jax.tree.map(lambda w, v, u: w - along * v - length * u, new, vector, before)
        norm = jnp.sqrt(_dot(new, new))
        following = jax.tree.map(lambda w: w / jnp.where(norm > 0, norm, 1), new)
        return (vector, following, norm), (along, norm)

    start = _random_like(lambda key, leaf: jax.random.normal(key, leaf.shape), key, params)
    length = jnp.sqrt(_dot(start, start))
    start = jax.tree.map(lambda v: v / length, start)
    state = (jax.tree.map(jnp.zeros_like, start), start, jnp.zeros(()))
    return jax.lax.scan(body, state, None, length=iterations)[1]


@functools.partial(jax.jit, static_argnums=3)
def _samples_of_trace(loss: Any, params: Any, key: jax.Array, samples: int) -> jax.Array:
    """vᵀHv for some vectors of ±1; float32[samples]."""

    def one(key: jax.Array) -> jax.Array:
        vector = _random_like(
            lambda key, leaf: jax.random.rademacher(key, leaf.shape, leaf.dtype), key, params
        )
        product = hessian_vector_product(loss, params, vector)
        return _dot(jax.tree.map(_wide, product), jax.tree.map(_wide, vector))

    return jax.lax.map(one, jax.random.split(key, samples))


def _signs(key: jax.Array, leaf: Any) -> jax.Array:
    return jax.random.rademacher(key, leaf.shape, leaf.dtype)


def _random_like(draw: Callable[[jax.Array, Any], Any], key: jax.Array, tree: Any) -> Any:
    leaves, treedef = jax.tree.flatten(tree)
    keys = jax.random.split(key, len(leaves))
    return treedef.unflatten([draw(k, leaf) for k, leaf in zip(keys, leaves, strict=True)])


def _wide(leaf: Any) -> Any:
    return leaf.astype(jnp.promote_types(leaf.dtype, jnp.float32))


def _dot(a: Any, b: Any) -> jax.Array:
    return jnp.asarray(sum(jax.tree.leaves(jax.tree.map(jnp.vdot, a, b))))
