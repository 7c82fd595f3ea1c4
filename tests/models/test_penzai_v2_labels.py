"""Every variable of a penzai model has a path of its own, made of its label or of its place."""

from __future__ import annotations

import re
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from penzai import pz
from penzai.core import variables

from tests import zoo
from tests.models.variables import of_type, ones, parameter, state_variable
from toolshed import models
from toolshed.errors import ModelError

# --- what the parameters are called -----------------------------------------------------------------


def test_parameters_go_by_their_labels_in_the_order_of_the_model():
    split = models.split(zoo.mlp().model)
    assert list(split.params) == [
        "mlp/Affine_0/Linear.weights",
        "mlp/Affine_0/AddBias.bias",
        "mlp/Affine_1/Linear.weights",
        "mlp/Affine_1/AddBias.bias",
    ]  # not sorted: AddBias would come before Linear
    assert [value.shape for value in split.params.values()] == [(4, 8), (8,), (8, 1), (1,)]
    assert split.model_state == {}


def test_labels_that_are_no_strings_get_one():
    tree = [
        parameter("z"),
        parameter(("layer", 3, "w")),
        parameter(7),
        parameter(None),
        state_variable(("s", 0)),
        state_variable(5),
    ]
    split = models.split(tree)
    assert list(split.params) == ["z", "layer/3/w", "7", "None"]
    assert list(split.model_state) == ["s/0", "5"]
    # jax can then sort the keys, which it cannot for the labels themselves.
    assert jax.jit(lambda params: params)(split.params).keys() == split.params.keys()
    with pytest.raises(ValueError, match="Comparator raised exception"):
        jax.tree.leaves({"z": 1, ("layer", 3, "w"): 2})
    assert [p.label for p in models.bind(*split)] == ["z", ("layer", 3, "w"), 7, None, ("s", 0), 5]


def test_a_parameter_and_a_state_variable_may_share_a_label():
    split = models.split([parameter("x", ones), state_variable("x", 2 * ones)])
    assert float(split.params["x"][0]) == 1
    assert float(split.model_state["x"][0]) == 2
    bound = models.bind(*split)
    assert isinstance(bound[0], pz.Parameter)
    assert isinstance(bound[1], pz.StateVariable)
    assert float(bound[1].value[0]) == 2


def test_unlabelled_state_variables_go_by_their_place():
    one, two = zoo.running_statistics().model, zoo.running_statistics().model
    assert list(models.split(one).model_state) == ["sublayers/0/mean", "sublayers/0/variance"]
    assert list(models.split(two).model_state) == ["sublayers/0/mean", "sublayers/0/variance"]
    # Control: penzai's own labels for them differ, being made of the objects' ids.
    labels = [{v.label for v in of_type(pz.StateVariable, model)} for model in (one, two)]
    assert len(labels[0]) == 2
    assert not labels[0] & labels[1]


def test_an_unlabelled_state_variable_in_two_places_is_one():
    shared = pz.StateVariable(jnp.zeros(2))
    split = models.split({"a": shared, "b": {"c": shared}})
    assert list(split.model_state) == ["a"]
    bound = models.bind(*split)
    assert bound["a"] is bound["b"]["c"]
    bound["a"].value = jnp.ones(2)
    np.testing.assert_array_equal(bound["b"]["c"].value, np.ones(2))
    np.testing.assert_array_equal(shared.value, np.zeros(2))


def test_state_variables_labelled_by_a_scope_keep_their_number():
    def build() -> list[pz.StateVariable]:
        with pz.scoped_auto_state_var_labels(group="norm"):
            first = [pz.StateVariable(ones), pz.StateVariable(ones)]
        with pz.scoped_auto_state_var_labels():
            return [*first, pz.StateVariable(ones)]

    assert list(models.split(build()).model_state) == list(models.split(build()).model_state)
    assert len(models.split(build()).model_state) == 3
    label = build()[1].label
    assert isinstance(label, variables.ScopedStateVarLabel)
    assert list(models.split(build()).model_state)[1] == f"norm/{label.index}"


# --- labels that clash ------------------------------------------------------------------------------


def test_one_parameter_in_two_places_is_one_entry_and_one_object_again():
    case = zoo.shared_parameter()
    split = models.split(case.model)
    assert list(split.params) == ["factor", "head/Affine_0/Linear.weights", "head/Affine_0/AddBias.bias"]
    bound = models.bind(*split)
    assert bound.sublayers[0].factor is bound.sublayers[2].factor
    assert bound.sublayers[0].factor is not case.model.sublayers[0].factor


def test_the_gradient_of_a_shared_parameter_is_the_sum_over_its_places():
    factor = parameter("w", jnp.asarray(3.0))
    split = models.split([factor, factor])

    def product(params: Any) -> Any:
        one, two = models.bind(split.skeleton, params, {})
        return one.value * two.value

    assert float(jax.grad(product)(split.params)["w"]) == 6.0  # d(w²)/dw = 2w


@pytest.mark.parametrize(
    ("first", "second", "kind"),
    [
        (parameter("w"), parameter("w"), "Parameter"),
        (parameter("w"), parameter("w", trainable=False), "Parameter"),
        (state_variable("w"), state_variable("w"), "StateVariable"),
    ],
)
def test_two_variables_with_one_label_are_an_error_that_names_both_places(first, second, kind):
    with pytest.raises(ModelError) as caught:
        models.split({"encoder": [first], "head": second})
    assert str(caught.value) == (
        f"Two different {kind}s have the label 'w': at encoder/0 and at head. Rename one, or put the same"
        " object in both places to share it."
    )
    assert models.is_model({"encoder": [first], "head": first})
    models.split({"encoder": [first], "head": first})  # one object in both is no clash


@pytest.mark.parametrize(
    ("one", "two", "key"), [("a/1", ("a", 1), "a/1"), ("3", 3, "3"), (("a/b", "c"), ("a", "b/c"), "a/b/c")]
)
@pytest.mark.parametrize("make", [parameter, state_variable])
def test_two_labels_that_become_one_path_are_an_error_that_names_both(make, one, two, key):
    with pytest.raises(ModelError) as caught:
        models.split({"x": make(one), "y": [make(two)]})
    assert str(caught.value) == (
        f"The labels {one!r} at x and {two!r} at y/0 both become the path {key!r}. Rename one of them."
    )
    models.split({"x": make(one), "y": [make("other")]})


def test_the_arrays_of_one_parameter_cannot_take_another_parameter_s_path():
    # A parameter with several arrays takes a path for each: here w/a and w/b.
    tree = {"x": parameter("w", {"a": ones, "b": 2 * ones}), "y": parameter("w/c", 7 * ones)}
    assert list(models.split(tree).params) == ["w/a", "w/b", "w/c"]
    for order in ("xy", "yx"):
        both = {"x": parameter("w", {"a": ones, "b": 2 * ones}), "y": parameter("w/a", 7 * ones)}
        with pytest.raises(ModelError, match=re.escape("'w/a'")):
            models.split([both[name] for name in order])
