"""Faults in a training step: in its loss function, its batch, its optimiser."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import optax
from penzai import pz

import toolshed
from tests import zoo
from tests.insight.faults.registry import a_step, fault, small
from tests.training.by_hand import new_state


@fault("log", near="params/mlp/Affine_0/AddBias.bias")
def in_a_loss_function():
    def loss_fn(*, model, state, rng, x, y):
        preds = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
        return jnp.mean(jnp.log(preds)), state, None  # FAULT

    return a_step(loss_fn)


@fault("div", phase="backward")
def in_the_gradient_of_a_loss_function():
    def loss_fn(*, model, state, rng, x, y):
        preds = model(pz.nx.wrap(x, "batch", "features")).unwrap("batch", "features")
        return jnp.sqrt(jnp.mean((preds - preds) ** 2)), state, None  # FAULT

    return a_step(loss_fn, donate=True)


@fault("input", index=(3, 1), near="batch/x")
def a_bad_example_in_a_batch():
    step, state, batch = a_step()
    return step, state, {**batch, "x": batch["x"].at[3, 1].set(jnp.nan)}


@fault("div", phase="optimizer", near="opt_state/0/mu/mlp/Affine_0/AddBias.bias")
def an_optimizer_without_its_epsilon():
    def loss_fn(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return 0 * loss, state, aux

    return a_step(loss_fn, optax.adam(1e-3, eps=0.0))


@fault("log", phase="optimizer")
def an_optimizer_of_one_s_own():
    def update(updates, state, params=None):
        del params
        return jax.tree.map(lambda g: jnp.log(g * 0), updates), state  # FAULT

    return a_step(optimizer=optax.GradientTransformation(lambda params: optax.EmptyState(), update))


@fault("log", iterations=("iteration 1 of 2 of scan",))
def in_the_second_of_two_steps_at_once():
    def loss_fn(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss + jnp.log(y[0, 0]), state, aux  # FAULT

    step, state, batch = a_step(loss_fn, steps_per_call=2)
    two = toolshed.data.stack([{**batch, "y": batch["y"].at[0, 0].set(value)} for value in (1.0, 0.0)])
    return step, state, two


@fault("log", iterations=("iteration 1 of 2 of scan",))
def in_a_micro_batch():
    def loss_fn(*, model, state, rng, x, y):
        loss, state, aux = zoo.regression_loss(model=model, state=state, rng=rng, x=x, y=y)
        return loss + jnp.log(jnp.abs(y)).mean(), state, aux  # FAULT

    step, state, batch = a_step(loss_fn, gradient_strategy=toolshed.gradients.Accumulate(2))
    return step, state, {**batch, "y": batch["y"].at[3, 0].set(0.0)}


@fault("log", iterations=("iteration 1 of 3 of scan",), near="params/layer/weights")
def in_one_layer_of_a_penzai_layer_stack():
    @pz.pytree_dataclass
    class Block(pz.nn.Layer):
        scale: Any

        def __call__(self, x, **side_inputs):
            return x + pz.nx.nmap(jnp.log)(self.scale.value)  # FAULT

        @classmethod
        def build(cls, init_base_rng=None):
            del init_base_rng
            return cls(pz.Parameter(value=pz.nx.ones({"features": 2}), label="layer/weights"))

    model = pz.nn.LayerStack.from_sublayer_builder(Block.build, "layers", 3, None, {})
    state = new_state(small()._replace(model=model), optax.sgd(0.1))
    params = {name: value.at[1, 0].set(0) for name, value in state.params.items()}
    step = toolshed.build_train_step(zoo.regression_loss, fields=("loss_total",))
    return step, state.replace(params=params), {**small().batch, "y": jnp.ones((4, 2))}
