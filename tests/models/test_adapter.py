"""What holds for models of every library: split and bind are inverse, and touch nothing else."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from penzai import pz

from tests import zoo
from toolshed import models
from toolshed.errors import ModelError
from toolshed.models import adapter

# Cases that no test may change, built once. Calling a model with state variables changes it: build those.
case_of = functools.cache(lambda name: zoo.ZOO[name]())
# Models that are quick to call. The state's tests call all of the zoo.
SMALL = [name for name in zoo.ZOO if "transformer" not in name and name != "lora_on_a_stack"]


def outputs(case: zoo.Case, model: Any) -> np.ndarray:
    """The model's predictions for the case's batch."""
    _, _, aux = case.loss_fn(model=model, state=None, rng=jax.random.key(1), **case.batch)
    return np.asarray(aux["preds"])


def bits(tree: Any) -> list[tuple[str, tuple[int, ...], bytes]]:
    """Every array of a tree, variables opened, as its exact bytes."""
    opened = pz.freeze_variables(tree)
    return [
        (str(leaf.dtype), leaf.shape, np.asarray(leaf).tobytes())
        for leaf in jax.tree.leaves(opened)
        if hasattr(leaf, "dtype") and not jnp.issubdtype(leaf.dtype, jax.dtypes.prng_key)
    ]


# --- split and bind ---------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SMALL)
def test_a_bound_model_computes_what_the_model_computed_bit_for_bit(name):
    case = zoo.ZOO[name]()
    split = models.split(case.model)
    bound = models.bind(*split)
    assert type(bound) is type(case.model)
    assert outputs(case, bound).tobytes() == outputs(case, case.model).tobytes()
    # Control: with other parameters it computes something else.
    moved = models.bind(split.skeleton, {k: v + 0.25 for k, v in split.params.items()}, split.model_state)
    assert outputs(case, moved).tobytes() != outputs(case, case.model).tobytes()


@pytest.mark.parametrize("name", [*SMALL, "transformer_stacked"])
def test_splitting_and_calling_the_bound_model_leaves_the_first_model_as_it_was(name):
    case = zoo.ZOO[name]()
    before = bits(case.model)
    split = models.split(case.model)
    parts = bits(split)
    outputs(case, models.bind(*split))
    assert bits(case.model) == before
    assert bits(split) == parts
    assert len(before) >= len(parts) > 0


@pytest.mark.parametrize("name", ["random_stream", "running_statistics"])
def test_calling_a_model_with_state_does_change_that_model(name):
    # The control of the test above: what it finds unchanged is a thing that calls change.
    case = zoo.ZOO[name]()
    before = bits(case.model)
    outputs(case, case.model)
    assert bits(case.model) != before


@pytest.mark.parametrize("name", zoo.ZOO)
def test_parameters_are_the_model_s_own_arrays_and_no_leaf_of_the_skeleton(name):
    case = case_of(name)
    split = models.split(case.model)
    again = models.split(case.model)
    kept = {id(leaf) for leaf in jax.tree.leaves(split.skeleton)}
    for path, value in split.params.items():
        assert value is again.params[path]
        assert id(value) not in kept
    assert list(again.params) == list(split.params)
    assert split.params


@pytest.mark.parametrize("name", zoo.ZOO)
def test_a_model_built_twice_splits_into_equal_skeletons_and_the_same_paths(name):
    one, two = models.split(zoo.ZOO[name]().model), models.split(zoo.ZOO[name]().model)
    assert jax.tree.structure(one.skeleton) == jax.tree.structure(two.skeleton)
    assert list(one.params) == list(two.params)
    assert list(one.model_state) == list(two.model_state)
    assert bits(one) == bits(two)


@pytest.mark.parametrize("name", zoo.ZOO)
def test_splitting_the_bound_model_gives_the_same_parts(name):
    split = models.split(case_of(name).model)
    again = models.split(models.bind(*split))
    assert jax.tree.structure(again) == jax.tree.structure(split)
    assert bits(again) == bits(split)


@pytest.mark.parametrize("name", ["mlp", "running_statistics", "v1_mlp"])
def test_each_bound_model_is_a_new_one(name):
    split = models.split(case_of(name).model)
    assert models.bind(*split) is not models.bind(*split)


@pytest.mark.parametrize("name", ["mlp", "running_statistics", "transformer_stacked", "v1_mlp"])
def test_split_and_bind_work_while_jax_traces(name):
    case = zoo.ZOO[name]()
    split = models.split(case.model)

    def summed(params: Any) -> Any:
        again = models.split(models.bind(split.skeleton, params, split.model_state))
        return {path: jnp.sum(value) for path, value in again.params.items()}

    sums = jax.jit(summed)(split.params)
    assert set(sums) == set(split.params)
    for path, value in split.params.items():
        np.testing.assert_allclose(sums[path], np.asarray(value).sum(), rtol=1e-4, atol=1e-4)


# --- which library ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", zoo.ZOO)
def test_models_and_skeletons_are_recognised_by_their_library(name):
    model = case_of(name).model
    expected = "penzai v1" if name.startswith("v1") else "penzai"
    assert models.is_model(model)
    assert models.adapter_of(model).name == expected
    assert models.adapter_of(models.split(model).skeleton).name == expected


@pytest.mark.parametrize("tree", [{"w": jnp.ones(2)}, None, 3, [], "model", jnp.ones(2)])
def test_what_is_no_model_is_refused_by_type(tree):
    assert not models.is_model(tree)
    with pytest.raises(ModelError) as caught:
        models.split(tree)
    assert str(caught.value) == (
        f"Expected a model of one of the libraries penzai, penzai v1; got {type(tree).__name__}, which holds"
        " none of their layers or parameters."
    )


def test_a_plain_tree_of_variables_is_a_model():
    tree = {"w": pz.Parameter(value=jnp.ones(2), label="w")}
    assert models.is_model(tree)
    assert list(models.split(tree).params) == ["w"]
    assert models.is_model(models.split(tree).skeleton)


# --- evaluation mode --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["dropout_mlp", "random_stream"])
def test_in_evaluation_mode_dropout_does_nothing(name):
    case = zoo.ZOO[name]()
    quiet = models.evaluation_mode(case.model)

    def preds(model: Any, seed: int) -> np.ndarray:
        _, _, aux = case.loss_fn(model=model, state=None, rng=jax.random.key(seed), **case.batch)
        return np.asarray(aux["preds"])

    np.testing.assert_array_equal(preds(quiet, 1), preds(quiet, 2))
    assert not np.array_equal(preds(case.model, 1), preds(case.model, 2))
    # By hand: without dropout it is the affine layers with a relu between them.
    split = models.split(case.model)
    first, first_bias, last, last_bias = (np.asarray(value) for value in split.params.values())
    hidden = np.maximum(np.asarray(case.batch["x"]) @ first + first_bias, 0)
    np.testing.assert_allclose(preds(quiet, 1), hidden @ last + last_bias, rtol=1e-5, atol=1e-5)


def test_a_skeleton_in_evaluation_mode_has_the_same_slots():
    split = models.split(case_of("dropout_mlp").model)
    quiet = models.evaluation_mode(split.skeleton)
    bound = models.bind(quiet, split.params, split.model_state)
    assert list(models.split(bound).params) == list(split.params)
    assert not pz.select(quiet).at_instances_of(pz.nn.StochasticDropout).selected_by_path
    assert pz.select(split.skeleton).at_instances_of(pz.nn.StochasticDropout).selected_by_path


# --- one parameter's value --------------------------------------------------------------------------


def test_one_array_goes_by_the_parameter_s_key_and_several_by_keys_under_it():
    one, two, three = jnp.ones(1), jnp.ones(2), jnp.ones(3)
    assert adapter.flatten_value("w", one, where="x").arrays == {"w": one}
    assert adapter.flatten_value("w", {"only": one}, where="x").arrays == {"w": one}
    several = adapter.flatten_value("w", {"b": [two, three], "a": one}, where="x")
    assert list(several.arrays) == ["w/a", "w/b/0", "w/b/1"]
    assert several.arrays["w/b/1"] is three
    assert several.description == "3 arrays"
    assert adapter.flatten_value("w", two, where="x").description == "float32[2]"


@pytest.mark.parametrize(
    "value",
    [
        jnp.arange(3.0),
        {"only": jnp.ones(2)},
        {"b": [jnp.ones(1), jnp.ones(3)], "a": jnp.ones(2)},
        pz.nx.arange("x", 4),
        (np.ones(2), pz.nx.zeros({"x": 2, "y": 1})),
    ],
)
def test_a_value_is_put_together_as_it_was(value):
    flat = adapter.flatten_value("w", value, where="somewhere")
    again = adapter.unflatten_value("w", flat.structure, flat.arrays)
    assert jax.tree.structure(again) == jax.tree.structure(value)
    for a, b in zip(jax.tree.leaves(again), jax.tree.leaves(value), strict=True):
        assert a is b


def test_a_value_that_lacks_an_array_names_it_and_the_nearest_there_is():
    structure = jax.tree.structure({"a": 0, "b": 0})
    values = {"w/a": jnp.ones(1), "w/B": jnp.ones(1)}
    with pytest.raises(ModelError) as caught:
        adapter.unflatten_value("w", structure, values)
    assert str(caught.value).startswith(
        "No value for 'w/b' to bind into the model; there are 2 values, the nearest named 'w/"
    )


def test_binding_without_a_value_names_the_value():
    split = models.split(case_of("mlp").model)
    params = {path: value for path, value in split.params.items() if "Affine_1/Linear" not in path}
    with pytest.raises(ModelError) as caught:
        models.bind(split.skeleton, params, {})
    assert str(caught.value) == (
        "No value for 'mlp/Affine_1/Linear.weights' to bind into the model; there are 3 values, the nearest"
        " named 'mlp/Affine_0/Linear.weights'."
    )
