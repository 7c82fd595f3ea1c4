"""A trainer makes states, steps by hand and predicts."""

from __future__ import annotations

from typing import Any

import jax
import numpy as np
import optax
import pytest
from penzai import pz
from penzai.models.simple_mlp import MLP

import toolshed
from tests import zoo
from tests.training.by_hand import count_compilations, differing, values_of
from tests.training.trainers import arrays, named, shared, start, stream, trainer_of
from toolshed import Trainer
from toolshed.errors import ModelError

# --- init -------------------------------------------------------------------------------------------


def test_init_takes_a_model_as_it_is():
    case, trainer = zoo.mlp(), shared()
    state = start(trainer)
    _, parameters = pz.unbind_params(case.model, freeze=True)
    expected = {parameter.label: jax.tree.leaves(parameter.value)[0] for parameter in parameters}
    assert differing(state.params, expected) == []
    assert int(state.step) == 0
    assert differing(trainer.init(jax.random.key(2)).params, expected) == []


def builder(keys: list[Any]) -> Any:
    def build(key: jax.Array) -> Any:
        keys.append(key)
        return MLP.from_config(init_base_rng=key, feature_sizes=[4, 8, 1])

    return build


def test_init_builds_a_model_with_a_key_of_its_own():
    keys: list[Any] = []
    trainer = Trainer(builder(keys), optax.adam(1e-2), zoo.regression_loss)
    first, again, other = (trainer.init(jax.random.key(seed)) for seed in (1, 1, 2))
    assert differing(first.params, again.params) == []
    assert "mlp/Affine_0/Linear.weights" in differing(first.params, other.params)
    expected = MLP.from_config(init_base_rng=keys[0], feature_sizes=[4, 8, 1])
    assert differing(first.params, toolshed.models.split(expected).params) == []


def test_the_key_given_to_init_is_used_for_nothing_but_to_fold_keys_from():
    keys: list[Any] = []
    trainer, given = Trainer(builder(keys), optax.adam(1e-2), zoo.regression_loss), jax.random.key(1)
    state = trainer.init(given)
    root = state.root_rng
    of_steps = [jax.random.fold_in(root, number) for number in range(200)]
    all_keys = [given, root, *keys, *of_steps, state.next_rng()[0], state.next_rng()[1].root_rng]
    assert len({np.asarray(jax.random.key_data(key)).tobytes() for key in all_keys}) == len(all_keys) == 205


def test_make_state_takes_a_pretrained_model():
    pretrained = MLP.from_config(init_base_rng=jax.random.key(42), feature_sizes=[4, 8, 1])
    trainer = shared()
    state, again = trainer.make_state(pretrained), trainer.make_state(pretrained)
    assert differing(state.params, toolshed.models.split(pretrained).params) == []
    assert differing(state.root_rng, again.root_rng) == []
    other = trainer.make_state(pretrained, rng=jax.random.key(5))
    assert differing(other.root_rng, jax.random.key(5)) == []


@pytest.mark.parametrize(
    ("model", "message"),
    [
        (3, r"^Expected a model or a function that builds one, got int 3\.$"),
        (lambda key: "no model", r"^Expected a model of one of the libraries penzai, .*; got str"),
    ],
)
def test_what_is_no_model_is_named(model, message):
    with pytest.raises(ModelError, match=message):
        Trainer(model, optax.adam(1e-2), zoo.regression_loss).init(jax.random.key(0))


# --- step -------------------------------------------------------------------------------------------


def test_a_step_by_hand_fills_the_context_and_leaves_the_state_valid():
    trainer, case = shared(), zoo.mlp()
    state = start(trainer)
    before = values_of(state)
    after, context = trainer.step(state, case.batch)
    again, _ = trainer.step(state, case.batch)
    assert set(context.filled) >= {"params", "opt_state", "rng", "loss_total", "grads", "updates", "preds"}
    assert differing(values_of(state), before) == []
    assert differing(values_of(after), values_of(again)) == []


# --- predict ----------------------------------------------------------------------------------------


def test_predict_is_the_model_without_dropout():
    trainer = shared("dropout_mlp")
    state = start(trainer)
    before = values_of(state)
    x = named(arrays()["x"])
    predicted = trainer.predict(state, x)
    assert differing(trainer.predict(state, x), predicted) == []
    assert differing(trainer.predict(state.replace(root_rng=jax.random.key(99)), x), predicted) == []
    streams = [pz.RandomStream.from_base_key(jax.random.key(seed)) for seed in (0, 1)]
    in_training = [state.model(x, random_stream=stream) for stream in streams]
    assert differing(*in_training) != []
    plain = MLP.from_config(init_base_rng=jax.random.key(0), feature_sizes=[4, 8, 1])
    same_weights = {path.replace("dropout_", ""): value for path, value in state.params.items()}
    expected = toolshed.models.bind(toolshed.models.split(plain).skeleton, same_weights, {})(x)
    np.testing.assert_allclose(
        predicted.unwrap("batch", "features"), expected.unwrap("batch", "features"), rtol=1e-6
    )
    assert differing(values_of(state), before) == []


def test_predict_changes_no_model_state_and_uses_the_state_it_is_given():
    trainer = shared("running_statistics")
    state = start(trainer)
    before = values_of(state)
    first = trainer.predict(state, named(arrays()["x"]))
    assert differing(trainer.predict(state, named(arrays()["x"])), first) == []
    assert differing(values_of(state), before) == []
    trained = trainer.fit(state, stream(), steps=20)
    assert differing(trainer.predict(trained, named(arrays()["x"])), first) != []


def test_predict_compiles_once_for_all_states_of_a_model():
    trainer = trainer_of()
    state, x = start(trainer), named(arrays()["x"])
    trainer.predict(state, x)
    trained = trainer.fit(state, stream(), steps=2)
    with count_compilations() as compiled:
        trainer.predict(trained, x)
    assert compiled == []


def test_a_model_that_holds_its_random_stream_trains_and_predicts():
    trainer = shared("random_stream")
    state = trainer.fit(start(trainer), stream(), steps=5)
    x = named(arrays()["x"])
    assert differing(trainer.predict(state, x), trainer.predict(state, x)) == []
    moved = state.model_state
    assert differing(moved, start(trainer).model_state) != []  # training draws on; predicting does not
    assert differing(state.model_state, moved) == []
