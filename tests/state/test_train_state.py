"""A TrainState is a value: a Struct and a pytree of arrays, made of a model or of parts."""

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
from tests.state.states import FIELDS, key_bytes, same_bits, small_state
from toolshed import TrainState, metrics, models, paths
from toolshed.errors import ModelError, StateError


def state_of(name: str, optimizer: Any = None, **fields: Any) -> TrainState:
    """The initial state of a model of the zoo, with sgd(0.5) where nothing else is said."""
    return TrainState.initial_state(
        zoo.ZOO[name]().model, optimizer or optax.sgd(0.5), jax.random.key(1), **fields
    )


def weak(tree: Any) -> list[str]:
    """The paths of the arrays whose type is weak."""
    return [path for path, leaf in paths.flatten(tree).items() if getattr(leaf, "weak_type", False)]


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
