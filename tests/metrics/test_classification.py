"""Precision, recall, F, IoU and Dice by class against scikit-learn."""

from __future__ import annotations

from typing import Any

import jax.numpy as jnp
import numpy as np
import pytest
from sklearn.metrics import fbeta_score, jaccard_score, precision_score, recall_score

from tests.metrics.merging import Arrays, check, for_any_seed, merged_each, random_batches, value_of
from toolshed.errors import ToolshedError
from toolshed.metrics import Dice, FBeta, IoU, Precision, Recall
from toolshed.metrics.classification import tally

CLASSES = 4


def reference_of(metric: Any) -> Any:
    by_kind = {
        Precision: precision_score,
        Recall: recall_score,
        IoU: jaccard_score,
        Dice: lambda *a, **k: fbeta_score(*a, beta=1, **k),
        FBeta: lambda *a, **k: fbeta_score(*a, beta=metric.beta, **k),
    }
    return by_kind[type(metric)]


def scored(rng: np.random.Generator, n: int) -> Arrays:
    """Some classes are rare: never predicted, never true, or both."""
    few = int(rng.integers(1, CLASSES + 1))
    scores = rng.normal(size=(n, CLASSES)).astype(np.float32)
    scores[:, int(rng.integers(1, CLASSES + 1)) :] -= 10
    return {"preds": scores, "label": rng.integers(0, few, n)}


def two_classes(rng: np.random.Generator, n: int) -> Arrays:
    return {"preds": rng.random(n).astype(np.float32), "label": rng.integers(0, 2, n)}


KINDS = [
    (Precision, {}),
    (Recall, {}),
    (FBeta, {}),
    (FBeta, {"beta": 0.5}),
    (IoU, {}),
    (Dice, {}),
]


@pytest.mark.parametrize(("kind", "options"), KINDS)
@for_any_seed
def test_values_by_class_and_their_means_are_scikit_learn_s(kind, options, seed):
    batches, whole = random_batches(seed, scored)
    labels, predicted = whole["label"], whole["preds"].argmax(-1)
    averages = ("macro", "micro", "weighted", None)
    metrics = [kind(average=average, classes=CLASSES, **options) for average in averages]
    for metric, value in zip(metrics, merged_each(metrics, batches, seed), strict=True):
        average = metric.average
        if not len(labels):
            assert np.isnan(value).all()
            continue
        named = {"labels": range(CLASSES)} if average is None else {}  # means are over the classes seen
        expected = reference_of(metric)(labels, predicted, average=average, zero_division=0, **named)
        if average is None:
            expected = np.where(np.isin(range(CLASSES), [*labels, *predicted]), expected, np.nan)
        check(value, expected)


@for_any_seed
def test_values_of_the_positive_class_are_scikit_learn_s(seed):
    batches, whole = random_batches(seed, two_classes)
    labels, predicted = whole["label"], whole["preds"] > 0.4
    metrics = [kind(average="binary", threshold=0.4, **options) for kind, options in KINDS]
    seen = labels.any() or predicted.any()
    for metric, value in zip(metrics, merged_each(metrics, batches, seed), strict=True):
        check(value, reference_of(metric)(labels, predicted, zero_division=0) if seen else np.nan)


def test_by_hand():
    # Predicted 0 0 1 1 and true 0 1 1 2: class 0 has 1 of 2 and 1 of 1, class 1 has 1 of 2 and 1 of 2,
    # class 2 was never predicted, class 3 never seen.
    data = {"preds": np.array([0, 0, 1, 1]), "label": [0, 1, 1, 2]}
    np.testing.assert_array_equal(value_of(Precision(average=None, classes=4), **data), [0.5, 0.5, 0, np.nan])
    np.testing.assert_array_equal(value_of(Recall(average=None, classes=4), **data), [1, 0.5, 0, np.nan])
    np.testing.assert_allclose(value_of(IoU(average=None, classes=4), **data), [1 / 2, 1 / 3, 0, np.nan])
    np.testing.assert_allclose(value_of(Dice(average=None, classes=4), **data), [2 / 3, 1 / 2, 0, np.nan])
    assert value_of(Precision(classes=4), **data) == pytest.approx(1 / 3)
    assert value_of(Recall(classes=4, average="micro"), **data) == 0.5


def test_segmentation_is_counted_over_all_pixels():
    # Two images of 2 x 2 pixels. Class 1: 1 pixel in both, 4 in either.
    predicted, true = [[[1, 1], [0, 0]], [[1, 0], [0, 0]]], [[[1, 0], [0, 0]], [[0, 0], [0, 1]]]
    scores = np.eye(2, dtype=np.float32)[np.array(predicted)]
    assert value_of(IoU(average=None, classes=2), preds=scores, label=true)[1] == 0.25
    assert value_of(Dice(average=None, classes=2), preds=scores, label=true)[1] == pytest.approx(2 / 5)
    first = {"preds": scores, "label": true, "mask": [True, False]}
    assert value_of(IoU(average=None, classes=2), **first)[1] == 0.5


@pytest.mark.parametrize("average", ["macro", "micro", None])
def test_a_class_out_of_range_is_not_left_out_silently(average):
    metric = Recall(average=average, classes=2)
    scores = np.eye(2, dtype=np.float32)
    assert np.isnan(value_of(metric, preds=scores, label=[0, 2])).all()
    assert np.isnan(value_of(metric, preds=scores, label=[0, -1])).all()
    assert (value_of(metric, preds=scores, label=[0, -1], mask=[True, False]) > 0).any()


@pytest.mark.parametrize("size", [5, 3000])  # compared with each number, and added one by one
def test_numbers_are_tallied_row_by_row(size):
    rng = np.random.default_rng(0)
    index, mask = rng.integers(0, size, (2, 40)).astype(np.int32), rng.random((2, 40)) < 0.5
    expected = [np.bincount(row[keep], minlength=size) for row, keep in zip(index, mask, strict=True)]
    np.testing.assert_array_equal(tally(jnp.asarray(index), jnp.asarray(mask), size)[0], expected)
    index[0, ~mask[0]], index[1, ~mask[1]] = -1, size
    np.testing.assert_array_equal(tally(jnp.asarray(index), jnp.asarray(mask), size)[0], expected)
    for wrong in (-1, size):
        index[0, np.flatnonzero(mask[0])[0]] = wrong
        assert np.isnan(tally(jnp.asarray(index), jnp.asarray(mask), size)).all()


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (
            lambda: Precision(),
            r"^Precision needs the number of classes for the size of its state: Precision\(classes=…\)",
        ),
        (
            lambda: Recall(average="mean", classes=2),
            r"^Recall with average='mean'; expected one of 'binary', 'macro'",
        ),
    ],
)
def test_options_that_cannot_be_are_an_error(make, message):
    with pytest.raises(ToolshedError, match=message):
        make()


def test_scores_that_do_not_fit_are_an_error():
    with pytest.raises(
        ToolshedError,
        match=r"^preds is float32\[2,3\]: scores of 3 classes; the metric is for 2\. Set classes=3",
    ):
        value_of(Recall(classes=2), preds=np.ones((2, 3), np.float32), label=[0, 1])
    with pytest.raises(ToolshedError, match=r"^batch/label is float32\[2\]; expected classes as integers\."):
        value_of(Recall(classes=3), preds=np.ones((2, 3), np.float32), label=[0.0, 1.0])
    with pytest.raises(ToolshedError, match="the same shape"):
        value_of(Recall(average="binary"), preds=[[0.5], [0.6]], label=[0, 1])
