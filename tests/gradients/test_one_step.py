"""One-step gradients are cut at the mark, at every mark, and nowhere else."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from tests.gradients.by_hand import KEY, same
from toolshed.errors import LossError
from toolshed.gradients import (
    Accumulate,
    Backprop,
    OneStepApproximation,
    PerExample,
    Remat,
    backprop,
    fixed_point,
    recurrent,
)

ONE_STEP = OneStepApproximation()
X = jnp.array([1.0, 0.5])


def gradients(strategy: Any, loss: Any, **params: float) -> dict[str, float]:
    """Of a loss that is a function of named parameters alone."""

    def loss_fn(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        return loss(**params), (carry, {})

    values = {name: jnp.float32(value) for name, value in params.items()}
    _, _, grads = jax.jit(lambda p: strategy(loss_fn, p, (), {}, KEY))(values)
    return {name: float(grad) for name, grad in grads.items()}


# --- the numbers that it must hit -------------------------------------------------------------------


def linear_rest(a: Any, b: Any) -> Any:
    """z = a z + b x with x = 1, at rest."""
    return fixed_point(lambda z: a * z + b * 1.0, jnp.zeros(()), steps=60)


def test_a_linear_fixed_point_by_hand():
    # At rest z = b x / (1 - a) = 2. One step with z held fast: dz/da = z = 2 and dz/db = x = 1.
    assert gradients(ONE_STEP, linear_rest, a=0.5, b=1.0) == pytest.approx({"a": 2.0, "b": 1.0}, rel=1e-6)
    # Exactly: dz/da = b x / (1 - a)² = 4 and dz/db = x / (1 - a) = 2.
    assert gradients(backprop, linear_rest, a=0.5, b=1.0) == pytest.approx({"a": 4.0, "b": 2.0}, rel=1e-6)


def loop(u: Any) -> Any:
    """h = tanh(0.5 h + u x) over X from 0, as a Python loop."""
    h = jnp.zeros(())
    for x in X:
        h = jnp.tanh(0.5 * recurrent(h) + u * x)
    return h


def scanned(u: Any) -> Any:
    """The same as a scan."""
    return jax.lax.scan(lambda h, x: (jnp.tanh(0.5 * recurrent(h) + u * x), None), jnp.zeros(()), X)[0]


@pytest.mark.parametrize("loss", [loop, scanned])
def test_two_steps_of_tanh_by_hand(loss):
    # h1 = tanh(1), h2 = tanh(h1 / 2 + 1/2). Within the second step dh2/du = (1 - h2²) x2; in full
    # dh2/du = (1 - h2²) (x2 + dh1/du / 2) with dh1/du = 1 - h1².
    h1 = np.tanh(1.0)
    h2 = np.tanh(0.5 * h1 + 0.5)
    assert (1 - h2**2) * 0.5 == pytest.approx(0.250204, abs=5e-7)
    assert (1 - h2**2) * (0.5 + 0.5 * (1 - h1**2)) == pytest.approx(0.355283, abs=5e-7)
    assert gradients(ONE_STEP, loss, u=1.0)["u"] == pytest.approx(0.250204, abs=5e-7)
    assert gradients(backprop, loss, u=1.0)["u"] == pytest.approx(0.355283, abs=5e-7)


# --- what was traced before -------------------------------------------------------------------------


def module_level_body(carry: Any, x: Any) -> Any:
    """One function object for every test here: jax keeps what it traced of it."""
    h, u = carry
    h = jnp.tanh(0.5 * recurrent(h) + u * x)
    return (h, u), h


@jax.jit
def module_level_step(h: Any, u: Any, x: Any) -> Any:
    return jnp.tanh(0.5 * recurrent(h) + u * x)


def through_the_body(u: Any) -> Any:
    return jax.lax.scan(module_level_body, (jnp.zeros(()), u), X)[0][0]


def through_the_jit(u: Any) -> Any:
    return module_level_step(module_level_step(jnp.zeros(()), u, X[0]), u, X[1])


@pytest.mark.parametrize("loss", [through_the_body, through_the_jit])
def test_a_body_that_was_traced_under_one_strategy_is_not_used_under_another(loss):
    full, cut = 0.355283, 0.250204
    strategies = [(backprop, full), (ONE_STEP, cut), (Remat(), full), (ONE_STEP, cut), (backprop, full)]
    for strategy, expected in strategies:
        assert gradients(strategy, loss, u=1.0)["u"] == pytest.approx(expected, abs=5e-7)


def test_a_flag_that_is_read_while_tracing_would_be_trapped():
    """A negative control for the test above: the same body with a flag gives the old gradient again."""
    cut = {"on": False}

    def body(carry: Any, x: Any) -> Any:
        h, u = carry
        h = jnp.tanh(0.5 * (jax.lax.stop_gradient(h) if cut["on"] else h) + u * x)
        return (h, u), h

    def loss(u: Any) -> Any:
        return jax.lax.scan(body, (jnp.zeros(()), u), X)[0][0]

    before = float(jax.grad(loss)(jnp.float32(1)))
    cut["on"] = True
    assert float(jax.grad(loss)(jnp.float32(1))) == before == pytest.approx(0.355283, abs=5e-7)


# --- wherever the mark stands -----------------------------------------------------------------------


def marked(h: Any) -> Any:
    return recurrent(h)


@jax.custom_jvp
def with_own_jvp(h: Any) -> Any:
    return recurrent(h)


with_own_jvp.defjvp(lambda primals, tangents: (with_own_jvp(*primals), tangents[0]))


@jax.custom_vjp
def with_own_vjp(h: Any) -> Any:
    return recurrent(h)


with_own_vjp.defvjp(lambda h: (with_own_vjp(h), None), lambda _, g: (g,))

PLACES = {
    "bare": marked,
    "jit": jax.jit(marked),
    "jit in jit": jax.jit(jax.jit(marked)),
    "remat": jax.checkpoint(marked),
    "remat in jit": jax.jit(jax.checkpoint(marked)),
    "cond": lambda h: jax.lax.cond(h > -9, marked, lambda h: h * 7, h),
    "switch": lambda h: jax.lax.switch(1, [lambda h: h * 7, jax.jit(marked)], h),
    "scan": lambda h: jax.lax.scan(lambda h, _: (marked(h), None), h, length=3)[0],
    "scan in scan": lambda h: jax.lax.scan(lambda h, _: (PLACES["scan"](h), None), h, length=2)[0],
    "fori": lambda h: jax.lax.fori_loop(0, 2, lambda _, h: marked(h), h),
    "while": lambda h: jax.lax.while_loop(lambda h: h > 9, marked, marked(h)),
    "vmap": lambda h: jax.vmap(marked)(h[None])[0],
    "map": lambda h: jax.lax.map(marked, h[None])[0],
}


@pytest.mark.parametrize("place", PLACES)
def test_a_mark_is_found_inside(place):
    def loss(a: Any) -> Any:
        return PLACES[place](a * 3.0) * a  # 3a · a: exactly 6a, with the first factor held fast 3a

    assert gradients(ONE_STEP, loss, a=2.0)["a"] == pytest.approx(6.0)
    if place != "while":  # which jax cannot differentiate in reverse
        assert gradients(backprop, loss, a=2.0)["a"] == pytest.approx(12.0)


@pytest.mark.parametrize("rule", [with_own_jvp, with_own_vjp])
def test_a_mark_under_a_derivative_rule_of_its_own_is_an_error(rule):
    with pytest.raises(
        LossError, match=r"^A recurrence is marked inside a function whose derivative is a ru"
    ):
        gradients(ONE_STEP, lambda a: rule(a) * recurrent(a), a=2.0)
    assert gradients(backprop, lambda a: rule(a) * a, a=2.0)["a"] == pytest.approx(4.0)


def test_rules_without_a_mark_are_kept():
    """softplus and relu have rules of their own; d/da softplus(a)·relu(a) at 1 is σ(1) + softplus(1)."""

    def loss(a: Any) -> Any:
        return jax.nn.softplus(a) * jax.nn.relu(a) + recurrent(a)

    expected = 1 / (1 + np.exp(-1.0)) + np.log1p(np.exp(1.0))
    assert gradients(ONE_STEP, loss, a=1.0)["a"] == pytest.approx(expected, rel=1e-6)


def test_a_program_that_is_used_many_times_stays_one_program():
    """So that a stack of layers is not compiled once a layer."""
    from toolshed.gradients.one_step import _Cut

    step = jax.jit(lambda h: recurrent(h) * 2)
    traced = jax.make_jaxpr(lambda h: step(step(step(h))))(1.0)
    cut = _Cut().value(traced)
    assert len({id(eqn.params["jaxpr"]) for eqn in traced.jaxpr.eqns}) == 1
    assert len({id(eqn.params["jaxpr"]) for eqn in cut.jaxpr.eqns}) == 1
    unmarked = jax.make_jaxpr(lambda h: jax.jit(lambda h: h * 2)(h))(1.0)
    assert _Cut().value(unmarked) is unmarked


def test_a_loss_without_a_mark_is_an_error_that_says_how_to_mark():
    with pytest.raises(
        LossError,
        match=r"^OneStepApproximation found no recurrence in this loss function\. Mark .*: h ="
        r" toolshed\.gradients\.recurrent\(h\)\. Or iterate with toolshed\.gradients\.fixed_point\(f, start,",
    ):
        gradients(ONE_STEP, lambda a: a * a, a=1.0)


# --- all but the gradient is as it was --------------------------------------------------------------


def recurrent_loss(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
    """A recurrent network over x float[examples, time], read out at each step; counts its calls."""

    def body(h: Any, x: Any) -> Any:
        h = jnp.tanh(recurrent(h) @ params["w"] + x[:, None] * params["u"])
        return h, h

    del rng
    last, states = jax.lax.scan(body, batch["start"], batch["x"].T)
    errors = jnp.mean((states.sum(-1).T - batch["y"]) ** 2, axis=1)
    mask = batch.get("mask", jnp.ones(errors.shape, bool))
    return jnp.where(mask, errors, 0).sum() / mask.sum(), (carry + 1, {"last": last, "n": mask.sum()})


SIZES = {"x": (4, 6), "y": (4, 6), "start": (4, 3)}


def network() -> tuple[dict[str, Any], dict[str, Any]]:
    rng = np.random.default_rng(0)
    params = {"w": rng.normal(size=(3, 3)) / 2, "u": rng.normal(size=3)}
    batch = {name: rng.normal(size=size) for name, size in SIZES.items()}
    params, batch = jax.tree.map(lambda x: jnp.asarray(x, np.float32), (params, batch))
    return params, {**batch, "mask": jnp.array([True, True, False, True])}


@functools.cache
def outcome(strategy: Any) -> Any:
    params, batch = network()
    return jax.jit(lambda p, b: strategy(recurrent_loss, p, jnp.int32(3), b, KEY))(params, batch)


def test_loss_and_carry_and_aux_are_those_of_backprop():
    loss, kept, grads = outcome(ONE_STEP)
    exact_loss, exact_kept, exact_grads = outcome(Backprop())
    same((loss, kept), (exact_loss, exact_kept), rtol=1e-6)
    difference = jax.tree.map(lambda x, y: float(jnp.abs(x - y).max()), grads, exact_grads)
    assert min(difference.values()) > 1e-2, "one step of a network that remembers is not all of it"


def test_it_is_the_gradient_of_the_sum_of_the_steps_each_from_a_fixed_start():
    """Independently: the states of the forward pass as constants, one step from each, differentiated."""
    params, batch = network()
    states = [batch["start"]]
    for t in range(6):
        states.append(jnp.tanh(states[-1] @ params["w"] + batch["x"][:, t, None] * params["u"]))

    def loss(p: Any) -> Any:
        new = [jnp.tanh(states[t] @ p["w"] + batch["x"][:, t, None] * p["u"]).sum(-1) for t in range(6)]
        errors = jnp.mean((jnp.stack(new, axis=1) - batch["y"]) ** 2, axis=1)
        return jnp.where(batch["mask"], errors, 0).sum() / 3

    same(outcome(ONE_STEP)[2], jax.jit(jax.grad(loss))(params), rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize(
    "strategy",
    [
        OneStepApproximation(strategy=Remat()),
        Remat(strategy=ONE_STEP),
        OneStepApproximation(strategy=PerExample()),
        PerExample(strategy=ONE_STEP),
        OneStepApproximation(strategy=Accumulate(2)),
        Accumulate(2, strategy=ONE_STEP),
    ],
    ids=repr,
)
def test_it_goes_with_other_strategies_either_way_around(strategy):
    loss, _, grads = outcome(strategy)
    same((loss, grads), (outcome(ONE_STEP)[0], outcome(ONE_STEP)[2]), rtol=1e-5, atol=1e-6)


def test_the_start_of_a_recurrence_gets_no_gradient():
    def loss(h: Any, u: Any) -> Any:
        return jax.lax.scan(lambda h, x: (jnp.tanh(recurrent(h) + u * x), None), h, X)[0]

    assert gradients(ONE_STEP, loss, h=0.3, u=1.0)["h"] == 0.0
    assert gradients(backprop, loss, h=0.3, u=1.0)["h"] > 0.01


# --- memory -----------------------------------------------------------------------------------------


def shapes_in(jaxpr: Any) -> set[tuple[int, ...]]:
    """The shapes of all values in a program and in those inside it."""
    found = {tuple(v.aval.shape) for eqn in jaxpr.eqns for v in eqn.outvars if hasattr(v.aval, "shape")}
    for inner in jax.extend.core.subjaxprs(jaxpr):
        found |= shapes_in(inner)
    return found


def test_the_iterations_before_the_last_hold_nothing():
    """37 steps to the fixed point: no array has an axis of 36 or 37; in full each step's state is kept."""

    def loss_fn(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        rest = lambda z: jnp.tanh(z @ params["w"] + batch["x"])  # noqa: E731
        return jnp.sum(fixed_point(rest, jnp.zeros((5, 4)), steps=37)), (carry, {})

    params, batch = {"w": 0.1 * jnp.ones((4, 4))}, {"x": jnp.ones((5, 4))}

    def axes(strategy: Any) -> set[int]:
        program = jax.make_jaxpr(lambda p, b: strategy(loss_fn, p, (), b, KEY))(params, batch)
        return {size for shape in shapes_in(program.jaxpr) for size in shape}

    assert axes(ONE_STEP) & {36, 37} == set()
    assert 36 in axes(backprop)
