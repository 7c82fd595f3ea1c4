"""Cross-entropies, divergence and perplexity against scikit-learn and scipy."""

from __future__ import annotations

import numpy as np
import pytest
from scipy.special import expit, log_softmax, rel_entr, softmax
from sklearn.metrics import log_loss

from tests.metrics.merging import Arrays, check, for_any_seed, merged, merged_each, random_batches, value_of
from toolshed.errors import ToolshedError
from toolshed.metrics import BinaryCrossEntropy, CrossEntropy, KLDivergence, Perplexity

CLASSES = 5


def scored(rng: np.random.Generator, n: int) -> Arrays:
    return {
        "preds": rng.normal(0, 3, (n, CLASSES)).astype(np.float32),
        "label": rng.integers(0, CLASSES, n),
        "target": softmax(rng.normal(0, 3, (n, CLASSES)), axis=-1).astype(np.float32),
        "weights": rng.random(n).astype(np.float32),
    }


def two_classes(rng: np.random.Generator, n: int) -> Arrays:
    logits = rng.normal(0, 4, n).astype(np.float32)
    return {"preds": logits, "aux/p": expit(logits), "label": rng.integers(0, 2, n)}


@for_any_seed
def test_cross_entropy_and_perplexity_are_scikit_learn_s(seed):
    batches, whole = random_batches(seed, scored)
    labels, p = whole["label"], softmax(whole["preds"], axis=-1)
    metrics = CrossEntropy(), Perplexity(), CrossEntropy(weights="batch/weights")
    entropy, perplexity, weighted = merged_each(metrics, batches, seed)
    if not len(labels):
        assert np.isnan(entropy)
        return
    expected = log_loss(labels, p, labels=range(CLASSES))
    check(entropy, expected)
    check(perplexity, np.exp(expected))
    check(weighted, log_loss(labels, p, labels=range(CLASSES), sample_weight=whole["weights"]))


@for_any_seed
def test_the_cross_entropy_of_two_classes_is_scikit_learn_s(seed):
    batches, whole = random_batches(seed, two_classes)
    labels = whole["label"]
    metrics = BinaryCrossEntropy(), BinaryCrossEntropy("aux/p", from_logits=False)
    of_logits, of_p = merged_each(metrics, batches, seed)
    if not len(labels):
        assert np.isnan(of_logits)
        return
    check(of_logits, log_loss(labels, expit(whole["preds"]), labels=[0, 1]))
    # log_loss wants p and 1 - p to add up to 1 in float64.
    p = np.stack([1 - whole["aux/p"], whole["aux/p"]], axis=1)
    check(of_p, log_loss(labels, p, labels=[0, 1]))


@for_any_seed
def test_divergence_is_scipy_s(seed):
    batches, whole = random_batches(seed, scored)
    terms = rel_entr(whole["target"], np.exp(log_softmax(whole["preds"], axis=-1))).sum(-1)
    check(merged(KLDivergence(targets="batch/target"), batches, seed), terms.mean() if len(terms) else np.nan)


def test_by_hand():
    # Equal logits over four classes: log 4, and a model undecided among four.
    data = {"preds": np.zeros((3, 4), np.float32), "label": [0, 3, 1]}
    assert value_of(CrossEntropy(), **data) == pytest.approx(np.log(4))
    assert value_of(Perplexity(), **data) == pytest.approx(4)
    assert value_of(BinaryCrossEntropy(), preds=[0.0, 0.0], label=[0, 1]) == pytest.approx(np.log(2))
    certain = {"preds": np.zeros((1, 2), np.float32), "label": [[1.0, 0.0]]}
    assert value_of(KLDivergence(), **certain) == pytest.approx(np.log(2))
    with_zero = {"preds": [[0.0, -np.inf]], "label": [[1.0, 0.0]]}
    assert value_of(KLDivergence(), **with_zero) == 0


def test_large_logits_neither_overflow_nor_lose_the_loss():
    assert value_of(CrossEntropy(), preds=[[1e4, 0.0]], label=[1]) == pytest.approx(1e4)
    assert value_of(BinaryCrossEntropy(), preds=[1e4, -1e4], label=[0, 1]) == pytest.approx(1e4)


def test_a_sure_and_wrong_probability_costs_what_scikit_learn_says():
    cost = value_of(BinaryCrossEntropy(from_logits=False), preds=[0.0, 1.0], label=[1, 0])
    p = np.array([[1, 0], [0, 1]], np.float32)
    assert cost == pytest.approx(log_loss([1, 0], p), rel=1e-6) == pytest.approx(15.9424, rel=1e-5)


def test_perplexity_is_of_all_tokens_not_the_mean_of_each_batch_s():
    metric = Perplexity()
    from tests.metrics.merging import context_of

    logits = [[np.log([0.5, 0.5])], [np.log([0.125, 0.875])]]
    states = [
        metric.state_from(context_of({"preds": np.float32(row), "label": np.array([0])})) for row in logits
    ]
    assert float(metric.compute(metric.merge(*states))) == pytest.approx(4)  # exp of log 2 and log 8, halved


def test_a_class_out_of_range_is_not_taken_from_the_other_end():
    assert np.isnan(value_of(CrossEntropy(), preds=[[0.0, 1.0]] * 2, label=[0, -1]))
    assert np.isnan(value_of(CrossEntropy(), preds=[[0.0, 1.0]] * 2, label=[0, 2]))
    masked = value_of(CrossEntropy(), preds=[[0.0, 0.0]] * 2, label=[0, -1], mask=[True, False])
    assert masked == pytest.approx(np.log(2))


def test_a_divergence_is_masked_by_distribution_not_by_class():
    with pytest.raises(
        ToolshedError, match=r"^The mask batch/mask is bool\[2,2\] and .*a mask with at most 1 of the first"
    ):
        value_of(
            KLDivergence(), preds=np.zeros((2, 2)), label=np.ones((2, 2)) / 2, mask=np.ones((2, 2), bool)
        )
    with pytest.raises(ToolshedError, match="one more axis than the targets"):
        value_of(CrossEntropy(), preds=np.zeros((2, 2)), label=np.zeros((2, 2), int))
