"""Faults inside of other functions, branches and loops."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.insight.faults.registry import ONES, X, fault

# --- inside of other functions ------------------------------------------------------------------------


@fault("log", index=(1,))
def inside_a_jitted_function_inside_a_jitted_function():
    @jax.jit
    def inner(x):
        return jnp.log(x)  # FAULT

    return jax.jit(lambda x: inner(x) * 2), X


@fault("log", index=(1,))
def inside_a_rematerialised_function():
    @jax.checkpoint
    def block(x):
        return jnp.log(x) * jnp.sin(x)  # FAULT

    return block, X


@fault("div", index=(1,), phase="backward")
def inside_a_rematerialised_function_on_the_way_back():
    @jax.checkpoint
    def block(x):
        return jnp.sqrt(jnp.sin(x) ** 2)  # FAULT

    return jax.grad(lambda x: block(x).sum()), X


@fault("log", index=(1,), near="x")
def one_example_of_a_vmap():
    def one(x):
        return jnp.log(x).sum()  # FAULT

    return jax.vmap(one), X


@fault("log", index=(1,), iterations=("branch 1 of cond",))
def in_the_branch_that_is_taken():
    def f(x):
        return jax.lax.cond(
            x[0] > 0,
            lambda x: jnp.log(x),  # FAULT
            lambda x: x,
            x,
        )

    return f, X


@fault("sqrt", index=(0,), iterations=("branch 2 of cond",))
def in_one_branch_of_a_switch():
    def f(x, which):
        branches = [
            jnp.sin,
            jnp.cos,
            lambda x: jnp.sqrt(x - 2),  # FAULT
        ]
        return jax.lax.switch(which, branches, x)

    return f, X, jnp.int32(7)  # is clamped to the last


# --- loops --------------------------------------------------------------------------------------------


@fault("log", index=(), iterations=("iteration 2 of 4 of scan",), became_nan="mul")
def in_the_third_iteration_of_a_scan():
    def body(c, x):
        return c + c * jnp.log(x), x  # FAULT

    return lambda x: jax.lax.scan(body, 2.0, x)[0], jnp.array([1.0, 2.0, 0.0, 1.0])


@fault("log", iterations=("iteration 1 of 4 of scan",))
def in_what_a_scan_gives_but_does_not_carry():
    def body(c, x):
        return c + 1, jnp.log(x)  # FAULT

    return lambda x: jax.lax.scan(body, 0.0, x), X


@fault("div", phase="backward", iterations=("iteration 1 of 4 of scan",))
def on_the_way_back_through_a_scan():
    def body(c, x):
        return c + jnp.sqrt(x), None  # FAULT

    return jax.value_and_grad(lambda x: jax.lax.scan(body, 0.0, x)[0]), X


@fault("log", iterations=("iteration 3 of 4 of scan", "iteration 1 of 4 of scan"))
def in_a_scan_inside_a_scan():
    def inner(c, x):
        return c + jnp.log(x), None  # FAULT

    def outer(c, xs):
        return jax.lax.scan(inner, c, xs)[0], None

    return lambda xs: jax.lax.scan(outer, 0.0, xs)[0], jnp.stack([ONES, ONES, ONES, X])


@fault("mul", iterations=("iteration 127 of while",))
def in_a_while_loop():
    def f(x):
        def body(state):
            n, y = state
            return n + 1, y * 2  # FAULT

        return jax.lax.while_loop(lambda state: state[0] < 500, body, (0, x))[1]

    return f, jnp.float32(1)


@fault("exp", iterations=("iteration 2 of 3 of scan",), index=(2,))
def in_a_counted_loop_over_a_vmap():
    def one(x):
        return jax.lax.fori_loop(0, 3, lambda i, y: jnp.exp(y), x)  # FAULT

    return jax.vmap(one), jnp.array([0.0, -1.0, 1.6, 0.1])


@fault("log", iterations=("iteration 1 of 3 of scan",), near="layers")
def in_one_layer_of_a_stack():
    def layer(x, weight):
        return x + jnp.log(weight * x), None  # FAULT

    def f(layers, x):
        return jax.lax.scan(layer, x, layers)[0].sum()

    return f, jnp.ones((3, 4)).at[1, 2].set(0), ONES
