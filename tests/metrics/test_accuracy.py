"""Accuracy against scikit-learn: largest score, top k, by a threshold, weighted."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import accuracy_score, top_k_accuracy_score

from tests.metrics.merging import Arrays, check, for_any_seed, merged, merged_each, random_batches, value_of
from toolshed.errors import ToolshedError
from toolshed.metrics import Accuracy

CLASSES = 5


def scored(rng: np.random.Generator, n: int) -> Arrays:
    return {
        "preds": rng.normal(size=(n, CLASSES)).astype(np.float32),
        "label": rng.integers(0, CLASSES, n),
        "weights": rng.random(n).astype(np.float32),
    }


def two_classes(rng: np.random.Generator, n: int) -> Arrays:
    return {"preds": rng.random(n).astype(np.float32), "label": rng.integers(0, 2, n)}


@for_any_seed
def test_accuracy_of_merged_batches_is_scikit_learn_s(seed):
    batches, whole = random_batches(seed, scored)
    labels, scores, weights = whole["label"], whole["preds"], whole["weights"]
    some = len(labels) > 0
    right = scores.argmax(-1)
    metrics = Accuracy(), Accuracy(top_k=2), Accuracy(weights="batch/weights")
    plain, top, weighted = merged_each(metrics, batches, seed)
    check(plain, accuracy_score(labels, right) if some else np.nan)
    check(top, top_k_accuracy_score(labels, scores, k=2, labels=range(CLASSES)) if some else np.nan)
    if some:
        check(weighted, accuracy_score(labels, right, sample_weight=weights))


@for_any_seed
def test_accuracy_by_a_threshold_is_scikit_learn_s(seed):
    batches, whole = random_batches(seed, two_classes)
    expected = accuracy_score(whole["label"], whole["preds"] > 0.3) if len(whole["label"]) else np.nan
    check(merged(Accuracy(threshold=0.3), batches, seed), expected)


def test_among_equal_scores_the_lower_class_comes_first():
    scores = [[1.0, 1.0, 1.0]] * 3
    assert value_of(Accuracy(), preds=scores, label=[0, 1, 2]) == pytest.approx(1 / 3)
    assert value_of(Accuracy(top_k=2), preds=scores, label=[0, 1, 2]) == pytest.approx(2 / 3)
    assert value_of(Accuracy(top_k=3), preds=scores, label=[0, 1, 2]) == 1
    # A top k of 1 by the general rule is the largest score.
    tied = np.random.default_rng(0).integers(0, 3, (50, 4)).astype(np.float32)
    from toolshed.metrics.accuracy import in_top

    labels = np.random.default_rng(1).integers(0, 4, 50)
    np.testing.assert_array_equal(in_top(tied, labels, 1), tied.argmax(-1) == labels)


def test_a_target_that_is_no_class_is_never_right():
    for top_k in (1, 3):
        assert value_of(Accuracy(top_k=top_k), preds=[[1.0, 2.0, 3.0]] * 2, label=[-1, 3]) == 0


def test_a_threshold_is_for_the_scores_as_they_come():
    assert value_of(Accuracy(threshold=0.0), preds=[-1.0, 2.0, 0.0], label=[0, 1, 0]) == 1
    assert value_of(
        Accuracy(threshold=0.5), preds=[0.4, 0.6, 0.5], label=[True, True, True]
    ) == pytest.approx(1 / 3)


def test_tokens_are_masked_by_example_or_one_by_one():
    scores = np.eye(3, dtype=np.float32)[[[0, 1], [2, 2]]]  # predicts 0 1 and 2 2
    labels = [[0, 0], [2, 1]]
    assert value_of(Accuracy(), preds=scores, label=labels) == 0.5
    assert value_of(Accuracy(), preds=scores, label=labels, mask=[[1, 0], [1, 0]]) == 1
    assert value_of(Accuracy(), preds=scores, label=labels, mask=[True, False]) == 0.5


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"top_k": 0}, r"^Accuracy with top_k=0 and threshold=None; expected top_k from 1"),
        (
            {"top_k": 2, "threshold": 0.5},
            r"^Accuracy with top_k=2 and threshold=0\.5; expected top_k from 1, and 1",
        ),
    ],
)
def test_options_that_exclude_each_other_are_an_error(options, message):
    with pytest.raises(ToolshedError, match=message):
        Accuracy(**options)


def test_scores_for_two_classes_need_a_threshold_and_the_targets_shape():
    with pytest.raises(
        ToolshedError, match=r"^preds is float32\[2,1\] and batch/label is int32\[2\]; expected the same"
    ):
        value_of(Accuracy(threshold=0.5), preds=[[0.1], [0.9]], label=[0, 1])
    with pytest.raises(ToolshedError, match="one more axis than the targets"):
        value_of(Accuracy(), preds=[0.1, 0.9], label=[0, 1])
