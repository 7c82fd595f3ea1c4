"""What a step computes: state before and after, keys, gradients, and what the optimiser is told."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from jax.flatten_util import ravel_pytree
from penzai import pz

import toolshed
from tests import zoo
from tests.training import by_hand
from tests.training.by_hand import batches, differing, new_state
from tests.training.steps import parameters_of, run
from toolshed import build_train_step
from toolshed.training.context import FIELDS

# --- model state and the order of before and after --------------------------------------------------


@pz.pytree_dataclass
class BatchNorm(pz.nn.Layer):
    """Normalises one feature over the batch, scales it, and keeps running statistics of it."""

    scale: pz.Parameter | pz.ParameterSlot
    bias: pz.Parameter | pz.ParameterSlot
    mean: pz.StateVariable
    variance: pz.StateVariable

    def __call__(self, x: Any, /, **side_inputs: Any) -> Any:
        mean, variance = x.mean(), x.var()
        self.mean.value = 0.75 * self.mean.value + 0.25 * mean
        self.variance.value = 0.75 * self.variance.value + 0.25 * variance
        return (x - mean) / jnp.sqrt(variance) * self.scale.value + self.bias.value


def batch_norm_state(optimizer: optax.GradientTransformation) -> toolshed.TrainState:
    model = BatchNorm(
        pz.Parameter(value=jnp.asarray(1.0), label="scale"),
        pz.Parameter(value=jnp.asarray(0.0), label="bias"),
        pz.StateVariable(value=jnp.asarray(0.0), label="mean"),
        pz.StateVariable(value=jnp.asarray(1.0), label="variance"),
    )
    return new_state(zoo.Case(model, plain_loss, {}), optimizer)


def plain_loss(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
    return jnp.mean((model(x) - y) ** 2), state, {}


# x = [0, 2]: mean 1, variance 1, normalised to [-1, 1]. With scale 1 and bias 0 that is also the
# prediction; its errors against y = [0, 3] are [-1, -2], so loss = (1 + 4) / 2 = 2.5,
# d scale = mean(2 · [-1, -2] · [-1, 1]) = -1 and d bias = mean(2 · [-1, -2]) = -3.
FIRST = {"x": np.float32([0, 2]), "y": np.float32([0, 3])}


# x = [1, 5]: mean 3, variance 4, normalised to [-1, 1] again.
SECOND = {"x": np.float32([1, 5]), "y": np.float32([0, 3])}


def adam_by_hand(grads: list[float], rate: float) -> list[float]:
    """Adam's updates for one parameter: Kingma & Ba 2015, algorithm 1."""
    m = v = 0.0
    updates = []
    for t, g in enumerate(grads, start=1):
        m, v = 0.9 * m + 0.1 * g, 0.999 * v + 0.001 * g * g
        updates.append(-rate * (m / (1 - 0.9**t)) / (np.sqrt(v / (1 - 0.999**t)) + 1e-8))
    return updates


@pytest.mark.parametrize(
    "options",
    [{}, {"fields": tuple(FIELDS)}, {"fields": tuple(FIELDS), "donate": True}],
    ids=["looked at", "all named", "all named, donated"],
)
def test_a_context_holds_everything_from_before_the_update(options):
    step = build_train_step(plain_loss, **options)
    state, first = step(batch_norm_state(optax.adam(0.1)), FIRST)
    assert int(first.step) == 0
    assert int(state.step) == 1
    assert float(first.loss_total) == 2.5
    assert {path: float(g) for path, g in first.grads.items()} == {"scale": -1.0, "bias": -3.0}
    assert {path: float(p) for path, p in first.params.items()} == {"scale": 1.0, "bias": 0.0}
    assert {path: float(s) for path, s in first.model_state.items()} == {"mean": 0.0, "variance": 1.0}
    assert int(first.opt_state[0].count) == 0
    # Running statistics: 0.75 · 0 + 0.25 · 1 and 0.75 · 1 + 0.25 · 1.
    assert {path: float(s) for path, s in state.model_state.items()} == {"mean": 0.25, "variance": 1.0}

    held = {path: float(value) for path, value in state.params.items()}
    state, second = step(state, SECOND)
    assert int(second.step) == 1
    assert int(second.opt_state[0].count) == 1
    assert {path: float(p) for path, p in second.params.items()} == held
    assert {path: float(s) for path, s in second.model_state.items()} == {"mean": 0.25, "variance": 1.0}
    # 0.75 · 0.25 + 0.25 · 3 and 0.75 · 1 + 0.25 · 4.
    assert {path: float(s) for path, s in state.model_state.items()} == {"mean": 0.9375, "variance": 1.75}

    # Adam's first update is 0.1 against the sign of the gradient: scale 1.1, bias 0.1. The predictions
    # are then [-1, 1] · 1.1 + 0.1 = [-1, 1.2], the errors [-1, -1.8]:
    # d scale = mean([-2, -3.6] · [-1, 1]) = -0.8, d bias = mean([-2, -3.6]) = -2.8.
    assert held == pytest.approx({"scale": 1.1, "bias": 0.1}, rel=2e-5)  # float32
    assert {path: float(g) for path, g in second.grads.items()} == pytest.approx(
        {"scale": -0.8, "bias": -2.8}, rel=1e-5
    )
    for path, grads in (("scale", [-1.0, -0.8]), ("bias", [-3.0, -2.8])):
        start = {"scale": 1.0, "bias": 0.0}[path]
        assert float(state.params[path]) == pytest.approx(start + sum(adam_by_hand(grads, 0.1)), rel=1e-5)


@pytest.mark.parametrize("options", [{}, {"fields": ("params", "updates")}], ids=str)
@pytest.mark.parametrize("model", ["running_statistics", "lora_by_freezing"])
def test_params_plus_updates_are_the_next_params(model, options):
    case, data = zoo.ZOO[model](), batches(zoo.ZOO[model](), 3)
    step, state = build_train_step(case.loss_fn, **options), new_state(case, optax.adamw(1e-2))
    for batch in data:
        state, context = step(state, batch)
        expected = optax.apply_updates(context.params, context.updates)
        for path, value in state.params.items():
            np.testing.assert_allclose(value, expected[path], rtol=1e-6)
            assert np.any(value != context.params[path])


def test_frozen_parameters_never_change_and_the_others_do():
    case = zoo.lora_by_metadata()
    step, state = build_train_step(case.loss_fn), new_state(case, optax.adamw(1e-1, weight_decay=0.1))
    frozen, trained = by_hand.on_host(state.model_without_params), by_hand.on_host(state.params)
    for batch in batches(case, 20):
        state, context = step(state, batch)
    assert sum(array.size for array in frozen.values()) == 49  # all parameters of the MLP inside
    assert differing(state.model_without_params, frozen) == []
    assert sorted(differing(state.params, trained)) == sorted(trained)
    assert set(context.grads) == set(context.updates) == set(trained)
    now = {parameter.label: parameter for parameter in parameters_of(state.model)}
    for parameter in parameters_of(zoo.mlp().model):
        assert now[parameter.label].metadata["trainable"] is False
        assert differing(now[parameter.label].value, parameter.value) == []


@pytest.mark.parametrize("k", [1, 5])
def test_the_loss_function_s_state_is_carried_from_step_to_step(k):
    def counting_loss(*, model, state, rng, x, y):
        loss, _, aux = zoo.regression_loss(model=model, state=None, rng=rng, x=x, y=y)
        return loss, {"calls": state["calls"] + 1, "sum": state["sum"] + loss}, aux

    case, data = zoo.mlp(), batches(zoo.mlp(), 5)
    state = new_state(case, loss_fn_state={"calls": 0, "sum": 0.0})
    losses = by_hand.train(case, optax.adam(1e-2), jax.random.key(1), data).losses
    state = run(build_train_step(counting_loss, steps_per_call=k), state, data)
    assert int(state.loss_fn_state["calls"]) == 5
    assert float(state.loss_fn_state["sum"]) == pytest.approx(sum(losses), rel=1e-5)


# --- keys -------------------------------------------------------------------------------------------


def loss_that_shows_its_key(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
    loss, state, _ = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
    return loss, state, {"key": jax.random.key_data(rng)}


@pytest.mark.parametrize(
    "root",
    [lambda: jax.random.key(3), lambda: jax.random.PRNGKey(3), lambda: jax.random.key(3, impl="rbg")],
    ids=["typed", "raw", "rbg"],
)
def test_the_key_of_a_step_is_folded_from_the_root_key_and_the_step_s_number(root):
    case, root = zoo.mlp(), root()
    step = build_train_step(loss_that_shows_its_key)
    state = new_state(case, root_rng=root).replace(step=jnp.int32(7))
    for number in (7, 8, 9):
        state, context = step(state, case.batch)
        expected = jax.random.key_data(jax.random.fold_in(root, number))
        assert differing(context.aux["key"], expected) == []
        assert differing(context.rng, jax.random.fold_in(root, number)) == []
    assert state.root_rng is root


def test_each_of_the_steps_in_one_call_has_its_own_key():
    case, root = zoo.mlp(), jax.random.key(3)
    step = build_train_step(loss_that_shows_its_key, steps_per_call=4)
    _, context = step(new_state(case, root_rng=root), toolshed.data.stack([case.batch] * 4))
    expected = [jax.random.key_data(jax.random.fold_in(root, number)) for number in range(4)]
    assert differing(context.aux["key"], np.stack(expected)) == []


def test_a_state_with_another_root_key_draws_other_numbers_in_the_same_program():
    case = zoo.dropout_mlp()
    optimizer, step = optax.sgd(1e-2), build_train_step(case.loss_fn, fields=("loss_total",))
    losses = [
        float(step(new_state(case, optimizer, root_rng=jax.random.key(seed)), case.batch)[1].loss_total)
        for seed in (1, 2, 1)
    ]
    assert losses[0] == losses[2]
    assert losses[0] != losses[1]
    assert step.traces == 1


# --- gradients --------------------------------------------------------------------------------------


def flat_loss(case: zoo.Case, state: toolshed.TrainState) -> Any:
    """The loss of the case's batch as a function of all parameters in one vector."""

    def loss(vector: Any) -> Any:
        model = toolshed.models.bind(state.model_without_params, unravel(vector), state.model_state)
        return case.loss_fn(model=model, state=None, rng=jax.random.key(0), **case.batch)[0]

    start, unravel = ravel_pytree(dict(state.params))
    return loss, start


@pytest.mark.parametrize("model", ["mlp", "shared_parameter"])
def test_gradients_equal_finite_differences(model):
    """A training package of another language once scaled each gradient by the loss; this finds it."""
    with jax.enable_x64(True):
        wide = functools.partial(jax.tree.map, lambda x: x.astype(jnp.float64))
        case = zoo.ZOO[model]()
        case = case._replace(batch=wide(case.batch))
        state = new_state(case)
        state = state.replace(params=wide(state.params), opt_state=optax.adam(1e-2).init(wide(state.params)))
        loss, start = flat_loss(case, state)
        nudges = 1e-6 * jnp.eye(start.size)
        differences = (jax.vmap(loss)(start + nudges) - jax.vmap(loss)(start - nudges)) / 2e-6
        _, context = build_train_step(case.loss_fn, fields=("grads", "loss_total"))(state, case.batch)
        grads = ravel_pytree(context.grads)[0]
        np.testing.assert_allclose(grads, differences, rtol=1e-6, atol=1e-8)
        scaled = grads * context.loss_total
        assert np.abs(scaled - differences).max() > 0.01  # the loss is not near 1: scaling would show


def test_a_constant_added_to_the_loss_leaves_the_gradients_as_they_are():
    def raised_loss(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss + 100.0, state, aux

    case = zoo.mlp()
    _, plain = build_train_step(case.loss_fn, fields=("grads", "loss_total"))(new_state(case), case.batch)
    _, raised = build_train_step(raised_loss, fields=("grads", "loss_total"))(new_state(case), case.batch)
    assert float(raised.loss_total) == pytest.approx(float(plain.loss_total) + 100)
    for path, grad in plain.grads.items():
        np.testing.assert_allclose(raised.grads[path], grad, rtol=1e-6)


def test_a_gradient_strategy_decides_the_gradients_and_applies_nothing():
    def halved(loss_fn, params, carry, batch, rng):
        loss, kept, grads = toolshed.gradients.backprop(loss_fn, params, carry, batch, rng)
        return loss, kept, jax.tree.map(lambda g: g / 2, grads)

    case = zoo.mlp()
    plain = build_train_step(case.loss_fn, fields=("grads",))
    half = build_train_step(case.loss_fn, fields=("grads",), gradient_strategy=halved)
    state = new_state(case, optax.sgd(1.0))
    _, expected = plain(state, case.batch)
    after, context = half(state, case.batch)
    for path, grad in context.grads.items():
        np.testing.assert_allclose(grad, expected.grads[path] / 2, rtol=1e-6)
        np.testing.assert_allclose(after.params[path], state.params[path] - grad, rtol=1e-6)


# --- optimisers that look at the loss ---------------------------------------------------------------


def quadratic_state(optimizer: optax.GradientTransformation) -> toolshed.TrainState:
    model = BatchNorm(
        pz.Parameter(value=jnp.asarray(4.0), label="scale"),
        pz.Parameter(value=jnp.asarray(-2.0), label="bias"),
        pz.StateVariable(value=jnp.asarray(0.0), label="mean"),
        pz.StateVariable(value=jnp.asarray(1.0), label="variance"),
    )
    return new_state(zoo.Case(model, plain_loss, {}), optimizer)


def test_reduce_on_plateau_sees_the_loss_of_each_step():
    # The learning rate is 0, so the loss never improves: after the first step, which sets the best loss,
    # each `patience` of 2 further steps halves the scale.
    optimizer = optax.chain(
        optax.sgd(0.0), optax.contrib.reduce_on_plateau(factor=0.5, patience=2, rtol=1e-4)
    )
    step, state, scales = build_train_step(plain_loss), quadratic_state(optimizer), []
    for _ in range(7):
        state, context = step(state, FIRST)
        scales.append(float(state.opt_state[-1].scale))
    assert scales == [1.0, 1.0, 0.5, 0.5, 0.25, 0.25, 0.125]
    assert float(state.opt_state[-1].best_value) == float(context.loss_total)


def test_lbfgs_with_its_line_search_solves_a_quadratic():
    # x is normalised to [-1, 1]: the least squares fit of y = [0, 3] is scale 1.5, bias 1.5.
    step, state = build_train_step(plain_loss), quadratic_state(optax.lbfgs())
    for _ in range(8):
        state, context = step(state, FIRST)
    assert {path: float(p) for path, p in state.params.items()} == pytest.approx(
        {"scale": 1.5, "bias": 1.5}, abs=1e-4
    )
    plain = quadratic_state(optax.sgd(1e-2))
    for _ in range(8):
        plain, slow = step(plain, FIRST)
    assert float(context.loss_total) < 1e-6 < 1 < float(slow.loss_total)
    # The running mean moved once a step, however often the line search called the loss function.
    assert float(state.model_state["mean"]) == pytest.approx(1 - 0.75**8, rel=1e-6)
