"""What a TrainState can do: give its model, take gradients, draw keys and gather metrics."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz

import toolshed
from tests import zoo
from tests.state.states import FIELDS, key_bytes, same_bits, small_state
from toolshed import Context, TrainState, metrics, models
from toolshed.errors import StateError

# --- the model --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.ZOO)
def test_the_model_of_the_initial_state_computes_what_the_passed_model_does(name):
    case = zoo.ZOO[name]()
    state = TrainState.initial_state(case.model, optax.sgd(0.5), jax.random.key(1))
    key = jax.random.key(7)
    _, _, ours = case.loss_fn(model=state.model, state=None, rng=key, **case.batch)
    _, _, theirs = case.loss_fn(model=case.model, state=None, rng=key, **case.batch)
    assert np.asarray(ours["preds"]).tobytes() == np.asarray(theirs["preds"]).tobytes()


@pytest.mark.parametrize("name", ["random_stream", "running_statistics"])
def test_calling_the_model_of_a_state_changes_neither_the_state_nor_the_first_model(name):
    case = zoo.ZOO[name]()
    state = TrainState.initial_state(case.model, optax.sgd(0.5), jax.random.key(1))
    before = jax.tree.map(np.array, models.split(case.model).model_state)
    called = state.model
    case.loss_fn(model=called, state=None, rng=jax.random.key(7), **case.batch)
    assert same_bits(state.model_state, before)
    assert same_bits(models.split(case.model).model_state, before)
    assert same_bits(models.split(state.model).model_state, before)
    assert not same_bits(models.split(called).model_state, before)  # the control


def test_changing_the_passed_model_later_does_not_change_the_state():
    case = zoo.running_statistics()
    state = TrainState.initial_state(case.model, optax.sgd(0.5), jax.random.key(1))
    case.loss_fn(model=case.model, state=None, rng=jax.random.key(7), **case.batch)
    case.model.sublayers[1].sublayers[0].sublayers[2].bias.value = pz.nx.ones({"features": 8})
    np.testing.assert_array_equal(state.model_state["sublayers/0/mean"], np.zeros(4))
    np.testing.assert_array_equal(state.params["mlp/Affine_0/AddBias.bias"], np.zeros(8))
    assert np.any(models.split(case.model).model_state["sublayers/0/mean"] != 0)


def test_the_model_of_a_donated_state_is_an_error_that_says_where_to_look():
    case = zoo.mlp()
    state = TrainState.initial_state(case.model, optax.sgd(0.5), jax.random.key(1))
    after, _ = toolshed.build_train_step(case.loss_fn, donate=True)(state, case.batch)
    message = (
        "The arrays of this state are gone (params/mlp/Affine_0/AddBias.bias is deleted): it was given to a"
        " step that donates. Use the state that the step returned, or build the step without donate=True."
    )
    for use in (
        lambda: state.model,
        lambda: state.to_snapshot(),
        lambda: state.apply_gradients(after.params),
    ):
        with pytest.raises(StateError) as caught:
            use()
        assert str(caught.value) == message
    assert isinstance(after.model, type(case.model))
    assert after.apply_gradients(after.params).step == 2


# --- gradients --------------------------------------------------------------------------------------


def test_a_step_of_gradient_descent_by_hand():
    # sgd(0.5): 1 - 0.5·2, 2 - 0.5·4, 4 - 0.5·(-8) and 8 - 0.5·16: all exact in binary
    state = small_state()
    after = state.apply_gradients({"w": jnp.asarray([2.0, 4.0, -8.0]), "b": jnp.asarray(16.0)})
    np.testing.assert_array_equal(after.params["w"], [0.0, 0.0, 8.0])
    assert float(after.params["b"]) == 0.0
    assert (int(state.step), int(after.step)) == (0, 1)
    np.testing.assert_array_equal(state.params["w"], [1.0, 2.0, 4.0])


def test_three_steps_of_adam_by_their_formula():
    # Kingma and Ba, 2015, algorithm 1, in float64
    rate, b1, b2, eps = 0.1, 0.9, 0.999, 1e-8
    state = small_state(optimizer_def=optax.adam(rate, b1, b2, eps))
    params = {path: np.asarray(value, np.float64) for path, value in state.params.items()}
    m, v = (jax.tree.map(np.zeros_like, params) for _ in range(2))
    for t in (1, 2, 3):
        grads = {"w": jnp.asarray([1.0, -2.0, 0.0]) * t, "b": jnp.asarray(0.5)}
        state = state.apply_gradients(grads)
        for path, grad in grads.items():
            grad = np.asarray(grad, np.float64)
            m[path] = b1 * m[path] + (1 - b1) * grad
            v[path] = b2 * v[path] + (1 - b2) * grad**2
            m_hat, v_hat = m[path] / (1 - b1**t), v[path] / (1 - b2**t)
            params[path] = params[path] - rate * m_hat / (np.sqrt(v_hat) + eps)
        for path, value in params.items():
            np.testing.assert_allclose(state.params[path], value, rtol=1e-5)
    assert int(state.step) == int(state.opt_state[0].count) == 3
    assert float(state.params["w"][2]) == 4.0  # no gradient, no change


@pytest.mark.parametrize("optimizer", [optax.adam(0.1), optax.adamw(0.1), optax.sgd(0.1, momentum=0.9)])
def test_gradients_are_applied_as_optax_applies_them(optimizer):
    state = small_state(optimizer_def=optimizer)
    grads = {"w": jnp.asarray([1.0, -2.0, 0.25]), "b": jnp.asarray(0.5)}
    params, opt_state = state.params, optimizer.init(state.params)
    for _ in range(3):
        state = state.apply_gradients(grads)
        updates, opt_state = optimizer.update(grads, opt_state, params)
        params = optax.apply_updates(params, updates)
    for ours, theirs in zip(
        jax.tree.leaves((state.params, state.opt_state)), jax.tree.leaves((params, opt_state)), strict=True
    ):
        np.testing.assert_allclose(ours, theirs, rtol=1e-6)


def test_extra_arguments_reach_the_optimiser():
    # The plateau's factor 0.5 takes effect at the second call that sees no lower value.
    optimizer = optax.chain(optax.sgd(0.5), optax.contrib.reduce_on_plateau(factor=0.5, patience=1))
    state = small_state(optimizer_def=optimizer)
    grads = jax.tree.map(jnp.ones_like, state.params)
    for _ in range(3):
        state = state.apply_gradients(grads, value=jnp.asarray(1.0))
    assert float(state.opt_state[1].scale) < 1
    falling = small_state(optimizer_def=optimizer)
    for value in (3.0, 2.0, 1.0):
        falling = falling.apply_gradients(grads, value=jnp.asarray(value))
    assert float(falling.opt_state[1].scale) == 1


@pytest.mark.parametrize(
    ("grads", "message"),
    [
        ([1.0], "Expected gradients as a dict by path, got list."),
        ({}, "'w' has no gradient."),
        ({"w": jnp.ones(3)}, "'b' has no gradient."),
        ({"w": jnp.ones(3), "b2": jnp.ones(())}, "'b' has no gradient. The nearest name there is 'b2'."),
        (
            {"w": jnp.ones(3), "b": jnp.ones(()), "ww": jnp.ones(3)},
            "'ww' is no parameter of this state. The nearest name there is 'w'.",
        ),
        ({"w": jnp.ones((3, 1)), "b": jnp.ones(())}, "The gradient of 'w' has shape (3, 1), expected (3,)."),
        ({"w": jnp.ones(3), "b": jnp.ones(1)}, "The gradient of 'b' has shape (1,), expected ()."),
    ],
)
def test_gradients_that_do_not_fit_are_an_error_that_names_the_parameter(grads, message):
    with pytest.raises(StateError) as caught:
        small_state().apply_gradients(grads)
    assert str(caught.value) == message


@pytest.mark.parametrize("name", ["mlp", "shared_parameter", "v1_mlp"])
def test_applying_the_gradients_of_a_step_gives_the_state_after_it(name):
    case = zoo.ZOO[name]()
    state = TrainState.initial_state(case.model, optax.sgd(0.5), jax.random.key(1))
    after, context = toolshed.build_train_step(case.loss_fn)(state, case.batch)
    by_hand = state.apply_gradients(context.grads)
    for path, value in after.params.items():
        np.testing.assert_allclose(by_hand.params[path], value, rtol=1e-6)
    assert int(by_hand.step) == int(after.step) == 1


def test_an_older_state_is_unchanged_by_steps_from_it():
    case = zoo.running_statistics()
    state = TrainState.initial_state(
        case.model, optax.adam(0.1), jax.random.key(1), metrics=metrics.collection(m=metrics.Mean("preds"))
    )
    kept = jax.tree.map(lambda leaf: jnp.array(leaf) if not toolshed.keys.is_key(leaf) else leaf, state)
    step = toolshed.build_train_step(case.loss_fn)
    one, context = step(state, case.batch)
    step(one, case.batch)
    state.apply_gradients(context.grads)
    state.next_rng()
    state.update_metrics(context)
    assert same_bits(state, kept)
    again, _ = step(state, case.batch)
    assert same_bits(again, one)
    assert not same_bits(again, state)


# --- random keys ------------------------------------------------------------------------------------


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_next_rng_gives_no_key_twice_and_none_that_a_step_uses(impl):
    state = small_state(root_rng=jax.random.key(1, impl=impl))
    steps = jnp.array([*range(100), 2**31 - 1])  # the last step there is
    folded = jax.jit(jax.vmap(jax.random.fold_in, in_axes=(None, 0)))
    drawn, of_steps = [], []
    for _ in range(20):
        of_steps += map(bytes, np.asarray(jax.random.key_data(folded(state.root_rng, steps))))
        of_steps.append(key_bytes(state.root_rng))
        key, state = state.next_rng()
        drawn.append(key_bytes(key))
    assert len(set(drawn)) == len(drawn) == 20
    assert not set(drawn) & set(of_steps)
    assert len(set(of_steps)) == len(of_steps)
    # Control: a key folded from a number that may be a step's is found.
    assert (
        key_bytes(jax.random.fold_in(small_state(root_rng=jax.random.key(1, impl=impl)).root_rng, 99))
        in of_steps
    )


def test_the_key_of_a_step_is_folded_from_the_root_and_the_step():
    case = zoo.mlp()
    state = TrainState.initial_state(case.model, optax.sgd(0.5), jax.random.key(1)).replace(step=jnp.int32(5))
    _, context = toolshed.build_train_step(case.loss_fn)(state, case.batch)
    assert key_bytes(context.rng) == key_bytes(jax.random.fold_in(jax.random.key(1), 5))
    assert key_bytes(context.rng) != key_bytes(jax.random.fold_in(jax.random.key(1), 6))


def test_next_rng_is_pure_and_changes_the_key_alone():
    state = small_state()
    key, after = state.next_rng()
    again, _ = state.next_rng()
    assert key_bytes(key) == key_bytes(again)
    assert key_bytes(after.root_rng) != key_bytes(state.root_rng)
    assert all(after.__dict__[name] is state.__dict__[name] for name in FIELDS if name != "root_rng")
    assert jax.random.key_impl(key) == jax.random.key_impl(state.root_rng)


# --- metrics ----------------------------------------------------------------------------------------


def context_with(*preds: float) -> Context:
    return Context(step=jnp.int32(0), batch={}, preds=jnp.asarray(preds))


def test_metrics_gather_until_they_are_reset():
    state = small_state(metrics=metrics.collection(mean=metrics.Mean("preds")))
    empty = state.compute_metrics()
    assert list(empty) == ["mean"]
    assert np.isnan(empty["mean"])
    one = state.update_metrics(context_with(1.0, 2.0))
    two = one.update_metrics(context_with(6.0))
    assert one.compute_metrics() == {"mean": 1.5}
    assert two.compute_metrics() == {"mean": 3.0}  # (1 + 2 + 6) / 3
    assert type(two.compute_metrics()["mean"]) is float
    assert np.isnan(two.reset_metrics().compute_metrics()["mean"])
    assert one.compute_metrics() == {"mean": 1.5}
    assert np.isnan(state.compute_metrics()["mean"])


def test_without_metrics_nothing_happens():
    state = small_state()
    assert state.update_metrics(context_with(1.0)) is state
    assert state.reset_metrics() is state
    assert state.compute_metrics() == {}
