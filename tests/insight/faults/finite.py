"""Computations that are finite, many of which look as if they were not."""

from __future__ import annotations

from typing import Any, cast

import jax
import jax.numpy as jnp
import optax

import toolshed
from tests.insight.faults.registry import X, a_step, healthy, small


@healthy
def a_softmax_with_a_mask():
    return (lambda x, m: jax.nn.softmax(jnp.where(m, x, -jnp.inf))), X, X > 1


@healthy
def a_cross_entropy_of_masked_logits():
    def f(x):
        logits = jnp.where(x > 0, x, -jnp.inf)
        return -jax.nn.log_softmax(logits)[0]

    return jax.value_and_grad(f), X


@healthy
def a_log_that_is_masked():
    return (lambda x: jnp.where(x > 0, jnp.log(x), 0).sum()), X


@healthy
def a_log_that_is_replaced():
    return (lambda x: jnp.nan_to_num(jnp.log(x - 1), nan=0, neginf=0).sum()), X


@healthy
def the_double_where():
    def f(x):
        safe = jnp.where(x > 0, x, 1)
        return jnp.where(x > 0, jnp.sqrt(safe), 0).sum()

    return jax.value_and_grad(f), X


@healthy
def logsumexp_of_large_numbers():
    return jax.value_and_grad(lambda x: jax.nn.logsumexp(x * 1e4)), X


@healthy
def the_reciprocal_of_infinity():
    return (lambda x: 1 / (1 / x) + jnp.exp(-1 / x)), X


@healthy
def a_running_maximum_from_minus_infinity():
    def body(state, x):
        m, total = state
        new = jnp.maximum(m, x)
        return (new, total * jnp.exp(m - new) + jnp.exp(x - new)), new

    return (lambda x: jax.lax.scan(body, (-jnp.inf, 0.0), x)), X


@healthy
def a_smallest_value_by_a_while_loop():
    def f(x):
        def body(state):
            i, best = state
            return i + 1, jnp.minimum(best, x[i])

        return jax.lax.while_loop(lambda state: state[0] < 4, body, (0, jnp.inf))[1]

    return f, X


@healthy
def the_branch_that_is_not_taken():
    return (lambda x: jax.lax.cond(x[0] < 0, jnp.log, jnp.sin, x)), X


@healthy
def an_argument_that_is_not_used():
    return (lambda x, unused: x * 2), X, jnp.full(3, jnp.nan)


@healthy
def a_nan_that_is_masked():
    return (lambda x: jnp.where(jnp.isnan(x), 0, x).sum()), X.at[1].set(jnp.nan)


@healthy
def random_numbers():
    def f(key):
        return jax.random.normal(key, (4,)), jax.random.gumbel(key, (4,))

    return f, jax.random.key(0)


@healthy
def orders_and_extremes():
    return (lambda x: (jnp.sort(x), jnp.argmax(x), jax.lax.top_k(x, 2), jnp.max(x, initial=-jnp.inf))), X


@healthy
def integers_at_their_limits():
    return (lambda x: x * 2_000_000_000), jnp.array([1, 2], jnp.int32)


@healthy
def half_precision_within_its_range():
    return jax.jit(lambda x: (x * 100) * (x * 100)), (X / 2).astype(jnp.float16)


@healthy
def a_norm_with_an_epsilon():
    return jax.jit(jax.value_and_grad(lambda x: jnp.sqrt(jnp.sum(x * x) + 1e-12))), X * 0


@healthy
def a_training_step():
    return a_step()


@healthy
def a_training_step_of_a_trainer():
    case = small()
    trainer = toolshed.Trainer(case.model, optax.sgd(0.1), case.loss_fn)
    return trainer.step, trainer.init(jax.random.key(0)), case.batch


@healthy
def an_optimizer_that_starts_from_infinity():
    def update(updates, state, params=None, *, value, **extra):
        del params, extra
        return updates, {"best": jnp.minimum(state["best"], value), "worst": state["worst"]}

    def init(params):
        del params
        return {"best": jnp.float32(jnp.inf), "worst": jnp.float32(-jnp.inf)}

    return a_step(optimizer=optax.GradientTransformationExtraArgs(init, cast(Any, update)))


@healthy
def an_attention_with_a_causal_mask():
    def f(x):
        scores = jnp.where(jnp.tri(4, dtype=bool), x[:, None] * x[None, :] * 1e4, -jnp.inf)
        return (jax.nn.softmax(scores) @ x).sum()

    return jax.value_and_grad(f), X
