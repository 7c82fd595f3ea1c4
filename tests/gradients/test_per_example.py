"""Gradients of single examples: their mean is backprop's, and clip and noise are what they say."""

from __future__ import annotations

import functools
from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import optax
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from penzai import pz

import toolshed
from tests import zoo
from tests.gradients import by_hand
from tests.gradients.by_hand import CARRY, KEY, same
from tests.training.by_hand import new_state
from toolshed.errors import BatchError, LossError, ToolshedError
from toolshed.gradients import Accumulate, PerExample, backprop


@functools.cache
def compiled(strategy: Any, loss_fn: Any) -> Any:
    return jax.jit(lambda params, carry, batch, key: strategy(loss_fn, params, carry, batch, key))


def results(strategy: Any, batch: Any, loss_fn: Any = by_hand.loss_fn, key: Any = KEY) -> Any:
    return compiled(strategy, loss_fn)(by_hand.params(), CARRY, batch, key)


def test_without_clipping_it_agrees_with_finite_differences():
    with jax.enable_x64(True):
        p, b = by_hand.params(np.float64), by_hand.batch(5, [1, 1, 0, 1, 1], np.float64)
        by_hand.check_exact(PerExample(), by_hand.loss_fn, p, CARRY, b)


@settings(deadline=None, max_examples=15)
@given(mask=st.lists(st.booleans(), min_size=6, max_size=6).filter(any))
def test_without_clipping_it_equals_backprop_whatever_the_mask(mask):
    batch = by_hand.batch(6, mask)
    loss, (carry, aux), grads = results(PerExample(), batch)
    big_loss, big_kept, big_grads = results(backprop, batch)
    same((loss, (carry, aux), grads), (big_loss, big_kept, big_grads), rtol=1e-5, atol=1e-6)


def by_example(batch: Any) -> list[dict[str, np.ndarray]]:
    """The gradient of each example, by backprop on a batch of it alone."""
    n = len(batch["y"])
    singles = [{name: batch[name][i : i + 1] for name in ("x", "y")} for i in range(n)]
    return [jax.device_get(results(backprop, single)[2]) for single in singles]


def clipped(grads: dict[str, np.ndarray], norm: float) -> dict[str, np.ndarray]:
    length = np.sqrt(sum((grad**2).sum() for grad in grads.values()))
    return {path: grad * min(1.0, norm / length) for path, grad in grads.items()}


@pytest.mark.parametrize("mask", [None, [1, 0, 1, 1, 1, 0]])
def test_each_example_is_clipped_to_the_norm_and_real_ones_are_averaged(mask):
    batch, norm = by_hand.batch(6, mask), 0.7
    lengths = [np.sqrt(sum((g**2).sum() for g in grads.values())) for grads in by_example(batch)]
    assert min(lengths) < norm < max(lengths)
    real = range(6) if mask is None else np.flatnonzero(mask)
    chosen = [clipped(by_example(batch)[i], norm) for i in real]
    expected = {path: sum(grads[path] for grads in chosen) / len(chosen) for path in chosen[0]}
    loss, _, grads = results(PerExample(clip=norm), batch)
    same(grads, jax.tree.map(jnp.asarray, expected), rtol=1e-5)
    np.testing.assert_allclose(loss, results(backprop, batch)[0], rtol=1e-6)
    # Clipping the mean instead is something else.
    whole = clipped(jax.device_get(results(backprop, batch)[2]), norm)
    assert max(np.abs(grads[path] - whole[path]).max() for path in whole) > 1e-2


def test_a_large_norm_clips_nothing():
    batch = by_hand.batch(6, [1, 0, 1, 1, 1, 0])
    same(results(PerExample(clip=1e6), batch)[2], results(backprop, batch)[2])


def nothing_to_learn(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
    """Gradients of zero, so that what comes out is the noise."""
    return jnp.mean(batch["y"]) + 0 * jnp.sum(params["w"]), (carry, {})


def test_noise_has_the_deviation_that_was_asked_for():
    n, params = 8, {"w": jnp.zeros(20_000)}
    mask = np.array([1, 1, 1, 1, 1, 0, 0, 0], bool)
    run = jax.jit(
        lambda b, key: PerExample(clip=0.5, noise=3.0)(nothing_to_learn, params, (), b, key)[2]["w"]
    )
    for batch, count in [(by_hand.batch(n), 8), (by_hand.batch(n, mask), 5)]:
        noise = np.asarray(run(batch, KEY))
        # σ = 3 · 0.5 / count; the deviation of 20,000 draws is known to 0.5 %, their mean to σ/141
        assert noise.std() == pytest.approx(1.5 / count, rel=0.02)
        assert abs(noise.mean()) < 5 * 1.5 / count / np.sqrt(20_000)
        np.testing.assert_array_equal(run(batch, KEY), noise)
        other = run(batch, jax.random.key(99))
        assert abs(np.corrcoef(noise, other)[0, 1]) < 0.03


def test_it_is_optax_s_aggregate_with_a_key_that_no_example_has():
    batch = by_hand.batch(6)
    aggregate = optax.contrib.differentially_private_aggregate(0.7, 2.0, jax.random.fold_in(KEY, 6))
    stacked = jax.tree.map(lambda *grads: jnp.stack(grads), *by_example(batch))
    expected, _ = aggregate.update(stacked, aggregate.init(by_hand.params()))
    same(results(PerExample(clip=0.7, noise=2.0), batch)[2], expected, rtol=1e-4, atol=1e-6)


def test_noise_of_zero_is_clipping_alone():
    batch = by_hand.batch(6, [1, 0, 1, 1, 1, 0])
    same(results(PerExample(clip=0.7, noise=0.0), batch)[2], results(PerExample(clip=0.7), batch)[2])


def test_padding_alone_gives_no_gradient_but_the_noise():
    batch = by_hand.batch(4, [False] * 4)
    assert all((leaf == 0).all() for leaf in jax.tree.leaves(results(PerExample(clip=1.0), batch)[2]))
    noised = results(PerExample(clip=1.0, noise=1.0), batch)[2]
    assert all(np.isfinite(leaf).all() and (leaf != 0).any() for leaf in jax.tree.leaves(noised))


def test_each_example_has_a_key_of_its_own():
    _, (_, aux), _ = results(PerExample(), by_hand.batch(4), by_hand.noisy_loss_fn)
    expected = [jax.random.normal(jax.random.fold_in(KEY, i), (1,))[0] for i in range(4)]
    np.testing.assert_allclose(aux["noise"], np.stack(expected), rtol=1e-6)


def test_a_mask_of_tokens_weighs_examples_by_their_tokens():
    def token_loss(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        errors = (params["second"][0] * batch["x"] - 1) ** 2
        return jnp.where(batch["mask"], errors, 0).sum() / batch["mask"].sum(), (carry, {})

    batch = {
        "x": by_hand.batch(4)["x"],
        "mask": jnp.array([[1, 1, 1], [1, 0, 0], [0, 0, 0], [1, 1, 0]], bool),
    }
    ours, exact = (results(strategy, batch, token_loss) for strategy in (PerExample(), backprop))
    same((ours[0], ours[2]), (exact[0], exact[2]))
    with pytest.raises(
        BatchError, match=r"^The mask has 3 entries an example; with clip each example weighs"
    ):
        results(PerExample(clip=1.0), batch, token_loss)


def test_named_arrays_give_examples_along_batch():
    def named_loss(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        preds = (batch["x"] * pz.nx.wrap(params["second"], "features")).untag("features").sum()
        return (preds * preds).untag("batch").mean().unwrap(), (carry, {"preds": preds})

    batch = {"x": pz.nx.wrap(by_hand.batch(6)["x"][:, :2].T, "features", "batch")}
    ours, exact = (results(strategy, batch, named_loss) for strategy in (PerExample(), backprop))
    same((ours[0], ours[2]), (exact[0], exact[2]))
    np.testing.assert_allclose(
        ours[1][1]["preds"].unwrap("batch"), exact[1][1]["preds"].unwrap("batch"), rtol=1e-6
    )


# --- state ------------------------------------------------------------------------------------------


def test_state_that_is_the_same_for_all_examples_is_carried_once():
    """The position of a model's own random stream; all of it in one step, as by backprop."""
    case = zoo.random_stream()
    after = []
    for strategy in (PerExample(), backprop):
        step = toolshed.build_train_step(case.loss_fn, gradient_strategy=strategy, fields=())
        after.append(step(new_state(zoo.random_stream()), case.batch)[0].model_state)
    assert after[0]
    same(after[0], after[1])


def test_state_that_depends_on_the_example_is_refused_by_name():
    case = zoo.running_statistics()
    step = toolshed.build_train_step(case.loss_fn, gradient_strategy=PerExample(), fields=())
    state = new_state(case)
    mean = next(path for path in state.model_state if "mean" in path)
    with pytest.raises(
        LossError,
        match=rf"^PerExample cannot carry model_state/{mean}: its new value depends on the example, as .*"
        r"Freeze that state, or use Accumulate\.",
    ):
        step(state, case.batch)
    toolshed.build_train_step(case.loss_fn, gradient_strategy=Accumulate(2), fields=())(state, case.batch)


def test_an_error_of_the_loss_function_itself_comes_out_as_it_is():
    def broken(params: Any, carry: Any, batch: Any, rng: Any) -> Any:
        raise ValueError("something else")

    with pytest.raises(ValueError, match=r"^something else"):
        results(PerExample(), by_hand.batch(4), broken)


# --- settings ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("settings", "message"),
    [
        ({"clip": 0.0}, r"^PerExample got clip=0\.0; expected a norm over 0, or None\."),
        ({"clip": -1.0}, r"clip=-1\.0"),
        ({"clip": float("inf")}, r"clip=inf"),
        ({"clip": float("nan")}, r"clip=nan"),
        ({"clip": 1.0, "noise": -0.5}, r"^PerExample got noise=-0\.5; expected a number from 0, or None\."),
        ({"clip": 1.0, "noise": float("nan")}, r"noise=nan"),
        (
            {"noise": 0.5},
            r"^PerExample got noise=0\.5 without clip\. The noise .*: PerExample\(clip=1\.0, nois",
        ),
    ],
)
def test_settings_out_of_range_are_errors(settings, message):
    with pytest.raises(ToolshedError, match=message):
        PerExample(**settings)
