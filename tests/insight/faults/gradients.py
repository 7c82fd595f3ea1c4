"""Faults on the way back."""

from __future__ import annotations

import jax
import jax.numpy as jnp

from tests.insight.faults.registry import ONES, X, fault


@fault("div", index=(1,), phase="backward")
def root_at_zero_in_the_gradient_only():
    def f(x):
        y = x * x
        return jnp.sum(jnp.sqrt(y))  # FAULT

    return jax.value_and_grad(f), X


@fault("div", phase="backward")
def norm_at_zero():
    def f(x):
        return jnp.linalg.norm(x)  # FAULT

    return jax.value_and_grad(f), X * 0


@fault("div", index=(1,), phase="backward")
def the_gradient_of_where_is_a_trap():
    def f(x):
        safe = jnp.where(x > 0, jnp.log(x), 0.0)  # FAULT
        return safe.sum()

    return jax.value_and_grad(f), X


@fault("div", phase="backward")
def deviation_of_equal_values():
    def f(x):
        return jnp.std(x)  # FAULT

    return jax.grad(f), ONES


@fault("mul", phase="backward", index=())
def a_rule_of_one_s_own_on_the_way_back():
    @jax.custom_vjp
    def scaled(x):
        return x * 1e-3

    def forward(x):
        return scaled(x), None

    def backward(_, g):
        return (g * 1e30 * 1e30,)

    scaled.defvjp(forward, backward)

    def f(x):
        return scaled(x.sum()) ** 2  # FAULT: jax notes the call, not the line of the rule

    return jax.grad(f), X


@fault("log", index=(1,))
def inside_a_function_with_a_rule_of_its_own():
    @jax.custom_vjp
    def f(x):
        return jnp.log(x)  # FAULT

    f.defvjp(lambda x: (jnp.log(x), x), lambda x, g: (g / x,))

    return f, X


@fault("div", index=(1,), phase="backward")
def a_forward_rule_of_one_s_own():
    @jax.custom_jvp
    def root(x):
        return jnp.sqrt(x)

    @root.defjvp
    def rule(primals, tangents):
        (x,), (t,) = primals, tangents
        y = root(x)
        return y, t * (0.5 / y)  # FAULT

    def f(x):
        return root(x).sum()

    return jax.value_and_grad(f), X
