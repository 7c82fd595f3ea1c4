"""Sizes of updates, angles between gradients, moments of optimisers."""

from __future__ import annotations

import math

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.insight.faults import a_step, small
from tests.training.by_hand import new_state
from toolshed import build_train_step
from toolshed.errors import StateError, ToolshedError
from toolshed.insight import cosine_similarity, optimizer_moments, update_ratio


def test_the_ratio_of_an_update_by_hand():
    params = {"a": jnp.array([3.0, 4.0]), "b": jnp.zeros(2), "c": jnp.zeros(1)}
    updates = {"a": jnp.array([0.0, -0.5]), "b": jnp.ones(2), "c": jnp.zeros(1)}
    found = update_ratio(params, updates)
    assert found["a"] == pytest.approx(0.1)
    assert found["b"] == math.inf
    assert math.isnan(found["c"])


def test_the_ratios_of_a_step_are_those_of_its_context():
    case = small()
    _, context = build_train_step(case.loss_fn)(new_state(case, optax.sgd(0.1)), case.batch)
    found = update_ratio(context.params, context.updates)
    for path, ratio in found.items():
        size = np.linalg.norm(context.params[path])
        right = 0.1 * np.linalg.norm(context.grads[path]) / size if size else math.inf
        assert ratio == pytest.approx(right, rel=1e-5)


@pytest.mark.parametrize("function", [update_ratio, cosine_similarity])
def test_trees_of_other_paths_are_an_error(function):
    with pytest.raises(ToolshedError, match=r"^'v/w' is in one tree only; .* The nearest there is 'u/w'\.$"):
        function({"v": {"w": jnp.ones(2)}}, {"u": {"w": jnp.ones(2)}})
    with pytest.raises(
        ToolshedError, match=r"^'x' is in one tree only; expected two trees of the same paths"
    ):
        function({}, {"x": jnp.ones(2)})


# --- angles -------------------------------------------------------------------------------------------


def test_angles_by_hand():
    a = {"same": jnp.array([1.0, 2.0]), "across": jnp.array([1.0, 0.0]), "none": jnp.zeros(2)}
    b = {"same": jnp.array([2.0, 4.0]), "across": jnp.array([0.0, 5.0]), "none": jnp.ones(2)}
    found = cosine_similarity(a, b, title="now to before")
    assert found.cosine["same"] == pytest.approx(1)
    assert found.cosine["across"] == 0
    assert math.isnan(found.cosine["none"])
    assert found.norm_ratio == pytest.approx({"same": 0.5, "across": 0.2, "none": 0})
    assert found.cosine_of_all == pytest.approx(10 / math.sqrt(6 * 47))
    assert found.norm_ratio_of_all == pytest.approx(math.sqrt(6 / 47))
    assert repr(found).startswith("Gradients of now to before\n")


@settings(deadline=None, max_examples=40)
@given(st.integers(0, 1000), st.sampled_from([1e-30, 1e-3, 1.0, 1e30]), st.sampled_from([1e-30, 1.0, 1e25]))
def test_angles_are_numpy_s_whatever_the_sizes(seed, scale_a, scale_b):
    rng = np.random.default_rng(seed)
    a, b = (rng.normal(size=(2, 5)) for _ in range(2))
    found = cosine_similarity(
        {"x": (a * scale_a).astype(np.float32)}, {"x": (b * scale_b).astype(np.float32)}
    )
    right = (a * b).sum() / np.linalg.norm(a) / np.linalg.norm(b)
    assert found.cosine["x"] == pytest.approx(right, abs=1e-5)
    assert found.norm_ratio["x"] == pytest.approx(
        scale_a / scale_b * np.linalg.norm(a) / np.linalg.norm(b), rel=1e-5
    )


def test_gradients_of_other_shapes_are_an_error():
    with pytest.raises(ToolshedError, match=r"^w is float32\[2\] in one tree, float32\[3\] in the other\.$"):
        cosine_similarity({"w": jnp.ones(2)}, {"w": jnp.ones(3)})


def test_trees_without_gradients_have_no_angle():
    assert math.isnan(cosine_similarity({}, {}).cosine_of_all)


# --- moments ------------------------------------------------------------------------------------------

PATHS = {"mlp/Affine_0/Linear.weights", "mlp/Affine_0/AddBias.bias"}


def mask_of_weights(params):
    return {path: path.endswith("weights") for path in params}


def groups(params):
    return {path: "weights" if path.endswith("weights") else "others" for path in params}


@pytest.mark.parametrize(
    ("optimizer", "names"),
    [
        (optax.adam(1e-3), {"mu": PATHS, "nu": PATHS}),
        (optax.sgd(0.1, momentum=0.9), {"trace": PATHS}),
        (optax.chain(optax.clip(1.0), optax.trace(0.9), optax.scale(-1)), {"trace": PATHS}),
        (optax.chain(optax.trace(0.9), optax.trace(0.8)), {"0/trace": PATHS, "1/trace": PATHS}),
        (optax.inject_hyperparams(optax.rmsprop)(0.1), {"nu": PATHS}),
        (optax.masked(optax.trace(0.9), mask_of_weights), {"trace": {"mlp/Affine_0/Linear.weights"}}),
        (
            optax.partition({"weights": optax.trace(0.9), "others": optax.scale_by_rms()}, groups),
            {"trace": {"mlp/Affine_0/Linear.weights"}, "nu": {"mlp/Affine_0/AddBias.bias"}},
        ),
        (optax.sgd(0.1), {}),
    ],
    ids=["adam", "momentum", "chain", "twice", "injected", "masked", "groups", "nothing"],
)
def test_moments_are_found_in_any_optimizer(optimizer, names):
    found = optimizer_moments(new_state(small(), optimizer))
    assert {name: set(values) for name, values in found.items()} == names
    for values in found.values():
        assert values == {path: value for path, value in values.items() if hasattr(value, "dtype")}


def test_moments_are_the_arrays_of_the_state():
    step, state, batch = a_step(optimizer=optax.adam(1e-2))
    state, _ = step(state, batch)
    found = optimizer_moments(state)
    for path, value in found["nu"].items():
        assert value is state.opt_state[0].nu[path]
        assert value.shape == state.params[path].shape
    jax.tree.map(lambda leaf: leaf.delete(), state.params)
    with pytest.raises(StateError, match=r"^The arrays of this state are gone"):
        optimizer_moments(state)
    with pytest.raises(StateError, match=r"^Expected a TrainState, got dict\.$"):
        optimizer_moments({})  # type: ignore[arg-type]
