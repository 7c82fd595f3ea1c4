"""Metrics are sums over counts that merge in any order, and count nothing that is masked."""

from __future__ import annotations

from typing import Any

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from tests.training.by_hand import differing
from toolshed import Context
from toolshed.errors import ContextKeyError, FieldNotFilled, ToolshedError
from toolshed.metrics import Accuracy, Mean, Metric, collection

MEAN = Mean("aux/values", mask="batch/mask")
ACCURACY = Accuracy(mask="batch/mask")

# Sums over few values: hypothesis may choose them freely where float32 holds every sum exactly.
whole = st.integers(-100, 100)


def context_of(mask: Any = None, values: Any = None, preds: Any = None, label: Any = None) -> Context:
    batch = {"label": label, "mask": mask}
    fields = {} if preds is None else {"preds": jnp.asarray(preds)}
    return Context(
        step=0,
        batch={name: jnp.asarray(entry) for name, entry in batch.items() if entry is not None},
        aux={} if values is None else {"values": jnp.asarray(values)},
        **fields,
    )


def value_of(metric: Metric, context: Context) -> float:
    return float(metric.compute(metric.state_from(context)))


# --- by hand ----------------------------------------------------------------------------------------


def test_a_mean_by_hand():
    assert value_of(Mean("aux/values"), context_of(values=[1.0, 2.0, 6.0])) == 3.0
    assert value_of(MEAN, context_of(values=[1.0, 2.0, 6.0], mask=[True, False, True])) == 3.5
    assert value_of(Mean("aux/values"), context_of(values=4.0)) == 4.0


def test_an_accuracy_by_hand():
    # Largest scores at classes 1, 0, 2, 1; the labels are 1, 2, 2, 0: two of four are right.
    scores = [[0.1, 0.9, 0.0], [3.0, 1.0, 2.0], [-3.0, -2.0, -1.0], [0.0, 5.0, 0.0]]
    assert value_of(Accuracy(), context_of(preds=scores, label=[1, 2, 2, 0])) == 0.5
    masked = context_of(preds=scores, label=[1, 2, 2, 0], mask=[True, False, True, False])
    assert value_of(ACCURACY, masked) == 1.0
    # One of the paths may be another: the same scores against the labels of another entry.
    elsewhere = Context(step=0, batch={"digit": jnp.array([1, 0, 2, 1])}, aux={"scores": jnp.array(scores)})
    assert value_of(Accuracy("aux/scores", "batch/digit"), elsewhere) == 1.0


def test_a_mask_of_the_first_axes_masks_what_lies_below():
    values = np.arange(12.0).reshape(2, 3, 2)
    context = context_of(values=values, mask=[True, False])
    assert value_of(MEAN, context) == values[0].mean() == 2.5
    context = context_of(values=values, mask=[[True, False, False], [False, False, True]])
    assert value_of(MEAN, context) == (0 + 1 + 10 + 11) / 4


@pytest.mark.parametrize("mask", [[1, 0, 1], [1.0, 0.0, 0.5], [2, 0, -1]])
def test_a_mask_of_numbers_counts_what_is_not_zero_once(mask):
    assert value_of(MEAN, context_of(values=[1.0, 100.0, 3.0], mask=mask)) == 2.0


def test_half_precision_values_are_summed_in_float32():
    values = jnp.full(4096, 1.0, jnp.bfloat16)  # summed in bfloat16, it would end at 256
    total, count = Mean("aux/values").state_from(context_of(values=values))
    assert (float(total), float(count)) == (4096.0, 4096.0)


# --- against numpy, merged in any order -------------------------------------------------------------


def random_batches(draw: st.DataObject, *, classes: int = 0) -> list[Context]:
    contexts = []
    for n in draw.draw(st.lists(st.integers(1, 5), min_size=1, max_size=5)):
        mask = np.array(draw.draw(st.lists(st.booleans(), min_size=n, max_size=n)))
        if classes:
            scores = np.array(draw.draw(st.lists(st.permutations(range(classes)), min_size=n, max_size=n)))
            label = np.array(draw.draw(st.lists(st.integers(0, classes - 1), min_size=n, max_size=n)))
            contexts.append(context_of(mask, preds=scores.astype(np.float32), label=label))
        else:
            values = np.array(draw.draw(st.lists(whole, min_size=n, max_size=n)), np.float32)
            contexts.append(context_of(mask, values=values))
    return contexts


def merged_in_a_random_order(draw: st.DataObject, metric: Metric, contexts: list[Context]) -> float:
    """Merges two states at a time, chosen freely, empty ones among them, until one is left."""
    states = [metric.state_from(context) for context in contexts]
    states.insert(draw.draw(st.integers(0, len(states))), metric.empty())
    while len(states) > 1:
        a = states.pop(draw.draw(st.integers(0, len(states) - 1)))
        b = states.pop(draw.draw(st.integers(0, len(states) - 1)))
        states.append(metric.merge(a, b))
    return float(metric.compute(states[0]))


def check(value: float, expected: np.ndarray) -> None:
    if len(expected):
        assert value == pytest.approx(expected.mean(), rel=1e-6)
    else:
        assert np.isnan(value)


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_a_mean_of_masked_batches_in_any_order_is_numpy_s_over_all_at_once(draw):
    contexts = random_batches(draw)
    values = np.concatenate([np.asarray(context["aux/values"]) for context in contexts])
    mask = np.concatenate([np.asarray(context["batch/mask"]) for context in contexts])
    check(merged_in_a_random_order(draw, MEAN, contexts), values[mask])


@settings(deadline=None, max_examples=50)
@given(st.data())
def test_an_accuracy_of_masked_batches_in_any_order_is_numpy_s_over_all_at_once(draw):
    contexts = random_batches(draw, classes=4)
    scores = np.concatenate([np.asarray(context.preds) for context in contexts])
    labels = np.concatenate([np.asarray(context["batch/label"]) for context in contexts])
    mask = np.concatenate([np.asarray(context["batch/mask"]) for context in contexts])
    check(merged_in_a_random_order(draw, ACCURACY, contexts), (scores.argmax(-1) == labels)[mask])


def test_the_mean_of_uneven_batches_is_not_the_mean_of_their_means():
    # Five ones in batches of four and one, and a padded zero: (4 · 1 + 1 · 1) / 5 = 1, not 0.625.
    full = MEAN.state_from(context_of(values=[1.0] * 4, mask=[True] * 4))
    padded = MEAN.state_from(context_of(values=[1.0, 0.0, 0.0, 0.0], mask=[True, False, False, False]))
    assert float(MEAN.compute(MEAN.merge(full, padded))) == 1.0
    unmasked = Mean("aux/values").state_from(context_of(values=[1.0, 0.0, 0.0, 0.0]))
    assert float(MEAN.compute(MEAN.merge(full, unmasked))) == 0.625


# --- what is not a number, and what is not there ----------------------------------------------------


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_a_masked_value_that_is_not_finite_stays_out_and_one_that_counts_does_not(bad):
    assert value_of(MEAN, context_of(values=[1.0, bad, 3.0], mask=[True, False, True])) == 2.0
    assert not np.isfinite(value_of(MEAN, context_of(values=[1.0, bad, 3.0], mask=[True] * 3)))


@pytest.mark.parametrize("metric", [MEAN, ACCURACY])
def test_an_empty_metric_is_nan_and_merges_to_what_the_other_is(metric):
    empty = metric.empty()
    assert np.isnan(metric.compute(empty))
    assert np.isnan(metric.compute(metric.merge(empty, metric.empty())))
    state = metric.state_from(context_of([True], [2.0], [[0.0, 1.0]], [1]))
    for merged in (metric.merge(empty, state), metric.merge(state, empty)):
        assert differing(merged, state) == []


def test_a_batch_of_padding_alone_is_nan_and_adds_nothing():
    padding = MEAN.state_from(context_of(values=[np.nan, 7.0], mask=[False, False]))
    assert np.isnan(MEAN.compute(padding))
    state = MEAN.state_from(context_of(values=[5.0], mask=[True]))
    assert float(MEAN.compute(MEAN.merge(padding, state))) == 5.0


@pytest.mark.parametrize(
    ("values", "mask", "message"),
    [
        # (b,) against (b, b) would broadcast silently along the wrong axis in numpy.
        (
            np.ones((3, 3)),
            np.ones(2, bool),
            r"^The mask is bool\[2\] and aux/values is float32\[3,3\]: a mask",
        ),
        (np.ones((2, 3)), np.ones(3, bool), r"^The mask is bool\[3\] and aux/values is float32\[2,3\]"),
        (np.ones(3), np.ones((3, 1), bool), r"^The mask is bool\[3,1\] and aux/values is float32\[3\]"),
        (np.ones(3), np.ones(1, bool), r"^The mask is bool\[1\] and aux/values is float32\[3\]"),
        (np.float32(1), np.ones(1, bool), r"^The mask is bool\[1\] and aux/values is float32\[\]"),
    ],
)
def test_a_mask_that_does_not_line_up_is_an_error(values, mask, message):
    with pytest.raises(ToolshedError, match=message):
        MEAN.state_from(context_of(mask, values))


@pytest.mark.parametrize(
    ("scores", "labels", "message"),
    [
        (np.ones((4, 3)), np.zeros(3, int), r"^preds is float32\[4,3\].*batch/label is int32\[3\]; expected"),
        (np.ones(4), np.zeros(4, int), r"^preds is float32\[4\].*batch/label is int32\[4\]; expected"),
        (
            np.ones((4, 3)),
            np.zeros((4, 3), int),
            r"one more axis than the targets, the last one over classes",
        ),
        (np.ones((4, 3)), np.zeros((4, 1), int), r"one more axis than the targets"),
    ],
)
def test_predictions_and_targets_that_do_not_line_up_are_an_error(scores, labels, message):
    with pytest.raises(ToolshedError, match=message):
        Accuracy().state_from(context_of(preds=scores, label=labels))


def test_a_path_that_is_not_there_is_an_error_that_names_the_nearest():
    with pytest.raises(ContextKeyError, match="Did you mean 'aux/values'"):
        Mean("aux/value").state_from(context_of(values=[1.0]))
    with pytest.raises(FieldNotFilled, match=r"Context\.preds; let the loss function return aux=\{'preds'"):
        Accuracy().state_from(context_of(label=[1]))


# --- collections ------------------------------------------------------------------------------------


def test_a_collection_gathers_each_metric_by_its_name():
    metrics = collection(first=Mean("aux/values"), second=MEAN)
    assert list(metrics.compute()) == ["first", "second"]
    assert all(np.isnan(value) for value in metrics.compute().values())
    metrics = metrics.update(context_of([True, False], [1.0, 3.0]))
    metrics = metrics.update(context_of([True, True], [5.0, 7.0]))
    assert metrics.compute() == {"first": 4.0, "second": pytest.approx(13 / 3)}
    assert all(isinstance(value, float) for value in metrics.compute().values())


def test_a_collection_is_a_value():
    empty = collection(mean=Mean("aux/values"))
    one, two = (empty.update(context_of(values=[value])) for value in (1.0, 2.0))
    assert np.isnan(empty.compute()["mean"])
    assert (one.compute(), two.compute()) == ({"mean": 1.0}, {"mean": 2.0})
    assert one.merge(two).compute() == two.merge(one).compute() == {"mean": 1.5}
    assert np.isnan(one.reset().compute()["mean"])
    assert one.compute() == {"mean": 1.0}


def test_states_of_several_steps_merge_into_what_the_steps_one_by_one_give():
    contexts = [context_of([True, False], [float(i), 9.0]) for i in range(5)]
    metrics = one_by_one = collection(mean=MEAN)
    for context in contexts:
        one_by_one = one_by_one.update(context)
        metrics = metrics.merge_states(metrics.states_from(context))
    assert metrics.compute() == one_by_one.compute() == {"mean": 2.0}


def test_a_collection_goes_through_jax_and_keeps_its_metrics():
    metrics = collection(mean=Mean("aux/values"))

    @jax.jit
    def gather(metrics, values):
        return metrics.update(Context(step=0, batch={}, aux={"values": values}))

    gathered = gather(gather(metrics, jnp.ones(3)), 4 * jnp.ones(1))
    assert gathered.definition is metrics.definition
    assert gathered.compute() == {"mean": 1.75}
    leaves, treedef = jax.tree.flatten(gathered)
    assert jax.tree.unflatten(treedef, leaves).compute() == {"mean": 1.75}


def test_a_metric_of_one_s_own_needs_four_methods_and_nothing_else():
    class Largest:
        def empty(self) -> Any:
            return jnp.array(-jnp.inf)

        def state_from(self, context: Any) -> Any:
            return context["aux/values"].max()

        def merge(self, a: Any, b: Any) -> Any:
            return jnp.maximum(a, b)

        def compute(self, state: Any) -> Any:
            return state

    metrics = collection(largest=Largest())
    for values in ([1.0, 5.0], [4.0], [-2.0]):
        metrics = metrics.update(context_of(values=values))
    assert metrics.compute() == {"largest": 5.0}
    assert isinstance(Largest(), Metric)


def test_metrics_of_one_kind_are_equal_by_their_paths():
    assert Mean("a") == Mean("a") != Mean("a", mask="b")
    assert hash(Accuracy()) == hash(Accuracy())
    assert repr(collection(mean=MEAN).definition) == "mean=Mean(values='aux/values', mask='batch/mask')"
