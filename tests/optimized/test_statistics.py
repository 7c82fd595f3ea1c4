"""Mean, sum, count, deviation and loss against numpy, over masked batches merged in any order."""

from __future__ import annotations

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from penzai import pz

from tests.metrics.merging import (
    Arrays,
    check,
    compiled,
    context_of,
    for_any_seed,
    merged,
    merged_each,
    random_batches,
    value_of,
)
from toolshed import Context
from toolshed.errors import ToolshedError
from toolshed.metrics import Count, Loss, Mean, Std, Sum, collection


def numbers(rng: np.random.Generator, n: int) -> Arrays:
    """Values with a mean far from 0, where sums of squares would cancel."""
    return {
        "aux/values": rng.normal(1000, 1, (n, 3)).astype(np.float32),
        "weights": rng.random(n).astype(np.float32),
    }


@for_any_seed
def test_statistics_of_merged_batches_are_numpy_s_over_all_at_once(seed):
    batches, whole = random_batches(seed, numbers)
    values = whole["aux/values"]
    some = values.size > 0
    metrics = [kind("aux/values") for kind in (Mean, Sum, Count, Std)]
    mean, total, count, deviation = merged_each(metrics, batches, seed)
    check(mean, values.mean() if some else np.nan)
    check(total, values.sum() if some else np.nan)
    check(count, values.size if some else np.nan)
    check(deviation, values.std() if some else np.nan)


@for_any_seed
def test_a_weighted_mean_is_numpy_s(seed):
    batches, everything = random_batches(seed, numbers)
    if everything["weights"].size:
        expected = np.average(everything["aux/values"].mean(1), weights=everything["weights"])
        check(merged(Mean("aux/values", weights="batch/weights"), batches, seed), expected)


def test_a_deviation_by_hand():
    values = [2.0, 4.0, 4.0, 4.0, 5.0, 5.0, 7.0, 9.0]  # mean 5, squares 32
    assert value_of(Std("batch/x"), x=values) == 2.0
    assert value_of(Std("batch/x", ddof=1), x=values) == pytest.approx(np.sqrt(32 / 7), rel=1e-6)
    assert np.isnan(value_of(Std("batch/x", ddof=1), x=[3.0]))
    assert value_of(Std("batch/x"), x=[3.0]) == 0


@pytest.mark.parametrize("value", [0.1, 1e-20, -3.3e7, 1e25])
def test_equal_values_deviate_by_exactly_nothing(value):
    std = Std("batch/x")
    states = [std.state_from(context_of({"x": np.full(n, value, np.float32)})) for n in (3, 7)]
    assert float(std.compute(std.merge(std.merge(*states), std.empty()))) == 0


def test_a_deviation_is_right_far_from_zero_where_sums_of_squares_are_not():
    values = np.random.default_rng(0).normal(1e4, 1, 512).astype(np.float32)
    std, state = compiled(Std("batch/x")), Std("batch/x").empty()
    for part in values.reshape(128, 4):
        state = std.merge(state, std.state_from({"x": part}))
    exact = values.astype(np.float64).std()
    assert float(std.compute(state)) == pytest.approx(exact, rel=1e-6)
    squares = np.float32((values**2).mean()) - np.float32(values.mean()) ** 2
    assert abs(np.sqrt(max(squares, 0)) - exact) > 0.1 * exact


def test_a_mean_over_a_long_run_does_not_drift():
    mean = Mean("batch/x")
    state = mean.state_from(context_of({"x": np.full(4, 0.1, np.float32)}))
    run = jax.jit(lambda s: jax.lax.fori_loop(0, 100_000, lambda _, a: mean.merge(a, state), s))
    assert float(mean.compute(run(mean.empty()))) == np.float32(0.1)


# --- masks ------------------------------------------------------------------------------------------


def test_the_mask_of_the_batch_applies_to_what_is_by_example():
    mask = [True, False, True]
    for path in ("batch/x", "aux/x"):
        assert value_of(Mean(path), **{path.removeprefix("batch/"): [1.0, 9.0, 3.0], "mask": mask}) == 2
        assert (
            value_of(Mean(path, mask=None), **{path.removeprefix("batch/"): [1.0, 9.0, 2.0], "mask": mask})
            == 4
        )
    assert value_of(Mean("preds"), preds=[1.0, np.nan, 3.0], mask=mask) == 2
    assert value_of(Mean("preds", mask=None), preds=[1.0, 10.0, 4.0], mask=mask) == 5


def test_the_mask_of_the_batch_does_not_apply_to_scalars_nor_to_gradients():
    mask = jnp.array([True, False])
    context = Context(
        step=0,
        batch={"mask": mask},
        aux={"x": jnp.float32(3)},
        loss_total=jnp.float32(2),
        grads={"w": jnp.ones(3)},
    )
    for path, value in (("aux/x", 3), ("loss_total", 2), ("grads/w", 1)):
        assert float(Mean(path).compute(Mean(path).state_from(context))) == value


def test_a_mask_of_the_batch_that_does_not_line_up_is_an_error_that_says_how_to_count_all():
    expected = (
        r"^The mask batch/mask is bool\[2\] and aux/values is float32\[3\]; expected a mask with the first"
        r" axes of what it is for, with the same sizes: nothing is broadcast\. Pass mask=None to count all\."
    )
    with pytest.raises(ToolshedError, match=expected):
        value_of(Mean("aux/values"), **{"aux/values": [1.0, 2.0, 3.0], "mask": [True, False]})
    assert (
        value_of(Mean("aux/values", mask=None), **{"aux/values": [1.0, 2.0, 3.0], "mask": [True, False]}) == 2
    )


def test_weights_that_do_not_line_up_are_an_error():
    with pytest.raises(
        ToolshedError, match=r"^The weights batch/w is float32\[1\] and batch/x is float32\[2\]"
    ):
        value_of(Mean("batch/x", weights="batch/w"), x=[1.0, 2.0], w=[1.0])


def test_a_weight_that_does_not_count_may_be_anything():
    mean = Mean("batch/x", weights="batch/w")
    assert value_of(mean, x=[1.0, 5.0], w=[2.0, np.nan], mask=[True, False]) == 1
    assert np.isnan(value_of(mean, x=[1.0, 5.0], w=[2.0, np.nan]))
    assert np.isnan(value_of(mean, x=[1.0, 5.0], w=[0.0, 0.0]))


# --- named arrays -----------------------------------------------------------------------------------


def test_named_arrays_have_their_batch_first_or_say_that_they_have_no_order():
    values = np.arange(6.0, dtype=np.float32).reshape(2, 3)
    mask = jnp.array([True, False])

    def mean_of(array, mask_path="batch/mask"):
        metric = Mean("preds", mask=mask_path)
        return float(metric.compute(metric.state_from(Context(step=0, batch={"mask": mask}, preds=array))))

    assert mean_of(pz.nx.wrap(jnp.asarray(values))) == 1
    assert mean_of(pz.nx.wrap(jnp.asarray(values)).tag_prefix("batch")) == 1
    assert mean_of(pz.nx.wrap(jnp.asarray(values.T), "features", "batch").untag("features")) == 1
    named = pz.nx.wrap(jnp.asarray(values), "batch", "features")
    assert mean_of(named, None) == 2.5  # no order is needed
    expected = (
        r"^preds is float32\[batch:2,features:3\], with named axes; a metric needs to know their order\. Give"
        r" them one where the value is made: value\.untag\('batch', 'features'\)\.unwrap\(\)\.$"
    )
    with pytest.raises(ToolshedError, match=expected):
        mean_of(named)


def test_what_is_no_array_is_an_error_that_names_its_path():
    with pytest.raises(ToolshedError, match=r"^aux is dict; expected an array of numbers\."):
        Mean("aux").state_from(Context(step=0, batch={}, aux={"x": jnp.ones(2)}))


# --- loss -------------------------------------------------------------------------------------------


def loss_context(loss: float, **batch: object) -> Context:
    return Context(
        step=0,
        batch={name: jnp.asarray(value) for name, value in batch.items()},
        loss_total=jnp.float32(loss),
    )


def test_a_loss_weighs_each_batch_by_its_real_examples():
    # Batches of four, of one, and of four with one real: (4 · 1 + 1 · 7 + 1 · 13) / 6 = 4.
    contexts = [
        loss_context(1.0, x=np.ones(4)),
        loss_context(7.0, x=np.ones(1)),
        loss_context(13.0, x=np.ones(4), mask=[True, False, False, False]),
    ]
    metrics = collection(loss=Loss(), steps=Mean("loss_total"))
    for context in contexts:
        metrics = metrics.update(context)
    assert metrics.compute() == {"loss": 4.0, "steps": 7.0}


def test_the_loss_of_padding_alone_stays_out():
    loss = Loss()
    padding = loss.state_from(loss_context(np.nan, x=np.ones(2), mask=[False, False]))
    assert np.isnan(loss.compute(padding))
    assert np.isnan(loss.compute(loss.empty()))
    real = loss.state_from(loss_context(3.0, x=np.ones(2), mask=[True, False]))
    assert float(loss.compute(loss.merge(padding, real))) == 3.0
    named = Context(
        step=0, batch={"x": pz.nx.wrap(jnp.ones((2, 3))).tag_prefix("batch")}, loss_total=jnp.float32(2)
    )
    assert float(loss.compute(loss.state_from(named))) == 2.0
