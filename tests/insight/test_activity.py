"""Values inside of models: dead units, saturation, attention maps, taps."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.training.by_hand import differing, new_state, values_of
from toolshed.errors import ContextKeyError, ModelError, StateError, ToolshedError
from toolshed.insight import activations

BATCH = {"x": jnp.array([[1.0, -1.0], [2.0, 0.5], [-1.0, 3.0], [0.0, 0.0]]), "y": jnp.ones((4, 1))}


def state_of(model: Any) -> toolshed.TrainState:
    return new_state(zoo.Case(model, zoo.regression_loss, BATCH), optax.sgd(0.1))


def mlp(function: Any) -> Any:
    """2 → 3 → 1 with weights that are known: the hidden values are x₀, x₁ and -1."""
    model = MLP.from_config(jax.random.key(0), [2, 3, 1], activation_fn=function)
    weights, bias = model.sublayers[0].sublayers[0].weights, model.sublayers[0].sublayers[2].bias
    weights.value = pz.nx.wrap(jnp.array([[1.0, 0, 0], [0, 1, 0]]), "features", "features_out")
    bias.value = pz.nx.wrap(jnp.array([0.0, 0, -1]), "features")
    return model


def test_dead_units_by_hand():
    seen = activations(zoo.regression_loss, state_of(mlp(jax.nn.relu)), BATCH, select=pz.nn.Elementwise)
    assert list(seen) == ["sublayers/1"]
    found = seen["sublayers/1"]
    assert found.dead_units.tolist() == [False, False, True]
    assert found.dead == pytest.approx(1 / 3)
    hidden = np.maximum(np.concatenate([np.asarray(BATCH["x"]), -np.ones((4, 1))], axis=1), 0)
    assert found.summary.mean == pytest.approx(hidden.mean())
    assert found.summary.zeros == (hidden == 0).sum()
    assert found.saturated == pytest.approx((hidden == 0).mean())  # a relu has no slope there
    assert found.value is None


def test_saturation_by_hand():
    seen = activations(zoo.regression_loss, state_of(mlp(jnp.tanh)), BATCH, select=pz.nn.Elementwise)
    hidden = np.concatenate([np.asarray(BATCH["x"]), -np.ones((4, 1))], axis=1)
    assert seen["sublayers/1"].saturated == pytest.approx((1 - np.tanh(hidden) ** 2 < 0.01).mean())
    assert seen["sublayers/1"].saturated == pytest.approx(1 / 12)  # tanh(3) alone
    assert seen["sublayers/1"].dead == 0


def test_values_are_kept_where_that_is_asked():
    state = state_of(mlp(jax.nn.relu))
    before = values_of(state)
    seen = activations(
        zoo.regression_loss, state, BATCH, select=(pz.nn.Elementwise, pz.nn.AddBias), values=True
    )
    assert list(seen) == ["sublayers/0/sublayers/2", "sublayers/1", "sublayers/2/sublayers/2"]
    value = seen["sublayers/1"].value
    assert value.named_shape == {"batch": 4, "features": 3}
    np.testing.assert_array_equal(value.unwrap("batch", "features")[:, 0], [1, 2, 0, 0])
    assert math.isnan(seen["sublayers/0/sublayers/2"].saturated)  # no element-wise function
    assert list(seen["**/sublayers/2"]) == ["sublayers/0/sublayers/2", "sublayers/2/sublayers/2"]
    assert differing(before, values_of(state)) == []


def test_what_is_tapped_is_seen_without_a_selection():
    def loss_fn(*, model, state, rng, x, y):
        h = toolshed.tap("inputs/first", x[:, 0])
        toolshed.tap("pair", {"a": x * 0, "b": jnp.float32(2)})
        return jnp.mean(h), state, None

    seen = activations(loss_fn, state_of(mlp(jnp.tanh)), BATCH)
    assert list(seen) == ["inputs/first", "pair/a", "pair/b"]
    assert seen["pair/a"].dead == 1
    assert seen["inputs/first"].summary.max == 2
    assert math.isnan(seen["pair/b"].dead)  # a scalar has no units


def test_attention_maps_are_arrays():
    def loss_fn(*, model, state, rng, tokens):
        inputs = pz.nx.wrap(tokens, "batch", "seq")
        logits = model(inputs, token_positions=pz.nx.arange("seq", tokens.shape[1]))
        return logits.untag("batch", "seq", "vocabulary").unwrap().mean(), state, None

    case = zoo.transformer()
    seen = activations(loss_fn, new_state(case), zoo.language_batch(2, 4), select=pz.nn.Softmax, values=True)
    assert len(seen) == zoo.BLOCKS
    for one in seen.values():
        axes = dict(one.value.named_shape)
        assert (axes["batch"], axes["seq"], axes["kv_seq"]) == (2, 4, 4)
        total = one.value.untag("kv_seq").sum()
        np.testing.assert_allclose(jax.tree.leaves(total)[0], 1, rtol=1e-5)
        others = [name for name in axes if name not in ("seq", "kv_seq")]
        maps = np.asarray(one.value.unwrap(*others, "seq", "kv_seq"))
        assert (np.triu(maps, 1) == 0).all()  # nobody looks ahead


def test_a_trainer_and_a_step_stand_for_their_loss_function():
    model = mlp(jax.nn.relu)
    trainer = toolshed.Trainer(model, optax.sgd(0.1), zoo.regression_loss)
    state = trainer.init(jax.random.key(0))
    for source in (trainer, trainer.step, toolshed.build_train_step(zoo.regression_loss)):
        assert activations(source, state, BATCH, select=pz.nn.Elementwise)["sublayers/1"].dead > 0


def test_the_table_reads_well():
    seen = activations(zoo.regression_loss, state_of(mlp(jax.nn.relu)), BATCH, select=pz.nn.Elementwise)
    assert repr(seen).splitlines() == [
        "Activations of 1 values",
        "                                            mean     std  max |x|   dead  saturated",
        "sublayers/1  float32[batch:4,features:3]  0.5417  0.9456        3  33.3%      66.7%",
    ]


def test_nothing_to_look_at_is_an_error():
    state = state_of(mlp(jnp.tanh))
    with pytest.raises(ToolshedError, match=r"^There is nothing to look at: no layer is selected"):
        activations(zoo.regression_loss, state, BATCH)
    with pytest.raises(ModelError, match=r"^Nothing to capture: the selection"):
        activations(zoo.regression_loss, state, BATCH, select=pz.nn.Softmax)
    with pytest.raises(StateError, match=r"^Expected a TrainState, got int 1\."):
        activations(zoo.regression_loss, 1, BATCH, select=pz.nn.Softmax)  # type: ignore[arg-type]
    seen = activations(zoo.regression_loss, state, BATCH, select=pz.nn.Elementwise)
    with pytest.raises(ContextKeyError, match=r"^No 'sublayers/7' in these activations\. Did you mean"):
        seen["sublayers/7"]
