"""Computations with one fault each, whose line is marked, and computations that are finite."""

from __future__ import annotations

import dataclasses
import inspect
from collections.abc import Callable
from typing import Any, cast

import jax
import jax.numpy as jnp
import numpy as np
import optax
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.training.by_hand import new_state

MARK = "#" + " FAULT"


@dataclasses.dataclass(frozen=True)
class Fault:
    """What must be found.

    Attributes:
      build: gives the function (or step) and its arguments; one line in it is marked.
      primitive: the operation.
      index: the first place; None where it does not matter.
      phase, iterations, near, became_nan: as in the report; None where they do not matter.
    """

    build: Callable[[], tuple[Any, ...]]
    primitive: str
    index: tuple[int, ...] | None = None
    phase: str = "forward"
    iterations: tuple[str, ...] = ()
    near: str | None = None
    became_nan: str | None = None

    @property
    def line(self) -> int | None:
        """The number of the marked line; None where none is."""
        lines, first = inspect.getsourcelines(self.build)
        marked = [number for number, line in enumerate(lines) if MARK in line]
        return first + marked[0] if marked else None


FAULTS: dict[str, Fault] = {}
HEALTHY: dict[str, Callable[[], tuple[Any, ...]]] = {}


def fault(primitive: str, **expected: Any) -> Callable[[Callable[[], Any]], Callable[[], Any]]:
    def register(build: Callable[[], Any]) -> Callable[[], Any]:
        FAULTS[build.__name__] = Fault(build, primitive, **expected)
        return build

    return register


def healthy(build: Callable[[], Any]) -> Callable[[], Any]:
    HEALTHY[build.__name__] = build
    return build


X = jnp.array([1.0, 0.0, 2.0, 3.0])
ONES = jnp.ones(4)


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


# --- the way back -------------------------------------------------------------------------------------


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


# --- training steps -----------------------------------------------------------------------------------


def small() -> zoo.Case:
    """2 → 1: three parameters in two arrays, and four examples."""
    model = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[2, 1])
    return zoo.Case(model, zoo.regression_loss, zoo.regression_batch(examples=4, features=2))


def a_step(loss_fn: Any = None, optimizer: Any = None, **changes: Any) -> tuple[Any, ...]:
    case = small()
    state = new_state(case, optimizer or optax.sgd(0.1))
    changes = {"fields": ("loss_total",), **changes}
    step = toolshed.build_train_step(loss_fn or case.loss_fn, **changes)
    return step, state, case.batch


@fault("log", near="params/mlp/Affine_0/AddBias.bias")
def in_a_loss_function():
    def loss_fn(*, model, state, rng, x, y):
        preds = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
        return jnp.mean(jnp.log(preds)), state, None  # FAULT

    return a_step(loss_fn)


@fault("div", phase="backward")
def in_the_gradient_of_a_loss_function():
    def loss_fn(*, model, state, rng, x, y):
        preds = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
        return jnp.sqrt(jnp.mean((preds - preds) ** 2)), state, None  # FAULT

    return a_step(loss_fn, donate=True)


@fault("input", index=(3, 1), near="batch/x")
def a_bad_example_in_a_batch():
    step, state, batch = a_step()
    return step, state, {**batch, "x": batch["x"].at[3, 1].set(jnp.nan)}


@fault("div", phase="optimizer", near="opt_state/0/mu/mlp/Affine_0/AddBias.bias")
def an_optimizer_without_its_epsilon():
    def loss_fn(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return 0 * loss, state, aux

    return a_step(loss_fn, optax.adam(1e-3, eps=0.0))


@fault("log", phase="optimizer")
def an_optimizer_of_one_s_own():
    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda g: jnp.log(g * 0), updates), state  # FAULT

    return a_step(optimizer=optax.GradientTransformation(lambda params: optax.EmptyState(), update))


@fault("log", iterations=("iteration 1 of 2 of scan",))
def in_the_second_of_two_steps_at_once():
    def loss_fn(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss + jnp.log(y[0, 0]), state, aux  # FAULT

    step, state, batch = a_step(loss_fn, steps_per_call=2)
    two = toolshed.data.stack([{**batch, "y": batch["y"].at[0, 0].set(value)} for value in (1.0, 0.0)])
    return step, state, two


@fault("log", iterations=("iteration 1 of 2 of scan",))
def in_a_micro_batch():
    def loss_fn(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss + jnp.log(jnp.abs(y)).mean(), state, aux  # FAULT

    step, state, batch = a_step(loss_fn, gradient_strategy=toolshed.gradients.Accumulate(2))
    return step, state, {**batch, "y": batch["y"].at[3, 0].set(0.0)}


@fault("log", iterations=("iteration 1 of 3 of scan",), near="params/layer/weights")
def in_one_layer_of_a_penzai_layer_stack():
    @pz.pytree_dataclass
    class Block(pz.nn.Layer):
        scale: Any

        def __call__(self, x, **side_inputs):
            return x + pz.nx.nmap(jnp.log)(self.scale.value)  # FAULT

        @classmethod
        def build(cls, init_base_rng=None):
            del init_base_rng
            return cls(pz.Parameter(value=pz.nx.ones({"features": 2}), label="layer/weights"))

    model = pz.nn.LayerStack.from_sublayer_builder(Block.build, "layers", 3, None, {})
    state = new_state(small()._replace(model=model), optax.sgd(0.1))
    params = {name: value.at[1, 0].set(0) for name, value in state.params.items()}
    step = toolshed.build_train_step(zoo.regression_loss, fields=("loss_total",))
    return step, state.replace(params=params), {**small().batch, "y": jnp.ones((4, 2))}


# --- finite -------------------------------------------------------------------------------------------


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
