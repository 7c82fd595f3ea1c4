"""Faults in one operation of a function, and in its arguments."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np

from tests.insight.faults.registry import ONES, X, fault

# --- one operation ------------------------------------------------------------------------------------


@fault("log", index=(1,), near="x", became_nan="mul")
def log_of_zero():
    def entropy(x):
        p = x * 2
        return -jnp.sum(p * jnp.log(p))  # FAULT

    return entropy, X


@fault("log", index=(0,))
def log_of_a_negative_number():
    def f(x):
        return jnp.log(x - 2)  # FAULT

    return f, X


@fault("div", index=(1,))
def zero_by_zero():
    def f(x):
        return (x / x).sum()  # FAULT

    return f, X


@fault("div", index=())
def a_mean_of_nothing():
    def f(x, mask):
        count = mask.sum()
        return jnp.where(mask, x, 0).sum() / count  # FAULT

    return f, X, jnp.zeros(4, bool)


@fault("exp", index=(0,), became_nan="div")
def exp_overflows_in_a_softmax_by_hand():
    def f(x):
        e = jnp.exp(x * 100)  # FAULT
        return e / e.sum()

    return f, X


@fault("sub", index=(1, 0))
def softmax_of_a_row_of_minus_infinity():
    def f(x, mask):
        scores = jnp.where(mask, x[:2, None] + x[None, :2], -jnp.inf)
        return jax.nn.softmax(scores, axis=-1)  # FAULT

    return f, X, np.array([[True, False], [False, False]])


@fault("mul", index=(0,))
def a_mask_of_infinities_by_multiplication():
    def f(x, mask):
        return x + (1 - mask) * -jnp.inf  # FAULT

    return f, X, jnp.ones(4)


@fault("sqrt", index=(0,))
def root_of_a_negative_number():
    def f(x):
        return jnp.sqrt(x - 2)  # FAULT

    return f, X


@fault("pow", index=(1,))
def zero_to_a_negative_power():
    def f(x):
        return x**-0.5  # FAULT

    return f, X


@fault("atanh", index=(0,))
def atanh_at_one():
    def f(x):
        return jnp.arctanh(x)  # FAULT

    return f, ONES


@fault("cholesky")
def cholesky_of_an_indefinite_matrix():
    def f(x):
        return jnp.linalg.cholesky(jnp.diag(x[:2]) - jnp.eye(2) * 0.5)  # FAULT

    return f, X


@fault("dot_general", index=())
def a_product_of_matrices_overflows():
    def f(x):
        large = x * 1e20
        return large @ large  # FAULT

    return f, X


@fault("cumprod", index=(1,))
def a_running_product_overflows():
    def f(x):
        return jnp.cumprod(x)  # FAULT

    return f, ONES * 1e20


@fault("add", index=(2,), near="x")
def infinity_plus_a_number():
    def f(x, y):
        return x + y  # FAULT

    return f, ONES * 3e38, X.at[2].set(3e38)


# --- half precision -----------------------------------------------------------------------------------


@fault("mul", index=(3,))
def a_product_overflows_in_float16():
    def f(x):
        h = x * 100
        return h * h  # FAULT

    return f, X.astype(jnp.float16)


@fault("convert_element_type", index=(3,))
def a_cast_to_float16_overflows():
    def f(x):
        return (x * 30_000).astype(jnp.float16)  # FAULT

    return f, X


@fault("integer_pow", index=(3,))
def a_variance_overflows_in_float16():
    def f(x):
        return jnp.mean((x * 100) ** 2)  # FAULT

    return f, X.astype(jnp.float16)


# --- arguments ----------------------------------------------------------------------------------------


@fault("input", index=(2,), near="x")
def a_nan_comes_in():
    return (lambda x: jnp.sum(x * 2)), X.at[2].set(jnp.nan)


@fault("input", index=(0,), near="batch/1", became_nan="mul")
def an_infinity_comes_in():
    def f(batch):
        return batch[0] * batch[1]

    return f, [jnp.zeros(4), jnp.full(4, jnp.inf)]


@fault("add", index=())
def an_infinity_is_written_in_the_program():
    def f(x):
        return x + jnp.inf  # FAULT

    return f, X
