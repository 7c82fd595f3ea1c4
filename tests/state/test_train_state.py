from __future__ import annotations

import dataclasses
import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
import treescope
from penzai import pz

import toolshed
from tests import zoo
from toolshed import Context, TrainState, metrics, models, paths
from toolshed.errors import ModelError, StateError

FIELDS = [
    "step",
    "root_rng",
    "params",
    "model_without_params",
    "model_state",
    "opt_state",
    "loss_fn_state",
    "metrics",
    "optimizer_def",
]


def state_of(name: str, optimizer: Any = None, **fields: Any) -> TrainState:
    """The initial state of a model of the zoo, with sgd(0.5) where nothing else is said."""
    return TrainState.initial_state(
        zoo.ZOO[name]().model, optimizer or optax.sgd(0.5), jax.random.key(1), **fields
    )


def small_state(**fields: Any) -> TrainState:
    """A state put together from parts, without a model."""
    parts = {
        "params": {"w": jnp.asarray([1.0, 2.0, 4.0]), "b": jnp.asarray(8.0)},
        "model_without_params": (),
        "optimizer_def": optax.sgd(0.5),
        "root_rng": jax.random.key(1),
    }
    return TrainState.create(**(parts | fields))


def weak(tree: Any) -> list[str]:
    """The paths of the arrays whose type is weak."""
    return [path for path, leaf in paths.flatten(tree).items() if getattr(leaf, "weak_type", False)]


def same_bits(one: Any, two: Any) -> bool:
    bits = [
        [
            np.asarray(jax.random.key_data(leaf) if toolshed.keys.is_key(leaf) else leaf).tobytes()
            for leaf in jax.tree.leaves(tree)
        ]
        for tree in (one, two)
    ]
    return bits[0] == bits[1]


# --- the initial state ------------------------------------------------------------------------------


def test_the_initial_state_is_before_the_first_step():
    key = jax.random.key(1)
    case = zoo.running_statistics()
    state = TrainState.initial_state(case.model, optax.adam(0.1), key, loss_fn_state={"n": jnp.ones(2)})
    assert (state.step.dtype, state.step.shape, int(state.step)) == (jnp.int32, (), 0)
    assert state.root_rng is key
    split = models.split(case.model)
    assert list(state.params) == list(split.params)
    assert list(state.model_state) == list(split.model_state)
    assert state.model_without_params == split.skeleton
    assert state.metrics is None
    assert state.opt_state[0].mu.keys() == state.params.keys()
    np.testing.assert_array_equal(state.loss_fn_state["n"], np.ones(2))


@pytest.mark.parametrize("name", zoo.ZOO)
def test_the_state_shares_the_model_s_arrays(name):
    case = zoo.ZOO[name]()
    state = TrainState.initial_state(case.model, optax.identity(), jax.random.key(1))
    split = models.split(case.model)
    assert split.params
    for path, value in split.params.items():
        assert state.params[path] is value
    kept = {id(leaf) for leaf in jax.tree.leaves(split.skeleton)}
    assert kept == {id(leaf) for leaf in jax.tree.leaves(state.model_without_params)}


def test_an_optimiser_that_starts_from_the_parameters_gets_copies_of_them():
    keeps = optax.GradientTransformation(lambda params: (params, params), lambda g, s, p=None: (g, s))
    params = {"w": jnp.ones(3), "b": jnp.zeros(())}
    assert keeps.init(params)[0]["w"] is params["w"]  # the control: what would be donated twice
    for optimizer in (keeps, optax.contrib.schedule_free_sgd(0.1)):
        state = small_state(params=params, optimizer_def=optimizer)
        leaves = [*state.params.values(), *jax.tree.leaves(state.opt_state)]
        assert len({id(leaf) for leaf in leaves}) == len(leaves)
        assert len({leaf.unsafe_buffer_pointer() for leaf in leaves}) == len(leaves)
        assert same_bits(state.opt_state, optimizer.init(params))


def aliased(place: str) -> TrainState:
    """A state in which one array of the user's stands in two places."""
    ones = pz.nx.ones({"features": 4})
    scalar = jnp.asarray(1.5, jnp.float32)
    first, body = zoo.Scale(pz.Parameter(value=ones, label="first")), zoo.mlp().model
    frozen = pz.Parameter(value=ones, label="frozen", metadata={"trainable": False})
    model, loss_fn_state = {
        "two parameters": (
            pz.nn.Sequential([first, zoo.Scale(pz.Parameter(value=ones, label="second")), body]),
            None,
        ),
        "a parameter and a frozen one": (pz.nn.Sequential([first, zoo.Scale(frozen), body]), None),
        "a parameter and a constant": (
            pz.nn.Sequential(
                [zoo.Scale(pz.Parameter(value=scalar, label="first")), pz.nn.ConstantRescale(by=scalar), body]
            ),
            None,
        ),
        "a parameter and the model's state": (
            pz.nn.Sequential(
                [first, zoo.RunningNorm(pz.StateVariable(ones), pz.StateVariable(ones), 0.5), body]
            ),
            None,
        ),
        "a parameter and the loss's state": (pz.nn.Sequential([first, body]), {"target": ones.data_array}),
        "twice in the loss's state": (body, [jnp.zeros(4)] * 2),
        "nothing": (pz.nn.Sequential([first, body]), None),
    }[place]
    return TrainState.initial_state(model, optax.sgd(0.1), jax.random.key(1), loss_fn_state=loss_fn_state)


@pytest.mark.parametrize(
    "place",
    [
        "two parameters",
        "a parameter and a frozen one",
        "a parameter and a constant",
        "a parameter and the model's state",
        "a parameter and the loss's state",
        "twice in the loss's state",
        "nothing",
    ],
)
def test_a_state_can_be_donated_where_one_array_stands_in_two_places(place):
    case = zoo.mlp()
    keep = toolshed.build_train_step(case.loss_fn, fields=("loss_total",))
    donate = toolshed.build_train_step(case.loss_fn, fields=("loss_total",), donate=True)
    expected, _ = keep(keep(aliased(place), case.batch)[0], case.batch)
    state, _ = donate(donate(aliased(place), case.batch)[0], case.batch)
    assert int(state.step) == 2
    for path, value in expected.params.items():
        np.testing.assert_allclose(state.params[path], value, rtol=1e-6)


def test_a_model_without_trainable_parameters_is_an_error():
    frozen = pz.select(zoo.mlp().model).at_instances_of(pz.Parameter).apply(zoo.not_trainable)
    for model in (frozen, pz.freeze_params(zoo.mlp().model)):
        with pytest.raises(ModelError) as caught:
            TrainState.initial_state(model, optax.sgd(0.1), jax.random.key(1))
        assert str(caught.value) == (
            "MLP has no trainable parameter, so there is nothing to train. Parameters with metadata"
            " {'trainable': False} and frozen values do not count."
        )


@pytest.mark.parametrize(("dtype", "trains"), [(jnp.int32, False), (jnp.bool_, False), (jnp.bfloat16, True)])
def test_a_parameter_without_a_gradient_is_an_error_that_says_what_to_make_it(dtype, trains):
    model = [pz.Parameter(value=jnp.ones(2, dtype), label="table")]
    if trains:
        assert (
            TrainState.initial_state(model, optax.sgd(0.1), jax.random.key(1)).params["table"].dtype == dtype
        )
        return
    with pytest.raises(ModelError) as caught:
        TrainState.initial_state(model, optax.sgd(0.1), jax.random.key(1))
    assert str(caught.value) == (
        f"The parameter 'table' is {jnp.dtype(dtype).name}[2]; a gradient exists for floating point and"
        " complex values only. Declare it not trainable (metadata={'trainable': False}) or make it a"
        " StateVariable."
    )
    frozen = [zoo.not_trainable(model[0]), pz.Parameter(value=jnp.ones(1), label="w")]
    assert list(TrainState.initial_state(frozen, optax.sgd(0.1), jax.random.key(1)).params) == ["w"]


@pytest.mark.parametrize(
    ("optimizer", "message"),
    [
        (optax.adam, "got adam. Call it first: optax.adam(1e-3)."),
        (None, "got NoneType."),
        ("adam", "got str."),
    ],
)
def test_what_is_no_optimiser_is_an_error(optimizer, message):
    with pytest.raises(
        StateError, match=re.escape(f"Expected an optax optimiser with init and update, {message}")
    ):
        small_state(optimizer_def=optimizer)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (0, "int 0"),
        (None, "NoneType"),
        (jax.random.split(jax.random.key(0)), "key<fry>[2]"),
        (jnp.zeros(2), "float32[2]"),
    ],
)
def test_what_is_no_key_is_an_error(key, words):
    message = f"Expected one random key as root_rng, got {words}. Use jax.random.key(seed)."
    with pytest.raises(StateError, match=re.escape(message)):
        small_state(root_rng=key)


@pytest.mark.parametrize("key", [jax.random.PRNGKey(3), jax.random.key(3), jax.random.key(3, impl="rbg")])
def test_keys_of_all_kinds_are_taken(key):
    assert small_state(root_rng=key).root_rng is key


@pytest.mark.parametrize(
    ("fields", "where"),
    [
        ({"loss_fn_state": {"name": "text"}}, "Expected an array at 'loss_fn_state/name', got str."),
        ({"model_state": {"x": b"bytes"}}, "Expected an array at 'model_state/x', got bytes."),
        (
            {"loss_fn_state": [jnp.ones(1), len]},
            "Expected an array at 'loss_fn_state/1', got builtin_function_or_method.",
        ),
    ],
)
def test_what_is_no_array_is_an_error_that_names_its_place(fields, where):
    with pytest.raises(StateError, match=re.escape(where)):
        small_state(**fields)


def test_a_state_may_hold_keys():
    # A loss function that samples carries its key from step to step, and so may a layer.
    one, two = jax.random.key(5), jax.random.split(jax.random.key(6, impl="rbg"))
    state = small_state(loss_fn_state={"noise": one}, model_state={"streams": two})
    assert key_bytes(state.loss_fn_state["noise"]) == key_bytes(one) != key_bytes(jax.random.key(6))
    assert key_bytes(state.model_state["streams"]) == key_bytes(two)
    assert state.model_state["streams"].dtype == two.dtype


def test_noise_that_the_optimiser_adds_comes_from_its_own_key():
    state = small_state(optimizer_def=optax.chain(optax.add_noise(0.1, 0.5, 0), optax.sgd(0.5)))
    grads = jax.tree.map(jnp.zeros_like, state.params)
    one, two = state.apply_gradients(grads), state.apply_gradients(grads)
    assert same_bits(one.params, two.params)
    assert not same_bits(one.params, state.params)


def test_types_are_never_weak():
    assert jnp.asarray(1.0).weak_type  # the control: what a Python number becomes
    state = small_state(
        params={"w": jnp.asarray(1.0)},
        step=3,
        model_state={"offset": jnp.asarray(0)},
        loss_fn_state={"decay": 0.9, "on": True},
        opt_state={"count": jnp.asarray(0)},
    )
    assert weak(state) == []
    assert state.step.dtype == jnp.int32
    assert state.loss_fn_state["decay"].dtype == jnp.float32
    assert state.loss_fn_state["on"].dtype == jnp.bool_
    assert weak(state_of("random_stream")) == []
    assert weak(models.split(zoo.random_stream().model)) == ["model_state/random_stream_offset"]


def test_a_state_made_of_parts_has_what_was_given():
    opt_state = {"mine": jnp.ones(2)}
    collection = metrics.collection(loss=metrics.Mean("loss_total"))
    state = small_state(step=7, opt_state=opt_state, metrics=collection, model_state={"s": jnp.ones(1)})
    assert int(state.step) == 7
    assert state.opt_state["mine"] is opt_state["mine"]
    assert state.metrics is collection
    assert list(state.params) == ["w", "b"]
    assert small_state().model_state == {}
    assert small_state().loss_fn_state is None


def test_initialising_and_putting_together_the_parts_is_the_same():
    case = zoo.running_statistics()
    optimizer, key = optax.adam(0.1), jax.random.key(1)
    skeleton, params, model_state = models.split(case.model)
    made = TrainState.create(
        params=params,
        model_without_params=skeleton,
        model_state=model_state,
        optimizer_def=optimizer,
        root_rng=key,
    )
    initial = TrainState.initial_state(case.model, optimizer, key)
    assert jax.tree.structure(made) == jax.tree.structure(initial)
    assert same_bits(made, initial)


def test_numpy_arrays_are_copied_so_that_changing_them_changes_no_state():
    params, carried = np.zeros(4096, np.float32), np.zeros(4096, np.float32)
    state = small_state(params={"w": params}, loss_fn_state=carried)
    params[:] = carried[:] = 7
    np.testing.assert_array_equal(state.params["w"], np.zeros(4096))
    np.testing.assert_array_equal(state.loss_fn_state, np.zeros(4096))


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


def key_bytes(key: jax.Array) -> bytes:
    return np.asarray(jax.random.key_data(key)).tobytes()


@pytest.mark.parametrize("impl", ["threefry2x32", "rbg"])
def test_next_rng_gives_no_key_twice_and_none_that_a_step_uses(impl):
    state = small_state(root_rng=jax.random.key(1, impl=impl))
    drawn, of_steps = [], []
    for _ in range(20):
        of_steps += [key_bytes(jax.random.fold_in(state.root_rng, step)) for step in range(100)]
        of_steps.append(key_bytes(jax.random.fold_in(state.root_rng, 2**31 - 1)))  # the last step there is
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


# --- a Struct and a pytree --------------------------------------------------------------------------


def test_the_fields_are_those_of_the_design():
    assert [field.name for field in dataclasses.fields(TrainState)] == FIELDS


def test_a_state_is_a_struct():
    state = state_of("mlp", metrics=metrics.collection(m=metrics.Mean("preds")))
    attributes = state.attributes_dict()
    assert list(attributes) == FIELDS
    again = TrainState.from_attributes(**attributes)
    assert all(getattr(again, name) is getattr(state, name) for name in FIELDS)
    assert state.key_for_field("params") == jax.tree_util.GetAttrKey("params")
    assert re.fullmatch(r"#[0-9a-f]{6}", state.treescope_color())
    with pytest.raises(dataclasses.FrozenInstanceError):
        state.step = 3


def test_select_reaches_into_the_state():
    state = state_of("mlp")
    zeroed = state.select().at(lambda found: found.params["mlp/Affine_0/AddBias.bias"]).apply(lambda b: b + 1)
    np.testing.assert_array_equal(zeroed.params["mlp/Affine_0/AddBias.bias"], np.ones(8))
    np.testing.assert_array_equal(state.params["mlp/Affine_0/AddBias.bias"], np.zeros(8))
    linears = state.select().at_instances_of(pz.nn.Linear)
    assert len(linears.selected_by_path) == 2
    without = state.model_without_params.select().at_instances_of(pz.nn.Elementwise).remove_from_parent()
    linear = state.replace(model_without_params=without).model
    assert (len(linear.sublayers), len(state.model.sublayers)) == (2, 3)
    picked = state.select().at(lambda found: found.model_without_params.sublayers[0]).get()
    assert picked == state.model_without_params.sublayers[0]


@pytest.mark.parametrize("name", ["mlp", "running_statistics", "lora_by_metadata", "v1_mlp"])
def test_a_state_is_put_together_from_its_leaves_as_it_was(name):
    state = state_of(name, optax.adam(0.1), metrics=metrics.collection(m=metrics.Mean("preds")))
    leaves, structure = jax.tree.flatten(state)
    again = jax.tree.unflatten(structure, leaves)
    assert isinstance(again, TrainState)
    assert jax.tree.structure(again) == structure
    assert all(a is b for a, b in zip(jax.tree.leaves(again), leaves, strict=True))
    assert again.optimizer_def is state.optimizer_def
    # dicts come back from jax in the order of their keys, with the same values
    assert {path: id(value) for path, value in again.params.items()} == {
        path: id(value) for path, value in state.params.items()
    }
    doubled = jax.tree.map(lambda x: x if toolshed.keys.is_key(x) else x * 2, state)
    path = next(iter(state.params))
    np.testing.assert_array_equal(doubled.params[path], 2 * state.params[path])


def test_the_leaves_of_a_state_have_paths():
    state = small_state(model_state={"s": jnp.ones(2)}, loss_fn_state=(jnp.ones(1),))
    flat = paths.flatten(state)
    assert list(flat) == ["step", "root_rng", "params/b", "params/w", "model_state/s", "loss_fn_state/0"]
    assert flat["params/w"] is state.params["w"]
    named = jax.tree_util.tree_map_with_path(lambda keys, leaf: paths.path_string(keys), state)
    assert named.params["w"] == "params/w"
    assert paths.lookup(state, "model_state/s") is state.model_state["s"]


def test_a_state_goes_through_jit_vmap_and_eval_shape():
    state = state_of("running_statistics", optax.adam(0.1))
    same = jax.jit(lambda s: s.replace(step=s.step + 1))(state)
    assert int(same.step) == 1
    assert same.optimizer_def is state.optimizer_def
    assert same_bits(same.params, {path: state.params[path] for path in sorted(state.params)})
    shapes = jax.eval_shape(lambda s: s, state)
    assert shapes.params["mlp/Affine_0/Linear.weights"].shape == (4, 8)
    two = jax.tree.map(lambda leaf: jnp.stack([leaf, leaf]), state)
    assert jax.vmap(lambda s: s.params["mlp/Affine_0/AddBias.bias"].sum())(two).shape == (2,)


def test_two_states_with_equal_models_and_one_optimiser_have_one_structure():
    optimizer = optax.adam(0.1)
    assert jax.tree.structure(state_of("mlp", optimizer)) == jax.tree.structure(state_of("mlp", optimizer))
    assert jax.tree.structure(state_of("mlp", optimizer)) != jax.tree.structure(
        state_of("mlp", optax.adam(0.1))
    )
    assert jax.tree.structure(state_of("mlp", optimizer)) != jax.tree.structure(
        state_of("dropout_mlp", optimizer)
    )


def test_replace_gives_a_state_with_other_values_in_some_fields():
    state = small_state()
    other = state.replace(step=jnp.int32(9), loss_fn_state={"a": jnp.ones(1)})
    assert int(other.step) == 9
    assert int(state.step) == 0
    assert other.params is state.params
    assert list(other.loss_fn_state) == ["a"]


@pytest.mark.parametrize(
    ("name", "hint"),
    [
        ("parms", "Did you mean 'params'?"),
        ("optimizer", "Did you mean 'optimizer_def'?"),
        ("zzz", f"There are {', '.join(FIELDS)}."),
    ],
)
def test_a_field_that_does_not_exist_cannot_be_replaced(name, hint):
    with pytest.raises(StateError) as caught:
        small_state().replace(**{name: 1})
    assert str(caught.value) == f"TrainState has no field {name!r}. {hint}"


def test_a_state_is_drawn_as_a_state():
    assert treescope.render_to_text(small_state()).startswith("TrainState(")
