"""A strategy is a value that gives gradients and applies nothing, and every one works in a training step."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest

import toolshed
from tests import zoo
from tests.gradients import by_hand
from tests.training.by_hand import new_state
from toolshed.gradients import (
    Accumulate,
    Backprop,
    DeepSupervision,
    OneStepApproximation,
    PerExample,
    Remat,
    backprop,
    recurrent,
)


def loss_fn(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
    noise = jax.random.normal(rng, batch["x"].shape)
    loss = jnp.sum((params["w"] * batch["x"] + noise) ** 2)
    return loss, ((carry[0] + 1, loss), {"noise": noise})


def test_backprop_gives_loss_carry_aux_and_exact_gradients():
    params, batch, key = {"w": jnp.float32(2)}, {"x": jnp.array([1.0, -3.0])}, jax.random.key(0)
    loss, (carry, aux), grads = backprop(loss_fn, params, (jnp.int32(4), jnp.float32(0)), batch, key)
    noise = np.asarray(jax.random.normal(key, (2,)))
    x = np.array([1.0, -3.0])
    np.testing.assert_allclose(loss, np.sum((2 * x + noise) ** 2), rtol=1e-5)
    np.testing.assert_allclose(grads["w"], np.sum(2 * (2 * x + noise) * x), rtol=1e-5)  # d/dw Σ(wx + n)²
    assert int(carry[0]) == 5
    assert float(carry[1]) == float(loss)
    np.testing.assert_array_equal(aux["noise"], noise)
    assert float(params["w"]) == 2.0


def test_what_is_carried_is_not_differentiated():
    def through_the_carry(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        return params["w"] * carry, (params["w"] * 100, {})

    _, (carry, _), grads = backprop(
        through_the_carry, {"w": jnp.float32(3)}, jnp.float32(5), {}, jax.random.key(0)
    )
    assert float(grads["w"]) == 5.0
    assert float(carry) == 300.0


def test_backprop_agrees_with_finite_differences():
    with jax.enable_x64(True):
        p, b = by_hand.params(np.float64), by_hand.batch(5, [1, 1, 0, 1, 1], np.float64)
        by_hand.check_exact(Backprop(), by_hand.loss_fn, p, by_hand.CARRY, b)


def test_the_check_by_finite_differences_finds_a_wrong_gradient():
    def off_by_a_little(*arguments: Any) -> Any:
        loss, kept, grads = backprop(*arguments)
        return loss, kept, jax.tree.map(lambda grad: grad * 1.00001, grads)

    with jax.enable_x64(True):
        p, b = by_hand.params(np.float64), by_hand.batch(5, dtype=np.float64)
        with pytest.raises(AssertionError, match="Not equal to tolerance"):
            by_hand.check_exact(off_by_a_little, by_hand.loss_fn, p, by_hand.CARRY, b)


# --- strategies as values ---------------------------------------------------------------------------


VALUES = [
    (Backprop(), "Backprop()"),
    (Accumulate(4), "Accumulate(n=4, strategy=Backprop())"),
    (Accumulate(2, strategy=Remat()), "Accumulate(n=2, strategy=Remat(policy=None, strategy=Backprop()))"),
    (OneStepApproximation(), "OneStepApproximation(strategy=Backprop())"),
    (PerExample(clip=1.0), "PerExample(clip=1.0, noise=None, strategy=Backprop())"),
    (DeepSupervision({"losses/*": 0.3}), "DeepSupervision(weights={'losses/*': 0.3}, strategy=Backprop())"),
]


@pytest.mark.parametrize(("strategy", "shown"), VALUES, ids=[shown for _, shown in VALUES])
def test_a_strategy_shows_its_settings_and_is_a_key_that_equal_ones_share(strategy, shown):
    assert repr(strategy) == shown
    assert isinstance(hash(strategy), int)
    assert eval(shown) == strategy
    assert hash(eval(shown)) == hash(strategy)
    assert len({strategy, *(value for value, _ in VALUES)}) == len(VALUES)


# --- in training ------------------------------------------------------------------------------------


def marked_loss(**arguments: Any) -> Any:
    """A loss with a mark that changes nothing, so that `OneStepApproximation` takes it."""
    recurrent(jnp.zeros(2))
    return by_hand.masked_zoo_loss(**arguments)


def unit_length(loss_fn: Any, params: Any, carry: Any, batch: Any, rng: Any) -> Any:
    loss, kept, grads = backprop(loss_fn, params, carry, batch, rng)
    length = optax.tree.norm(grads)
    return loss, kept, jax.tree.map(lambda grad: grad / length, grads)


STRATEGIES = [
    Accumulate(4, strategy=Remat(jax.checkpoint_policies.dots_saveable)),
    Remat(),
    OneStepApproximation(),
    PerExample(),
    PerExample(clip=0.5, noise=0.1),
    DeepSupervision({"losses/size": 0.25}),
    unit_length,
]
EXACT = (Accumulate, Remat)


def masked_batches(steps: int) -> list[dict[str, np.ndarray]]:
    rng = np.random.default_rng(2)
    batches = []
    for number in range(steps):
        x = rng.normal(size=(8, 4)).astype(np.float32)
        mask = np.arange(8) < (8 if number % 2 else 5)
        batches.append({"x": x, "y": x.sum(axis=1, keepdims=True), "mask": mask})
    return batches


@pytest.mark.parametrize("strategy", STRATEGIES, ids=lambda made: getattr(made, "__name__", repr(made)))
def test_each_strategy_trains_in_calls_of_several_donated_steps(strategy):
    """`fit` makes four steps a call in donated memory; steps by hand must come to the same."""
    case = zoo.mlp()
    data = masked_batches(5)  # one call of four steps, one of one
    trainer = toolshed.Trainer(
        case.model, optax.sgd(0.05), marked_loss, gradient_strategy=strategy, steps_per_call=4
    )
    state = start = trainer.init(jax.random.key(1))
    fitted = trainer.fit(start, data)
    assert int(fitted.step) == 5
    step = toolshed.build_train_step(marked_loss, gradient_strategy=strategy, fields=("loss_total",))
    losses = []
    for batch in data:
        state, context = step(state, batch)
        losses.append(float(context.loss_total))
    assert step.traces == 1
    assert np.isfinite(losses).all()
    by_hand.same(fitted.params, state.params)
    if isinstance(strategy, EXACT):
        exact, state = toolshed.build_train_step(marked_loss, fields=()), start
        for batch in data:
            state, _ = exact(state, batch)
        by_hand.same(fitted.params, state.params)
    assert any((fitted.params[path] != start.params[path]).any() for path in start.params)


@pytest.mark.parametrize("strategy", [PerExample(clip=0.5), DeepSupervision({"losses/size": 0.25})], ids=repr)
def test_strategies_that_want_something_else_do_something_else(strategy):
    (batch,), states = masked_batches(1), []
    for used in (strategy, backprop):
        step = toolshed.build_train_step(
            by_hand.masked_zoo_loss, gradient_strategy=used, donate=True, fields=()
        )
        states.append(step(new_state(zoo.mlp(), optax.sgd(0.05)), batch)[0])
    a, b = (state.params for state in states)
    assert max(float(jnp.abs(a[path] - b[path]).max()) for path in a) > 1e-3
