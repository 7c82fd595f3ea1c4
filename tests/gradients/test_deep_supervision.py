"""Auxiliary losses are found by path in aux, weighted, added, and differentiated with the loss."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from penzai import pz

import toolshed
from tests import zoo
from tests.gradients import by_hand
from tests.gradients.by_hand import KEY, same
from tests.training.by_hand import new_state
from toolshed.errors import ContextKeyError, LossError, ToolshedError
from toolshed.gradients import Accumulate, DeepSupervision, backprop


def loss_fn(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
    """`by_hand.loss_fn` with three auxiliary losses, each a mean over real examples."""
    loss, (carry, aux) = by_hand.loss_fn(params, carry, batch, rng)
    hidden = jnp.tanh(batch["x"] @ params["first"])
    mask = batch.get("mask", jnp.ones(hidden.shape[0], bool))
    early = jnp.where(mask[:, None], (hidden - batch["y"][:, None]) ** 2, 0).sum() / mask.sum()
    size = jnp.where(mask, aux["preds"] ** 2, 0).sum() / mask.sum()
    return loss, (carry, {**aux, "losses": {"early": early, "size": size}, "named": pz.nx.wrap(size)})


def aux_of(batch: Any) -> Any:
    return loss_fn(by_hand.params(), by_hand.CARRY, batch, KEY)[1][1]


def run(strategy: Any, batch: Any) -> Any:
    return jax.jit(lambda p, b: strategy(loss_fn, p, by_hand.CARRY, b, KEY))(by_hand.params(), batch)


def test_gradients_of_the_total_agree_with_finite_differences():
    with jax.enable_x64(True):
        p, b = by_hand.params(np.float64), by_hand.batch(6, [1, 1, 0, 1, 1, 0], np.float64)
        deep = DeepSupervision({"losses/early": 0.5, "losses/size": -0.25})
        by_hand.check_exact(deep, loss_fn, p, by_hand.CARRY, b)


@pytest.mark.parametrize(
    ("weights", "early", "size"),
    [
        ({"losses/early": 0.5}, 0.5, 0.0),
        ({"losses/early": 0.5, "losses/size": 2.0}, 0.5, 2.0),
        ({"losses/*": 0.25}, 0.25, 0.25),
        ({"**/size": 3.0}, 0.0, 3.0),
        ({"named": 3.0}, 0.0, 3.0),
        ({"losses/size": 0.0}, 0.0, 0.0),
    ],
)
def test_the_returned_loss_is_the_weighted_total(weights, early, size):
    batch = by_hand.batch(6)
    aux = aux_of(batch)
    loss, (carry, seen), _ = run(DeepSupervision(weights), batch)
    expected = aux["error"] + early * aux["losses"]["early"] + size * aux["losses"]["size"]
    np.testing.assert_allclose(loss, expected, rtol=1e-6)
    same(seen, aux, rtol=1e-6)
    assert int(carry["calls"]) == 5


def test_gradients_are_the_weighted_sum_of_those_of_each_loss():
    p, batch = by_hand.params(), by_hand.batch(6)

    def one(name: str) -> Any:
        return jax.grad(lambda p: loss_fn(p, by_hand.CARRY, batch, KEY)[1][1]["losses"][name])(p)

    _, _, grads = run(DeepSupervision({"losses/early": 0.5, "losses/size": 2.0}), batch)
    _, _, main = run(backprop, batch)
    expected = jax.tree.map(lambda m, e, s: m + 0.5 * e + 2.0 * s, main, one("early"), one("size"))
    same(grads, expected, rtol=1e-4, atol=1e-6)
    assert max(float(jnp.abs(grads[path] - main[path]).max()) for path in grads) > 0.1


def test_with_masks_micro_batches_give_the_total_of_the_big_batch():
    batch = by_hand.batch(8, [1, 1, 1, 0, 1, 0, 0, 0])
    deep = DeepSupervision({"losses/*": 0.5})
    around = DeepSupervision({"losses/*": 0.5}, strategy=Accumulate(2))
    within = Accumulate(2, strategy=deep)
    same(run(around, batch)[::2], run(deep, batch)[::2])
    same(run(within, batch)[::2], run(deep, batch)[::2])


def test_evaluation_reports_the_loss_without_the_auxiliary_ones():
    case = zoo.mlp()
    strategy = DeepSupervision({"losses/size": 100.0})
    step = toolshed.build_train_step(
        by_hand.masked_zoo_loss, gradient_strategy=strategy, fields=("loss_total", "aux")
    )
    trainer = toolshed.Trainer(
        case.model, optax.sgd(0.1), by_hand.masked_zoo_loss, gradient_strategy=strategy
    )
    state = new_state(case)
    _, context = step(state, case.batch)
    alone = trainer.evaluate(state, [case.batch])["loss"]
    size = float(context["aux/losses/size"])
    assert float(context.loss_total) == pytest.approx(alone + 100 * size, rel=1e-5)
    assert size > 0.01


def test_the_weights_are_its_own_and_make_it_a_key():
    weights = {"losses/early": 0.5, "losses/size": 1.0}
    deep = DeepSupervision(weights)
    weights["losses/early"] = 7.0
    assert deep.weights == {"losses/early": 0.5, "losses/size": 1.0}
    assert deep == DeepSupervision({"losses/size": 1.0, "losses/early": 0.5})
    assert hash(deep) == hash(DeepSupervision({"losses/size": 1.0, "losses/early": 0.5}))
    assert deep != DeepSupervision({"losses/size": 1.0, "losses/early": 0.75})


@pytest.mark.parametrize(
    ("weights", "error", "message"),
    [
        (
            {"losses/earlj": 1.0},
            ContextKeyError,
            r"^No 'losses/earlj' in the loss function's aux\. Did you me",
        ),
        ({"heads/*": 1.0}, ContextKeyError, r"^No 'heads/\*' in the loss function's aux\."),
        (
            {"losses/early": 1.0, "losses/*": 1.0},
            LossError,
            r"^aux/losses/early has two weights in DeepSupervision, by 'losses/early' and by 'losses/\*'\.",
        ),
        (
            {"preds": 1.0},
            LossError,
            r"^aux/preds is float32\[6\]; as an auxiliary loss it must be a real floating-point scalar\.",
        ),
        ({"examples": 1.0}, LossError, r"^aux/examples is int32\[\]; as an auxiliary loss"),
    ],
)
def test_a_path_that_leads_to_no_loss_is_named(weights, error, message):
    with pytest.raises(error, match=message):
        run(DeepSupervision(weights), by_hand.batch(6))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({}, r"^DeepSupervision got dict; expected weights by path in aux, such as \{'losses/\*': 0\.3\}\."),
        (
            {"losses/early": float("nan")},
            r"^DeepSupervision got float nan as the weight of 'losses/early'; expec",
        ),
        ({"losses/early": float("inf")}, r"expected a finite number\."),
    ],
)
def test_weights_that_are_none_are_errors(weights, message):
    with pytest.raises(ToolshedError, match=message):
        DeepSupervision(weights)
