"""A penzai model is split into a skeleton, parameters and state, and bound again."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz
from penzai.core import variables
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.models.variables import of_type, ones, parameter, state_variable
from toolshed import models
from toolshed.errors import ModelError
from toolshed.models.penzai_v2 import FrozenParameter, ParameterSlot, StateVariableSlot

# --- the skeleton -----------------------------------------------------------------------------------


def test_the_skeleton_holds_a_slot_with_the_shape_in_the_place_of_each_variable():
    split = models.split(zoo.running_statistics().model)
    weights = split.skeleton.sublayers[1].sublayers[0].sublayers[0].weights
    assert isinstance(weights, ParameterSlot)
    assert (weights.label, weights.key) == ("mlp/Affine_0/Linear.weights",) * 2
    assert weights.description == "float32[features:4,features_out:8]"
    mean = split.skeleton.sublayers[0].mean
    assert isinstance(mean, StateVariableSlot)
    assert (mean.key, mean.description) == ("sublayers/0/mean", "float32[features:4]")
    assert jax.tree.leaves(split.skeleton) == []


def test_penzai_s_own_functions_work_on_the_skeleton():
    case = zoo.mlp()
    skeleton = models.split(case.model).skeleton
    ours = of_type(pz.ParameterSlot, skeleton)
    _, theirs = pz.unbind_params(case.model)
    bound = pz.bind_variables(skeleton, theirs)
    x = pz.nx.wrap(case.batch["x"]).tag("batch", "features")
    np.testing.assert_array_equal(bound(x).data_array, case.model(x).data_array)
    assert len(ours) == len(theirs) == 4
    for slot, theirs_slot in zip(
        ours, of_type(pz.ParameterSlot, pz.unbind_params(case.model)[0]), strict=True
    ):
        assert slot == theirs_slot
        assert theirs_slot == slot
        assert hash(slot) == hash(theirs_slot)
    assert ours[0] != ours[1]
    with pytest.raises(
        pz.UnboundVariableError, match=r"Tried to access the \.value property of a ParameterSlot"
    ):
        pz.bind_variables(skeleton, theirs[1:])(x)


def test_a_parameter_slot_is_no_state_variable_slot_of_the_same_label():
    skeleton = models.split([parameter("x"), state_variable("x")]).skeleton
    assert skeleton[0] != skeleton[1]
    assert skeleton[1] == pz.StateVariableSlot(label="x")
    assert skeleton[0] != pz.StateVariableSlot(label="x")
    assert skeleton[0] != "x"


def test_metadata_is_kept_and_belongs_to_no_other_model():
    first = parameter("w", note="kept")
    split = models.split([first])
    bound = models.bind(*split)
    assert bound[0].metadata == {"note": "kept"}
    bound[0].metadata["note"] = "changed"
    assert models.bind(*split)[0].metadata == first.metadata == {"note": "kept"}


def test_constants_stay_in_the_skeleton():
    split = models.split(zoo.transformer(tied=True).model)
    leaves = jax.tree.leaves(split.skeleton)
    assert len(leaves) == 10  # with 2 blocks: rope wavelengths, epsilons, mask values, the rescaling
    assert any(float(leaf) == 4.0 for leaf in leaves if np.ndim(leaf) == 0)  # sqrt(16), the embedding's scale


# --- frozen parameters ------------------------------------------------------------------------------


def test_a_parameter_that_says_so_is_not_trained_and_stays_in_the_skeleton():
    model = [parameter("w", 2 * ones, trainable=False), parameter("v", trainable=True), parameter("u")]
    split = models.split(model)
    assert list(split.params) == ["v", "u"]
    assert isinstance(split.skeleton[0], FrozenParameter)
    assert split.skeleton[0].value is model[0].value
    bound = models.bind(*split)
    assert isinstance(bound[0], pz.Parameter)
    assert bound[0].value is model[0].value
    assert bound[0].metadata == {"trainable": False}
    assert list(models.split(bound).params) == ["v", "u"]


def test_a_frozen_parameter_in_two_places_is_one_object_again():
    shared = parameter("w", trainable=False)
    bound = models.bind(*models.split([shared, parameter("v"), shared]))
    assert bound[0] is bound[2]
    assert bound[0] is not bound[1]


@pytest.mark.parametrize("name", ["lora_by_metadata", "lora_by_freezing"])
def test_low_rank_adapters_alone_are_trained(name):
    case = zoo.ZOO[name]()
    split = models.split(case.model)
    assert len(split.params) == 4
    # rank 2: 4×2 + 2×8 for the first layer, 8×2 + 2×1 for the second
    assert [value.size for value in split.params.values()] == [8, 16, 16, 2]
    assert all("LoRA_" in path for path in split.params)
    # the pretrained weights and biases, 4×8 + 8 + 8×1 + 1, are in the skeleton
    assert sum(leaf.size for leaf in jax.tree.leaves(split.skeleton)) == 49

    state = toolshed.TrainState.initial_state(case.model, optax.adam(0.1), jax.random.key(1))
    after, _ = toolshed.build_train_step(case.loss_fn)(state, case.batch)
    for before, now in zip(
        jax.tree.leaves(split.skeleton), jax.tree.leaves(after.model_without_params), strict=True
    ):
        assert np.asarray(before).tobytes() == np.asarray(now).tobytes()
    assert any(not np.array_equal(after.params[path], split.params[path]) for path in split.params)


def test_without_freezing_all_49_parameters_would_be_trained():
    assert sum(value.size for value in models.split(zoo.mlp().model).params.values()) == 49


# --- state variables --------------------------------------------------------------------------------


def test_the_state_that_calls_changed_can_be_read_from_the_bound_model():
    case = zoo.running_statistics()
    split = models.split(case.model)
    bound = models.adapter_of(split.skeleton).bind(*split, frozen=True)
    case.loss_fn(model=bound.model, state=None, rng=jax.random.key(1), **case.batch)
    state = bound.read_model_state()
    assert list(state) == list(split.model_state)
    # momentum 0.75, from a mean of 0 and a variance of 1
    x = np.asarray(case.batch["x"])
    np.testing.assert_allclose(state["sublayers/0/mean"], 0.25 * x.mean(0), rtol=1e-5)
    np.testing.assert_allclose(state["sublayers/0/variance"], 0.75 + 0.25 * x.var(0), rtol=1e-5)
    np.testing.assert_array_equal(split.model_state["sublayers/0/mean"], np.zeros(4))


def test_a_random_stream_s_offset_counts_the_keys_that_were_drawn():
    case = zoo.random_stream()
    split = models.split(case.model)
    bound = models.adapter_of(split.skeleton).bind(*split, frozen=True)
    assert [int(v) for v in bound.read_model_state().values()] == [0]
    for calls in (1, 2, 3):
        case.loss_fn(model=bound.model, state=None, rng=jax.random.key(1), **case.batch)
        assert [int(v) for v in bound.read_model_state().values()] == [calls]  # one dropout layer


def test_inside_a_step_parameters_cannot_be_assigned_to():
    split = models.split(zoo.mlp().model)
    library = models.adapter_of(split.skeleton)
    inside = library.bind(*split, frozen=True).model
    outside = library.bind(*split, frozen=False).model
    assert of_type(pz.Parameter, inside) == []
    assert len(of_type(pz.ParameterValue, inside)) == len(of_type(pz.Parameter, outside)) == 4
    of_type(pz.Parameter, outside)[0].value = ones
    with pytest.raises(AttributeError):
        of_type(pz.ParameterValue, inside)[0].value = ones


@pytest.mark.parametrize(
    ("before", "after", "words"),
    [
        (pz.nx.zeros({"a": 2, "b": 3}), pz.nx.zeros({"a": 2, "c": 3}), ("[a:2,b:3]", "[a:2,c:3]")),
        (jnp.zeros(2), pz.nx.zeros({"a": 2}), ("[2]", "[a:2]")),
        (jnp.zeros(2), (jnp.zeros(2), jnp.zeros(2)), ("[2]", "tuple")),
    ],
)
def test_a_state_variable_that_changes_structure_in_the_forward_pass_is_an_error(before, after, words):
    split = models.split({"s": state_variable("stats", before), "w": parameter("w")})
    bound = models.adapter_of(split.skeleton).bind(*split, frozen=True)
    bound.model["s"].value = jax.tree.map(lambda x: x + 1, before)
    bound.read_model_state()  # the same structure with other values is what state variables are for
    bound.model["s"].value = after
    with pytest.raises(ModelError) as caught:
        bound.read_model_state()
    message = str(caught.value)
    assert message.startswith(
        "The state variable 'stats' changed its structure during the forward pass: it was float32"
    )
    assert words[0] in message
    assert words[1] in message
    assert message.endswith("(for a named array: the same axis names in the same order).")


def test_a_state_variable_that_changes_structure_is_found_in_a_step():
    @pz.pytree_dataclass
    class Renames(pz.nn.Layer):
        seen: Any

        def __call__(self, value: Any, /, **side_inputs: Any) -> Any:
            self.seen.value = value.untag("batch")[0]
            return value

    case = zoo.mlp()

    def state_of(axis: str) -> toolshed.TrainState:
        seen = pz.StateVariable(pz.nx.zeros({axis: 4}), label="seen")
        model = pz.nn.Sequential([Renames(seen), case.model])
        return toolshed.TrainState.initial_state(model, optax.sgd(0.1), jax.random.key(1))

    step = toolshed.build_train_step(case.loss_fn)
    after, _ = step(state_of("features"), case.batch)
    np.testing.assert_array_equal(after.model_state["seen"], case.batch["x"][0])
    with pytest.raises(ModelError, match=re.escape("was float32[columns:4], now it is float32[features:4]")):
        step(state_of("columns"), case.batch)


# --- models that cannot be split --------------------------------------------------------------------


def test_a_model_without_values_says_how_to_get_them():
    uninitialised = MLP.from_config(init_base_rng=None, feature_sizes=[4, 8, 1])
    with pytest.raises(ModelError) as caught:
        models.split(uninitialised)
    assert str(caught.value) == (
        "The model has an empty slot for 'mlp/Affine_0/Linear.weights' at"
        " sublayers/0/sublayers/0/weights: it was built without init_base_rng, or is a skeleton. Pass a"
        " model whose parameters have values."
    )


def test_a_skeleton_is_no_model():
    skeleton = models.split(zoo.mlp().model).skeleton
    with pytest.raises(ModelError, match="or is a skeleton"):
        models.split(skeleton)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        ([], "list"),
        (None, "NoneType"),
        ({"a": ()}, "dict"),
    ],
)
def test_a_parameter_that_holds_no_array_is_named_with_its_place(value, words):
    with pytest.raises(ModelError) as caught:
        models.split({"layers": [parameter("v"), parameter("w", value)]})
    assert str(caught.value) == f"Parameter 'w' at layers/1 holds no array, but {words}."


@pytest.mark.parametrize("value", [0.5, np.float32(0.5), np.asarray([0.5], np.float32), jnp.asarray(0.5)])
def test_a_parameter_made_of_a_number_or_a_numpy_array_is_a_jax_array(value):
    split = models.split([parameter("w", value)])
    assert isinstance(split.params["w"], jax.Array)
    assert split.params["w"].dtype == jnp.float32
    np.testing.assert_array_equal(split.params["w"], value)


def test_a_deleted_array_says_what_probably_happened():
    model = zoo.mlp().model
    models.split(model)
    model.sublayers[2].sublayers[0].weights.value.data_array.delete()
    with pytest.raises(ModelError) as caught:
        models.split(model)
    assert str(caught.value) == (
        "The array of parameter 'mlp/Affine_1/Linear.weights' at sublayers/2/sublayers/0/weights has been"
        " deleted, most likely because it was donated to a compiled step. Build the model again, or bind it"
        " from a TrainState."
    )


def test_an_unknown_kind_of_variable_is_refused_by_its_type():
    class Odd(variables.AbstractVariable):
        def freeze(self) -> Any: ...
        def get_slot(self) -> Any: ...
        def update(self, new_frozen_value: Any) -> None: ...

    with pytest.raises(ModelError) as caught:
        models.split({"w": parameter("w"), "x": Odd()})
    assert str(caught.value) == (
        "Unknown kind of variable Odd at x; toolshed knows pz.Parameter and pz.StateVariable."
    )
