"""A comparison gives the angle and the ratio of two gradients, in each parameter and in all."""

from __future__ import annotations

import math
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import toolshed
from tests import zoo
from tests.gradients import by_hand
from tests.training.by_hand import count_compilations, new_state
from toolshed.errors import BatchError, LossError, StateError
from toolshed.gradients import Backprop, Comparison, DeepSupervision, Remat, backprop, compare
from toolshed.gradients.comparison import _angle


def gives(**grads: Any) -> Any:
    """A strategy that returns given gradients, whatever the loss."""

    def strategy(loss_fn: Any, params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        loss, kept = loss_fn(params, carry, batch, rng)
        chosen = dict(zip(sorted(params), grads.values(), strict=False))
        return loss, kept, {path: jnp.full(params[path].shape, chosen.get(path, 0.0)) for path in params}

    return strategy


def turned(loss_fn: Any, params: Any, carry: Any, batch: Any, rng: Any) -> Any:
    """Backprop with each gradient twice as long and the first parameter's turned around."""
    loss, kept, grads = backprop(loss_fn, params, carry, batch, rng)
    first = min(grads)
    return loss, kept, {path: grad * (-2 if path == first else 2) for path, grad in grads.items()}


def test_equal_gradients_have_cosine_and_ratio_one():
    case = zoo.mlp()
    result = compare(backprop, backprop, case.loss_fn, new_state(case), case.batch)
    assert list(result.cosine) == list(result.norm_ratio) == list(new_state(zoo.mlp()).params)
    assert list(result.cosine.values()) == pytest.approx([1.0] * 4, abs=1e-6)
    assert set(result.norm_ratio.values()) == {1.0}
    assert (result.cosine_of_all, result.norm_ratio_of_all) == (pytest.approx(1.0, abs=1e-6), 1.0)


def test_a_gradient_turned_around_and_twice_as_long():
    case = zoo.mlp()
    state = new_state(case)
    result = compare(turned, Backprop(), case.loss_fn, state, case.batch)
    assert result.title == "turned to those of Backprop()"
    first = min(state.params)
    for path in state.params:
        assert result.cosine[path] == pytest.approx(-1.0 if path == first else 1.0, abs=1e-5)
        assert result.norm_ratio[path] == pytest.approx(2.0, rel=1e-5)
    step = toolshed.build_train_step(case.loss_fn, fields=("grads",))
    grads = jax.device_get(step(state, case.batch)[1].grads)
    squares = {path: float((grad**2).sum()) for path, grad in grads.items()}
    # cos = Σ ±2 g² / (2 Σ g²)
    cosine = 1 - 2 * squares[first] / sum(squares.values())
    assert result.cosine_of_all == pytest.approx(cosine, rel=1e-4)
    assert result.norm_ratio_of_all == pytest.approx(2.0, rel=1e-5)


def test_a_gradient_of_zero_has_no_angle():
    case = zoo.mlp()
    state = new_state(case)
    first, *others = sorted(state.params)
    result = compare(gives(first=3.0), backprop, case.loss_fn, state, case.batch)
    assert not math.isnan(result.cosine[first])
    assert all(math.isnan(result.cosine[path]) and result.norm_ratio[path] == 0.0 for path in others)
    assert not math.isnan(result.cosine_of_all)
    both = compare(gives(), gives(), case.loss_fn, state, case.batch)
    assert all(math.isnan(value) for value in both.flatten().values())
    other_way = compare(backprop, gives(), case.loss_fn, state, case.batch)
    assert math.isnan(other_way.cosine_of_all)
    assert other_way.norm_ratio_of_all == math.inf


finite = st.floats(-10, 10, allow_subnormal=False, width=32)


@settings(deadline=None, max_examples=30)
@given(
    st.lists(st.tuples(finite, finite), min_size=4, max_size=4),
    st.sampled_from([1e-30, 1e-18, 1.0, 1e18, 1e30]),
)
def test_angles_and_ratios_are_right_where_squares_would_be_out_of_range(pairs, scale):
    a, b = np.array(pairs, np.float64).T
    if min(np.abs(a).max(), np.abs(b).max()) < 1e-3:
        return
    scaled = [
        [jnp.asarray(x[:1] * scale, jnp.float32), jnp.asarray(x[1:] * scale, jnp.float32)] for x in (a, b)
    ]
    cosine, ratio = ANGLE(*scaled)
    assert float(cosine) == pytest.approx(a @ b / np.linalg.norm(a) / np.linalg.norm(b), abs=1e-5)
    assert float(ratio) == pytest.approx(np.linalg.norm(a) / np.linalg.norm(b), rel=1e-5)


ANGLE = jax.jit(_angle)


def test_the_key_is_that_of_the_state_s_next_step_unless_one_is_given():
    case = zoo.dropout_mlp()
    state = new_state(case)
    seen = jax.random.fold_in(state.root_rng, state.step)
    step = toolshed.build_train_step(case.loss_fn, fields=("grads", "rng"))
    _, context = step(state, case.batch)
    assert (jax.random.key_data(context.rng) == jax.random.key_data(seen)).all()
    stored = {path: jnp.asarray(grad) for path, grad in context.grads.items()}

    def as_in_the_step(loss_fn: Any, params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        return (*loss_fn(params, carry, batch, rng), stored)

    default = compare(as_in_the_step, backprop, case.loss_fn, state, case.batch)
    assert default.cosine_of_all == pytest.approx(1.0, abs=1e-5)
    other = compare(as_in_the_step, backprop, case.loss_fn, state, case.batch, rng=jax.random.key(77))
    assert other.cosine_of_all < 0.99


@pytest.mark.parametrize("name", ["random_stream", "lora_by_freezing", "v1_mlp"])
def test_models_of_every_kind_can_be_compared_on(name):
    case = zoo.ZOO[name]()
    state = new_state(case)
    before = jax.tree.map(np.array, (state.params, state.model_state))
    result = compare(Remat(), backprop, case.loss_fn, state, case.batch)
    assert result.cosine_of_all == pytest.approx(1.0, abs=1e-5)
    by_hand.same((state.params, state.model_state), before)


def test_it_is_compiled_once_for_equal_strategies_and_models():
    case = zoo.mlp()
    states = [new_state(zoo.mlp(), optax.sgd(rate)) for rate in (0.1, 0.2)]
    weights = {"losses/size": 0.5}
    compare(DeepSupervision(weights), Backprop(), by_hand.masked_zoo_loss, states[0], case.batch)
    with count_compilations() as compiled:
        compare(DeepSupervision(weights), Backprop(), by_hand.masked_zoo_loss, states[1], case.batch)
    assert compiled == []


def test_a_result_reads_as_a_table_and_flattens_to_paths():
    result = Comparison(
        {"w": 0.5, "layer/bias": math.nan}, {"w": 2.0, "layer/bias": 0.0}, 0.25, 12.5, "f to g"
    )
    assert repr(result) == (
        "Gradients of f to g\n"
        "                 cosine  norm ratio\n"
        "w                0.5000           2\n"
        "layer/bias          nan           0\n"
        "all parameters   0.2500        12.5"
    )
    flat = result.flatten()
    assert list(flat) == [
        "cosine",
        "norm_ratio",
        "cosine/w",
        "cosine/layer/bias",
        "norm_ratio/w",
        "norm_ratio/layer/bias",
    ]
    assert (flat["cosine"], flat["norm_ratio"], flat["norm_ratio/w"]) == (0.25, 12.5, 2.0)
    with pytest.raises(AttributeError):
        result.cosine_of_all = 1.0  # type: ignore[misc]


def test_a_state_whose_arrays_are_gone_is_an_error():
    case = zoo.mlp()
    state = new_state(case)
    toolshed.build_train_step(case.loss_fn, donate=True, fields=())(state, case.batch)
    with pytest.raises(StateError, match="is deleted"):
        compare(backprop, backprop, case.loss_fn, state, case.batch)


def test_a_loss_function_that_breaks_its_protocol_is_an_error():
    case = zoo.mlp()

    def loss_and_state(*, model: Any, state: Any, rng: Any, x: Any, y: Any) -> Any:
        return case.loss_fn(model=model, state=state, rng=rng, x=x, y=y)[:2]

    with pytest.raises(LossError, match=r"^loss_and_state returned a tuple of 2; expected"):
        compare(backprop, backprop, loss_and_state, new_state(case), case.batch)


def test_a_batch_that_the_loss_function_cannot_take_is_an_error():
    case = zoo.mlp()
    with pytest.raises(BatchError, match=r"^regression_loss cannot be called with this batch: .* 'y'"):
        compare(backprop, backprop, case.loss_fn, new_state(case), {"x": case.batch["x"]})
