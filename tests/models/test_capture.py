"""Captured layers: their outputs are in the Context, and the model is the same otherwise."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from penzai import pz

import toolshed
from tests import zoo
from tests.training.by_hand import differing, new_state
from toolshed import build_train_step, capture
from toolshed.errors import ModelError, ToolshedError


def test_the_outputs_of_selected_layers_are_in_the_context_by_their_place():
    case = zoo.mlp()
    captured = case._replace(model=capture(case.model, pz.nn.Affine))
    _, context = build_train_step(case.loss_fn)(new_state(captured), case.batch)
    assert list(context.interms) == ["sublayers/0", "sublayers/2"]
    hidden = case.model.sublayers[0](pz.nx.wrap(case.batch["x"], "batch", "features"))
    found = context["interms/sublayers/0"]
    np.testing.assert_allclose(
        found.unwrap("batch", "features"), hidden.unwrap("batch", "features"), rtol=1e-6
    )


def test_a_captured_model_trains_as_before():
    case = zoo.mlp()
    plain, captured = new_state(case), new_state(case._replace(model=capture(case.model, pz.nn.Affine)))
    assert list(plain.params) == list(captured.params)
    step = build_train_step(case.loss_fn)
    for _ in range(3):
        plain, captured = step(plain, case.batch)[0], step(captured, case.batch)[0]
    assert differing(plain.params, captured.params) == []


def test_a_state_can_be_looked_into_at_any_time():
    case = zoo.mlp()
    state = new_state(case)
    looked = state.replace(model_without_params=capture(state.model_without_params, pz.nn.Affine))
    _, context = build_train_step(case.loss_fn)(looked, case.batch)
    assert len(context.interms) == 2
    assert looked.params is state.params


def test_layers_can_be_chosen_by_a_function_of_the_selection():
    case = zoo.transformer()
    model = capture(case.model, lambda model: model.at_instances_of(pz.nn.Softmax).pick_nth_selected(1))
    _, context = build_train_step(case.loss_fn)(new_state(case._replace(model=model)), case.batch)
    (weights,) = context.interms.values()
    np.testing.assert_allclose(weights.untag("kv_seq").sum().data_array, 1, rtol=1e-5)


def test_a_layer_that_is_called_twice_is_captured_twice():
    case = zoo.mlp()
    relu = capture(pz.nn.Elementwise(jax.nn.relu), pz.nn.Elementwise)
    model = pz.nn.Sequential([case.model.sublayers[0], relu, relu, case.model.sublayers[2]])
    _, context = build_train_step(case.loss_fn)(new_state(case._replace(model=model)), case.batch)
    assert list(context.interms) == ["model", "model#2"]


def test_layers_inside_a_layer_stack_are_refused_by_name():
    case = zoo.transformer(stacked=True)
    model = capture(case.model, pz.nn.Softmax)
    with pytest.raises(ToolshedError, match=r"Softmax|stands inside a function that jax transforms apart"):
        build_train_step(case.loss_fn)(new_state(case._replace(model=model)), case.batch)


@pytest.mark.parametrize(
    ("where", "message"),
    [
        (pz.nn.Softmax, r"^Nothing to capture: the selection <class '.*Softmax'> holds no layer of this MLP"),
        (pz.Parameter, r"^Only layers of pz\.nn can be captured; at .* there is Parameter\.$"),
    ],
)
def test_what_cannot_be_captured_is_an_error(where, message):
    with pytest.raises(ModelError, match=message):
        capture(zoo.mlp().model, where)


def test_outside_of_a_step_a_captured_model_is_the_model():
    case = zoo.mlp()
    x = pz.nx.wrap(case.batch["x"], "batch", "features")
    plain, captured = case.model(x), toolshed.capture(case.model, pz.nn.Affine)(x)
    np.testing.assert_array_equal(plain.unwrap("batch", "features"), captured.unwrap("batch", "features"))
