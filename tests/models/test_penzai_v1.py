from __future__ import annotations

import dataclasses
import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai.deprecated.v1 import pz as v1
from penzai.deprecated.v1.example_models import simple_mlp

import toolshed
from tests import zoo
from toolshed import models
from toolshed.errors import ModelError
from toolshed.models.penzai_v1 import ValueSlot

ones = jnp.ones(3)


def parameter(name: str, value: object = ones) -> v1.nn.Parameter:
    return v1.nn.Parameter(name=name, value=value)


def test_parameters_go_by_their_names_in_the_order_of_the_model():
    split = models.split(zoo.v1_mlp().model)
    assert {path: value.shape for path, value in split.params.items()} == {
        "Affine_0.Linear.weights": (4, 8),
        "Affine_0.AddBias.bias": (8,),
        "Affine_1.Linear.weights": (8, 1),
        "Affine_1.AddBias.bias": (1,),
    }
    assert next(iter(split.params)) == "Affine_0.Linear.weights"  # sorted, AddBias would be first
    assert split.model_state == {}


def test_a_parameter_s_value_becomes_a_slot_that_says_its_shape():
    split = models.split(zoo.v1_mlp().model)
    weights = split.skeleton.sublayers[0].sublayers[0].weights
    assert isinstance(weights, v1.nn.Parameter)
    assert weights.name == "Affine_0.Linear.weights"
    assert isinstance(weights.value, ValueSlot)
    assert weights.value.description == "float32[features:4,features_out:8]"
    assert jax.tree.leaves(split.skeleton) == []


def test_a_shared_parameter_is_one_entry_that_learns_from_all_its_places():
    layer = v1.nn.mark_shareable(v1.nn.Affine.from_config({"features": 4}, {"features": 4}))
    head = v1.nn.add_parameter_prefix("head", v1.nn.Affine.from_config({"features": 4}, {"features": 1}))
    whole = v1.nn.attach_shared_parameters(
        v1.nn.Sequential([layer, v1.nn.Elementwise(jnp.tanh), layer, head])
    )
    model = v1.nn.initialize_parameters(whole, jax.random.key(0))
    split = models.split(model)
    assert sorted(split.params) == [
        "AddBias.bias",
        "Linear.weights",
        "head.AddBias.bias",
        "head.Linear.weights",
    ]

    state = toolshed.TrainState.initial_state(model, optax.sgd(0.1), jax.random.key(1))
    _, context = toolshed.build_train_step(zoo.regression_loss)(state, zoo.regression_batch())

    def by_hand(params: dict[str, jax.Array]) -> jax.Array:
        x, y = zoo.regression_batch().values()
        hidden = jnp.tanh(x @ params["Linear.weights"] + params["AddBias.bias"])
        hidden = hidden @ params["Linear.weights"] + params["AddBias.bias"]
        return jnp.mean((hidden @ params["head.Linear.weights"] + params["head.AddBias.bias"] - y) ** 2)

    for path, grad in jax.grad(by_hand)(state.params).items():
        np.testing.assert_allclose(context.grads[path], grad, rtol=1e-4, atol=1e-5)
        assert np.any(grad != 0)


def test_frozen_parameters_stay_in_the_skeleton():
    case = zoo.v1_mlp()
    frozen = (
        case.model.select()
        .at_instances_of(v1.nn.Parameter)
        .where(lambda found: "Affine_0" in found.name)
        .apply(lambda found: v1.nn.FrozenParameter(found.value, found.name))
    )
    split = models.split(frozen)
    assert list(split.params) == ["Affine_1.Linear.weights", "Affine_1.AddBias.bias"]
    assert sum(leaf.size for leaf in jax.tree.leaves(split.skeleton)) == 4 * 8 + 8
    assert len(models.split(case.model).params) == 4

    state = toolshed.TrainState.initial_state(frozen, optax.sgd(0.1), jax.random.key(1))
    after, _ = toolshed.build_train_step(case.loss_fn)(state, case.batch)
    kept = after.model.sublayers[0].sublayers[0].weights.value.data_array
    np.testing.assert_array_equal(kept, case.model.sublayers[0].sublayers[0].weights.value.data_array)
    assert not np.array_equal(
        after.params["Affine_1.Linear.weights"], split.params["Affine_1.Linear.weights"]
    )


def test_two_parameters_with_one_name_are_an_error_that_names_both_places():
    model = v1.nn.Sequential([v1.nn.AddBias(parameter("bias"), ()), v1.nn.AddBias(parameter("bias"), ())])
    with pytest.raises(ModelError) as caught:
        models.split(model)
    assert str(caught.value) == (
        "Two parameters have the name 'bias': at sublayers/0/bias and at sublayers/1/bias. Rename one"
        " (pz.nn.add_parameter_prefix), or share it with pz.nn.mark_shareable."
    )
    renamed = v1.nn.Sequential([v1.nn.add_parameter_prefix(str(i), x) for i, x in enumerate(model.sublayers)])
    assert list(models.split(renamed).params) == ["0.bias", "1.bias"]


def test_the_arrays_of_one_parameter_cannot_take_another_parameter_s_path():
    tree = [parameter("w", {"a": ones, "b": 2 * ones}), parameter("w/a", 7 * ones)]
    with pytest.raises(ModelError, match=re.escape("'w/a'")):
        models.split(tree)


def test_a_model_without_values_says_how_to_get_them():
    uninitialised = simple_mlp.MLP.from_config([4, 8, 1])
    with pytest.raises(ModelError) as caught:
        models.split(uninitialised)
    assert str(caught.value) == (
        "The parameter 'Affine_0.Linear.weights' at sublayers/0/sublayers/0/weights has no value yet. Call"
        " pz.nn.initialize_parameters(model, key) first."
    )
    models.split(v1.nn.initialize_parameters(uninitialised, jax.random.key(0)))


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (
            "text",
            "holds str, expected an array. Give it a jax.Array, or keep the value in an ordinary field of",
        ),
        (0.5, "holds float 0.5, expected an array."),
        ([ones, "b"], "holds str, expected an array."),
        ([], "holds no array, but list."),
    ],
)
def test_a_parameter_that_holds_no_array_is_named_with_its_place(value, words):
    with pytest.raises(ModelError, match=re.escape(f"Parameter 'w' at layers/1 {words}")):
        models.split({"layers": [parameter("v"), parameter("w", value)]})


def test_a_deleted_array_says_what_probably_happened():
    model = zoo.v1_mlp().model
    state = toolshed.TrainState.initial_state(model, optax.sgd(0.1), jax.random.key(1))
    state.params["Affine_1.AddBias.bias"].delete()
    with pytest.raises(
        ModelError,
        match=re.escape("The array of parameter 'Affine_1.AddBias.bias' at sublayers/2/sublayers/2/bias"),
    ):
        models.split(model)


def test_the_model_of_a_state_that_was_trained_has_the_trained_values():
    case = zoo.v1_mlp()
    state = toolshed.TrainState.initial_state(case.model, optax.sgd(0.1), jax.random.key(1))
    after, context = toolshed.build_train_step(case.loss_fn)(state, case.batch)
    value = after.model.sublayers[2].sublayers[0].weights.value.data_array
    assert value is after.params["Affine_1.Linear.weights"]
    loss, _, _ = case.loss_fn(model=after.model, state=None, rng=jax.random.key(1), **case.batch)
    assert float(loss) < float(context.loss_total)


def test_in_evaluation_mode_dropout_is_the_identity():
    model = v1.nn.initialize_parameters(
        simple_mlp.DropoutMLP.from_config([4, 8, 1], drop_rate=0.5), jax.random.key(0)
    )
    quiet = models.evaluation_mode(model)
    preds = zoo.regression_loss(model=quiet, state=None, rng=jax.random.key(1), **zoo.regression_batch())[2][
        "preds"
    ]
    first, first_bias, last, last_bias = (np.asarray(value) for value in models.split(model).params.values())
    hidden = np.maximum(np.asarray(zoo.regression_batch()["x"]) @ first + first_bias, 0)
    np.testing.assert_allclose(preds, hidden @ last + last_bias, rtol=1e-5, atol=1e-5)
    assert any(isinstance(layer, v1.nn.StochasticDropout) for layer in model.sublayers)


def test_a_v1_slot_is_no_array_and_equal_to_one_of_the_same_shape():
    one, two = (models.split(zoo.v1_mlp().model).skeleton for _ in range(2))
    assert one == two
    wider = v1.nn.initialize_parameters(simple_mlp.MLP.from_config([4, 9, 1]), jax.random.key(0))
    assert models.split(wider).skeleton != one
    assert dataclasses.fields(ValueSlot)[0].name == "structure"
