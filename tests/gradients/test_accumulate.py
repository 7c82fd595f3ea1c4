"""Micro-batches one after another give what the big batch gives at once."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penzai import pz

from tests.gradients import by_hand
from tests.gradients.by_hand import CARRY, KEY, same
from toolshed.errors import BatchError, LossError, ToolshedError
from toolshed.gradients import Accumulate, Remat, backprop


@functools.cache
def compiled(strategy: Any, loss_fn: Any) -> Any:
    return jax.jit(lambda params, carry, batch: strategy(loss_fn, params, carry, batch, KEY))


def results(strategy: Any, batch: Any, loss_fn: Any = by_hand.loss_fn, carry: Any = CARRY) -> Any:
    return compiled(strategy, loss_fn)(by_hand.params(), carry, batch)


def test_accumulated_gradients_agree_with_finite_differences():
    with jax.enable_x64(True):
        p = by_hand.params(np.float64)
        for mask in (None, [1, 0, 1, 1, 1, 0]):
            b = by_hand.batch(6, mask, np.float64)
            by_hand.check_exact(Accumulate(3), by_hand.loss_fn, p, CARRY, b)


@settings(deadline=None, max_examples=15)
@given(n=st.sampled_from([1, 4]), mask=st.lists(st.booleans(), min_size=8, max_size=8).filter(any))
def test_it_equals_the_big_batch_whatever_the_mask(n, mask):
    batch = by_hand.batch(8, mask)
    loss, (_, aux), grads = results(Accumulate(n), batch)
    big_loss, (_, big_aux), big_grads = results(backprop, batch)
    same((loss, grads, aux), (big_loss, big_grads, big_aux), rtol=1e-5, atol=1e-6)


def test_a_plain_mean_over_micro_batches_would_not_do():
    """A negative control: with 4 and 1 real examples the weights are 0.8 and 0.2."""
    batch = by_hand.batch(8, [1, 1, 1, 1, 1, 0, 0, 0])
    _, _, big = results(backprop, batch)
    halves = [{name: leaf[part] for name, leaf in batch.items()} for part in (slice(4), slice(4, 8))]
    (_, _, first), (_, _, second) = (results(backprop, half) for half in halves)
    np.testing.assert_allclose(0.8 * first["second"] + 0.2 * second["second"], big["second"], rtol=1e-5)
    plain = (first["second"] + second["second"]) / 2
    assert float(jnp.abs(plain - big["second"]).max()) > 0.05


def test_padding_alone_contributes_nothing_and_no_nan():
    """The second micro-batch has no real example: its loss is 0/0, and it leaves the carry alone."""
    batch = by_hand.batch(8, [1, 1, 1, 0, 0, 0, 0, 0])
    halves = {name: leaf[4:] for name, leaf in batch.items()}
    assert np.isnan(results(backprop, halves)[0])
    loss, (carry, aux), grads = results(Accumulate(2), batch)
    big_loss, (_, big_aux), big_grads = results(backprop, batch)
    same((loss, grads, aux), (big_loss, big_grads, big_aux))
    assert int(carry["calls"]) == 5  # as after one call
    assert int(aux["examples"]) == 3


def test_a_batch_of_padding_alone_gives_what_the_loss_function_makes_of_it():
    def at_least_one(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        loss = jnp.where(batch["mask"], params["second"][0] * batch["y"], 0).sum()
        return loss / jnp.maximum(batch["mask"].sum(), 1), (carry, {})

    batch = by_hand.batch(4, [False] * 4)
    assert np.isnan(results(Accumulate(2), batch)[0])
    loss, _, grads = results(Accumulate(2), batch, at_least_one)
    assert float(loss) == 0.0
    assert float(jnp.abs(grads["second"]).max()) == 0.0


def test_what_is_carried_goes_through_the_micro_batches_in_order():
    def in_order(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        loss = jnp.mean(params["second"][0] * batch["y"])
        return loss, ({"seen": carry["seen"] * 10 + batch["y"][0]}, {"before": carry["seen"]})

    batch = {"y": jnp.arange(1.0, 5.0)}
    _, (carry, aux), _ = results(Accumulate(4), batch, in_order, {"seen": jnp.float32(0)})
    assert float(carry["seen"]) == 1234.0
    assert float(aux["before"]) == (0 + 1 + 12 + 123) / 4


@pytest.mark.parametrize("mask", [None, [1, 1, 1, 1, 1, 1, 0, 0]])
def test_random_keys_can_be_carried(mask):
    def splitting(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        key, used = jax.random.split(carry)
        return jnp.mean(params["second"]) * jax.random.normal(used), (key, {})

    _, (carry, _), _ = results(Accumulate(4), by_hand.batch(8, mask), splitting, jax.random.key(7))
    expected = jax.random.key(7)
    for _ in range(4 if mask is None else 3):  # the last micro-batch is padding
        expected, _ = jax.random.split(expected)
    assert (jax.random.key_data(carry) == jax.random.key_data(expected)).all()


def test_each_micro_batch_has_a_key_of_its_own():
    _, (_, aux), _ = results(Accumulate(4), by_hand.batch(8), by_hand.noisy_loss_fn)
    expected = [jax.random.normal(jax.random.fold_in(KEY, i), (2,)) for i in range(4)]
    np.testing.assert_allclose(aux["noise"], np.concatenate(expected), rtol=1e-6)
    assert len(set(np.asarray(aux["noise"]).tolist())) == 8


def test_named_arrays_are_cut_along_batch_and_put_together_again():
    def named_loss(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        second = pz.nx.wrap(params["second"], "features")
        preds = pz.nx.nmap(jnp.sum)((batch["x"] * second).untag("features"))
        return pz.nx.nmap(jnp.mean)(preds.untag("batch")).unwrap(), (carry, {"preds": preds})

    x = pz.nx.wrap(jax.random.normal(KEY, (2, 6)), "features", "batch")
    loss, (_, aux), grads = results(Accumulate(3), {"x": x}, named_loss, ())
    big_loss, (_, big_aux), big_grads = results(backprop, {"x": x}, named_loss, ())
    same((loss, grads), (big_loss, big_grads))
    np.testing.assert_allclose(aux["preds"].unwrap("batch"), big_aux["preds"].unwrap("batch"), rtol=1e-5)


def test_gradients_in_low_precision_keep_their_type_and_are_added_up_in_32_bits():
    def linear(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        return (params["w"] * batch["x"]).mean(), (carry, {})

    p, b = {"w": jnp.bfloat16(1)}, {"x": jnp.ones(512, jnp.bfloat16)}
    loss, _, grads = jax.jit(lambda: Accumulate(512)(linear, p, (), b, KEY))()
    # 512 times 1/512: added up in bfloat16 it would stop at 0.5, where 1/512 rounds away
    assert (grads["w"].dtype, float(grads["w"])) == (jnp.bfloat16, 1.0)
    assert (loss.dtype, float(loss)) == (jnp.bfloat16, 1.0)


def test_it_works_on_top_of_another_strategy():
    batch = by_hand.batch(8, [1, 0, 1, 1, 1, 1, 0, 1])
    same(results(Accumulate(2, strategy=Remat()), batch)[2], results(backprop, batch)[2])
    doubled = lambda *a: (lambda r: (r[0], r[1], jax.tree.map(lambda g: 2 * g, r[2])))(backprop(*a))  # noqa: E731
    expected = jax.tree.map(lambda g: 2 * g, results(backprop, batch)[2])
    same(results(Accumulate(2, strategy=doubled), batch)[2], expected)


@pytest.mark.parametrize("n", [0, -1, True])
def test_a_number_of_micro_batches_that_is_none_is_an_error(n):
    with pytest.raises(ToolshedError, match=rf"^Accumulate got n={n!r}; expected a whole number from 1\.$"):
        Accumulate(n)


def test_a_batch_that_cannot_be_cut_is_named_while_tracing():
    with pytest.raises(BatchError, match=r"^batch/x is float32\[8,3\]; its 8 examples cannot be cut into 3"):
        jax.eval_shape(lambda: results(Accumulate(3), by_hand.batch(8)))


def test_aux_that_cannot_be_put_together_is_named():
    def gram(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        return jnp.mean(params["second"]), (carry, {"gram": batch["x"] @ batch["x"].T})

    with pytest.raises(
        LossError, match=r"^aux/gram is float32\[8,8\] for the whole batch and float32\[4,4\]"
    ):
        results(Accumulate(2), by_hand.batch(8), gram)
