"""A skeleton crosses the jit boundary as a few arrays, and comes back as the whole model."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from penzai import pz

import toolshed
from tests import zoo
from tests.training.by_hand import differing, new_state
from toolshed import models
from toolshed.training.program import Skeleton


def skeleton_of(case: zoo.Case) -> tuple[Skeleton, models.Split]:
    split = models.split(case.model)
    return Skeleton(split.skeleton), split


KINDS = ["mlp", "random_stream", "running_statistics", "lora_by_metadata", "shared_parameter", "v1_mlp"]


@pytest.mark.parametrize("name", KINDS)
def test_binding_gives_the_model_that_was_split(name):
    case = zoo.ZOO[name]()
    skeleton, split = skeleton_of(case)
    bound = skeleton.bind(skeleton.constants, split.params, split.model_state)
    again = models.split(models.bind(split.skeleton, split.params, split.model_state))
    assert differing(again.params, split.params) == []
    assert differing(bound.read_model_state(), split.model_state) == []
    assert differing(again.skeleton, split.skeleton) == []


@pytest.mark.parametrize("name", KINDS)
def test_two_skeletons_of_equal_models_share_a_program(name):
    first, second = (skeleton_of(zoo.ZOO[name]())[0] for _ in range(2))
    assert first.identity == second.identity
    assert hash(first.identity) == hash(second.identity)


def changed(case: zoo.Case, change: Any) -> Skeleton:
    return skeleton_of(case._replace(model=change(case.model)))[0]


def test_skeletons_that_compute_something_else_do_not_share_one():
    case = zoo.dropout_mlp()
    plain = skeleton_of(case)[0]
    rate = changed(
        case,
        lambda model: (
            pz.select(model)
            .at_instances_of(pz.nn.StochasticDropout)
            .apply(lambda layer: layer.__class__(drop_rate=0.25, share_across_axes=layer.share_across_axes))
        ),
    )
    assert plain.identity != rate.identity
    assert len({skeleton_of(zoo.ZOO[name]())[0].identity for name in KINDS}) == len(KINDS)


def test_frozen_arrays_are_constants_that_are_passed_and_not_baked_in():
    case = zoo.lora_by_freezing()
    skeleton, split = skeleton_of(case)
    assert sum(np.size(constant) for constant in skeleton.constants) == 49  # the parameters of the MLP

    @jax.jit
    def loss(constants: Any) -> Any:
        model = skeleton.bind(constants, split.params, split.model_state).model
        return case.loss_fn(model=model, state=None, rng=None, **case.batch)[0]

    nothing = tuple(0 * constant for constant in skeleton.constants)
    expected = case.loss_fn(model=case.model, state=None, rng=None, **case.batch)[0]
    np.testing.assert_allclose(loss(skeleton.constants), expected, rtol=1e-5)
    # Without the pretrained weights the predictions are 0: the adapters alone start as a zero map.
    np.testing.assert_allclose(loss(nothing), np.mean(np.square(case.batch["y"])), rtol=1e-5)


def test_keys_in_a_skeleton_cross_as_bits_and_come_back_as_keys():
    @pz.pytree_dataclass
    class WithKey(pz.nn.Layer):
        key: Any
        factor: pz.Parameter | pz.ParameterSlot

        def __call__(self, x: Any, /, **side_inputs: Any) -> Any:
            return x + jax.random.normal(self.key, x.shape) * self.factor.value

    model = WithKey(jax.random.key(3), pz.Parameter(value=jnp.float32(1), label="factor"))
    skeleton, split = skeleton_of(zoo.Case(model, zoo.regression_loss, {}))
    assert [constant.dtype for constant in skeleton.constants] == [np.uint32]

    @jax.jit
    def call(constants: Any, params: Any, x: Any) -> Any:
        return skeleton.bind(constants, params, {}).model(x)

    got = call(skeleton.constants, split.params, jnp.zeros(4))
    np.testing.assert_array_equal(got, jax.random.normal(jax.random.key(3), (4,)))


def test_parameters_cannot_be_assigned_to_inside_a_step():
    def assigning_loss(*, model, state, rng, x, y):
        for parameter in pz.select(model).at_instances_of(pz.ParameterValue).get_sequence():
            parameter.value = 0
        return jnp.float32(0), state, {}

    case = zoo.mlp()
    with pytest.raises(AttributeError, match="cannot assign to field 'value'"):
        toolshed.build_train_step(assigning_loss)(new_state(case), case.batch)
