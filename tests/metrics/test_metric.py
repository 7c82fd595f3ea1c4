"""What all metrics share: masks, shapes and paths; shown on means and accuracies by hand."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest

from tests.training.by_hand import differing
from toolshed import Context
from toolshed.errors import ContextKeyError, FieldNotFilled, ToolshedError
from toolshed.metrics import Accuracy, Mean, Metric, Sum

MEAN = Mean("aux/values", mask="batch/mask")
ACCURACY = Accuracy(mask="batch/mask")


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
    assert value_of(Mean("aux/values"), context_of(values=values)) == 1
    assert value_of(Sum("aux/values"), context_of(values=values)) == 4096


# --- merging -----------------------------------------------------------------------------------------


def test_the_mean_of_uneven_batches_is_not_the_mean_of_their_means():
    # Five ones in batches of four and one, and a padded zero: (4 · 1 + 1 · 1) / 5 = 1, not 0.625.
    full = MEAN.state_from(context_of(values=[1.0] * 4, mask=[True] * 4))
    padded = MEAN.state_from(context_of(values=[1.0, 0.0, 0.0, 0.0], mask=[True, False, False, False]))
    assert float(MEAN.compute(MEAN.merge(full, padded))) == 1.0
    unmasked = Mean("aux/values", mask=None).state_from(context_of(values=[1.0, 0.0, 0.0, 0.0]))
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
            r"^The mask batch/mask is bool\[2\] and aux/values is float32\[3,3\]; expected a mask",
        ),
        (
            np.ones((2, 3)),
            np.ones(3, bool),
            r"^The mask batch/mask is bool\[3\] and aux/values is float32\[2,3\]",
        ),
        (
            np.ones(3),
            np.ones((3, 1), bool),
            r"^The mask batch/mask is bool\[3,1\] and aux/values is float32\[3\]",
        ),
        (np.ones(3), np.ones(1, bool), r"^The mask batch/mask is bool\[1\] and aux/values is float32\[3\]"),
        (np.float32(1), np.ones(1, bool), r"^The mask batch/mask is bool\[1\] and aux/values is float32\[\]"),
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
