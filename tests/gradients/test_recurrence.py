"""The mark of recurrence changes nothing, wherever it stands, and a fixed point is iterated to."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from penzai import pz

from toolshed.errors import ToolshedError
from toolshed.gradients import fixed_point, recurrent
from toolshed.gradients.recurrence import recurrent_p

H = jnp.array([0.5, -2.0, 3.0])


def test_the_mark_gives_back_what_it_gets():
    tree = {"h": H, "named": pz.nx.wrap(H, "features"), "number": 2.5, "none": None}
    out = recurrent(tree)
    assert jax.tree.structure(out) == jax.tree.structure(tree)
    for x, y in zip(jax.tree.leaves(out), jax.tree.leaves(tree), strict=True):
        np.testing.assert_array_equal(x, y)


def test_only_what_a_gradient_flows_through_is_marked():
    key, count = jax.random.key(0), jnp.arange(3)
    out = recurrent({"key": key, "count": count, "flag": True, "h": H})
    assert out["key"] is key
    assert out["count"] is count
    assert out["flag"] is True
    marked = jax.make_jaxpr(lambda tree: recurrent(tree))({"count": count, "h": H, "z": H + 0j})
    assert [eqn.primitive for eqn in marked.eqns] == [recurrent_p()] * 2


def cubed(x: Any) -> Any:
    return jnp.sum(recurrent(x) ** 3)


@pytest.mark.parametrize(
    ("transform", "expected"),
    [
        (lambda f: f, np.sum(H**3)),
        (jax.jit, np.sum(H**3)),
        (jax.grad, 3 * H**2),
        (lambda f: jax.jit(jax.grad(f)), 3 * H**2),
        (jax.hessian, np.diag(6 * H)),
        (jax.jacfwd, 3 * H**2),
        (lambda f: jax.grad(jax.checkpoint(f)), 3 * H**2),
        (lambda f: lambda x: jax.vmap(f)(jnp.stack([x, 2 * x])), np.array([1, 8]) * np.sum(H**3)),
        (lambda f: lambda x: jax.vmap(jax.grad(f))(x[:, None])[:, 0], 3 * H**2),
    ],
    ids=["call", "jit", "grad", "jit grad", "hessian", "jacfwd", "remat", "vmap", "vmap grad"],
)
def test_under_every_transformation_of_jax_it_is_the_identity(transform, expected):
    np.testing.assert_allclose(transform(cubed)(H), expected, rtol=1e-6)


def test_it_costs_nothing_in_the_compiled_program():
    with_mark = jax.jit(lambda x: recurrent(x) * 2).lower(H).as_text()
    without = jax.jit(lambda x: x * 2).lower(H).as_text()
    assert with_mark == without


# --- fixed points -----------------------------------------------------------------------------------


def test_a_map_is_applied_so_many_times():
    for steps in (1, 2, 5):
        out = fixed_point(lambda z: 2 * z + 1, jnp.array([0.0, 1.0]), steps=steps)
        # z ← 2z + 1 from 0 gives 2ⁿ - 1, and 2ⁿ more from 1
        np.testing.assert_allclose(out, [2**steps - 1, 2 ** (steps + 1) - 1])


def test_a_map_may_be_over_any_tree_and_over_named_arrays():
    def turn(z: Any) -> Any:
        x, y = z["x"], z["y"]
        return {"x": (y.untag("features") * 0.5).tag("features"), "y": x + 1.0}

    start = {"x": pz.nx.zeros({"batch": 2, "features": 3}), "y": pz.nx.zeros({"features": 3, "batch": 2})}
    out = jax.jit(lambda z: fixed_point(turn, z, steps=60))(start)
    # x = y / 2 and y = x + 1 meet at 1 and 2
    np.testing.assert_allclose(out["x"].unwrap("batch", "features"), np.ones((2, 3)), rtol=1e-6)
    np.testing.assert_allclose(out["y"].unwrap("batch", "features"), 2 * np.ones((2, 3)), rtol=1e-6)


def test_a_start_without_a_dtype_of_its_own_is_taken():
    assert float(fixed_point(lambda z: 0.5 * z + jnp.float32(1), 0.0, steps=40)) == 2.0


@pytest.mark.parametrize("steps", [0, -3, True])
def test_a_number_of_steps_out_of_range_is_an_error(steps):
    with pytest.raises(
        ToolshedError, match=rf"^fixed_point got steps={steps!r}; expected a whole number from"
    ):
        fixed_point(lambda z: z, H, steps=steps)


@pytest.mark.parametrize(
    ("f", "start", "message"),
    [
        (
            lambda z: z[:2],
            H,
            r"^fixed_point got a map that takes float32\[3\] and returns float32\[2\]; expect",
        ),
        (
            lambda z: {"a": z["a"] > 0},
            {"a": H},
            r"takes float32\[3\] at a and returns bool\[3\]; expected the",
        ),
        (
            lambda z: {"b": z["a"]},
            {"a": H},
            r"^fixed_point got a map that takes a and returns b; expected the",
        ),
    ],
)
def test_a_map_that_does_not_return_what_it_takes_is_an_error(f, start, message):
    for steps in (1, 3):
        with pytest.raises(ToolshedError, match=message):
            fixed_point(f, start, steps=steps)
