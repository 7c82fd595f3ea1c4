"""Recurrence as a model marks it, so that a gradient strategy can see where one step ends.

The mark is a primitive that computes nothing: it stays in the program that jax traces, wherever the
traced code comes from. A flag in Python would not do. ``jax.lax.scan`` and ``jax.jit`` keep what they
traced, and a body that was traced while the flag was down would be used again while it is up.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from typing import Any, TypeVar

import jax
import jax.numpy as jnp
from penzai import pz

from toolshed.errors import ToolshedError
from toolshed.paths import describe, flatten, is_arraylike

T = TypeVar("T")


@functools.cache
def recurrent_p() -> Any:
    """The mark's primitive. Made when it is first needed: jax.extend is slow to import."""
    from jax.extend.core import Primitive
    from jax.interpreters import ad, batching, mlir

    mark = Primitive("recurrent")
    mark.def_impl(lambda x: x)
    mark.def_abstract_eval(lambda x: x)
    # Derivatives taken inside a loss function are full ones: the tangent goes through without a mark.
    ad.primitive_jvps[mark] = lambda primals, tangents: (mark.bind(*primals), *tangents)
    batching.defvectorized(mark)
    mlir.register_lowering(mark, lambda context, x: [x])
    return mark


def recurrent(h: T) -> T:
    """Marks what a recurrent step takes over from the step before it. Returns ``h`` as it is.

    Mark it where it comes in, at the head of a step or of a scan's body. `OneStepApproximation` treats
    it as a constant there: h_t = f(stop_gradient(h_{t-1}), x_t). All other strategies go through. A mark
    on what goes out of a step would cut the last step off, too.

    Args:
      h: any pytree. What no gradient flows through (integers, keys) is not marked.

    Example:
      >>> import jax, jax.numpy as jnp, toolshed
      >>> def step(h, x):
      ...     h = toolshed.gradients.recurrent(h)
      ...     h = jnp.tanh(0.5 * h + x)
      ...     return h, h
      >>> last, all_of_them = jax.lax.scan(step, jnp.zeros(()), jnp.array([1.0, 0.5]))
    """
    return jax.tree.map(_mark, h)


def _mark(leaf: Any) -> Any:
    dtype = leaf.dtype if hasattr(leaf, "dtype") else jnp.result_type(leaf)
    return recurrent_p().bind(jnp.asarray(leaf)) if jnp.issubdtype(dtype, jnp.inexact) else leaf


def fixed_point(f: Callable[[T], T], start: T, *, steps: int) -> T:
    """Applies ``f`` again and again, and marks the recurrence for one-step gradients.

    Gives f(f(…f(start))). Exact strategies differentiate through all applications and hold the
    activations of each. `OneStepApproximation` differentiates through the last one alone; those before
    it hold nothing, and ``start`` gets no gradient. It does not look at how near the fixed point is: a
    number of steps that depended on the batch would let examples change each other's results.

    Args:
      f: a map; it may close over parameters. It returns what it takes, in structure, shapes and dtypes.
      start: any pytree of arrays.
      steps: how often to apply it, from 1.

    Raises:
      ToolshedError: ``steps`` is out of range, or ``f`` does not return what it takes.

    Example:
      >>> import jax.numpy as jnp, toolshed
      >>> z = toolshed.gradients.fixed_point(lambda z: 0.5 * z + 1.0, jnp.zeros(()), steps=30)
      >>> round(float(z), 6)  # z = z / 2 + 1
      2.0

    References:
      Bai et al., Deep Equilibrium Models, arXiv:1909.01377. Wang et al., Hierarchical Reasoning Model,
      arXiv:2506.21734.
    """
    if not isinstance(steps, int) or isinstance(steps, bool) or steps < 1:
        raise ToolshedError(f"fixed_point got steps={steps!r}; expected a whole number from 1.")
    from jax.extend.core import ClosedJaxpr, jaxpr_as_fun  # slow to import

    start = jax.tree.map(jnp.asarray, start)
    # What f closes over, parameters among it, is marked for all applications but the last.
    closed, result = jax.make_jaxpr(lambda z: _in_order(f(z), z), return_shape=True)(start)
    _check_map(start, result)
    if steps > 1:
        before = jaxpr_as_fun(ClosedJaxpr(closed.jaxpr, recurrent(list(closed.consts))))
        leaves, treedef = jax.tree.flatten(recurrent(start))
        leaves, _ = jax.lax.scan(lambda z, _: (before(*z), None), leaves, length=steps - 1)
        start = treedef.unflatten(leaves)
    return f(recurrent(start))


def _in_order(tree: Any, like: Any) -> Any:
    """Named arrays with their axes in the order of another tree, where the trees correspond."""
    return pz.nx.order_like(tree, like) if _structure(tree) == _structure(like) else tree


def _structure(tree: Any) -> Any:
    return jax.tree.structure(tree, is_leaf=is_arraylike)


def _check_map(start: Any, result: Any) -> None:
    came, went = flatten(start), flatten(result)
    if list(came) != list(went):
        raise ToolshedError(
            f"fixed_point got a map that takes {', '.join(came)} and returns {', '.join(went)}; expected"
            " the same structure."
        )
    for path in came:
        if describe(came[path]) != describe(went[path]):
            where = f" at {path}" if path else ""
            raise ToolshedError(
                f"fixed_point got a map that takes {describe(came[path])}{where} and returns"
                f" {describe(went[path])}; expected the same shape and dtype."
            )
