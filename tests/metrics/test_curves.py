"""Areas under curves against scikit-learn, ties and capacities included."""

from __future__ import annotations

import jax
import numpy as np
import pytest
from sklearn.metrics import average_precision_score, roc_auc_score

from tests.metrics.merging import (
    Arrays,
    check,
    compiled,
    context_of,
    for_any_seed,
    merged_each,
    random_batches,
    value_of,
)
from toolshed.errors import CapacityWarning, ToolshedError
from toolshed.metrics import AUCPR, AUCROC, collection

BINS = 16


def scored(rng: np.random.Generator, n: int) -> Arrays:
    """Scores with many ties, on the middles of bins."""
    return {
        "preds": ((rng.integers(0, BINS, n) + 0.5) / BINS).astype(np.float32),
        "label": rng.integers(0, 2, n),
    }


def areas(whole: Arrays) -> tuple[float, float]:
    labels, scores = whole["label"], whole["preds"]
    roc = roc_auc_score(labels, scores) if 0 < labels.sum() < len(labels) else np.nan
    return roc, average_precision_score(labels, scores) if labels.any() else np.nan


@pytest.mark.parametrize("options", [{"capacity": 24}, {"bins": BINS}])
@for_any_seed
def test_areas_of_merged_batches_are_scikit_learn_s(options, seed):
    batches, whole = random_batches(seed, scored, sizes=(6,), most=4)  # states of few sizes
    roc, pr = areas(whole)
    for value, expected in zip(
        merged_each([AUCROC(**options), AUCPR(**options)], batches, seed), (roc, pr), strict=True
    ):
        check(value, expected)


@pytest.mark.parametrize("options", [{"capacity": 8}, {"bins": 4}])
def test_scores_that_are_all_tied_say_nothing(options):
    data = {"preds": np.full(7, 0.4, np.float32), "label": [1, 0, 0, 1, 1, 0, 0]}
    assert value_of(AUCROC(**options), **data) == 0.5
    assert value_of(AUCPR(**options), **data) == pytest.approx(3 / 7)


def test_areas_by_hand():
    # From the top: + at 0.8, - at 0.4, + at 0.35, - at 0.1. Pairs in order: 3 of 4. Precision at the
    # positives: 1/1 and 2/3.
    data = {"preds": [0.1, 0.4, 0.35, 0.8], "label": [0, 0, 1, 1]}
    assert value_of(AUCROC(capacity=4), **data) == 0.75
    assert value_of(AUCPR(capacity=4), **data) == pytest.approx((1 + 2 / 3) / 2)
    swapped = {"preds": data["preds"], "label": [1, 1, 0, 0]}
    assert value_of(AUCROC(capacity=4), **swapped) == 0.25


@pytest.mark.parametrize("scores", [[-np.inf, np.inf, 0.0, -0.0], [-5.0, 3.0, 2e30, -1e-30]])
def test_the_exact_area_takes_scores_of_any_size(scores):
    labels = [0, 1, 0, 1]
    expected = roc_auc_score(labels, np.nan_to_num(np.array(scores, np.float32), posinf=1e38, neginf=-1e38))
    assert value_of(AUCROC(capacity=9), preds=scores, label=labels) == pytest.approx(expected)


@pytest.mark.parametrize("options", [{"capacity": 8}, {"bins": 4}])
def test_what_an_area_cannot_tell_is_nan(options):
    roc, pr = AUCROC(**options), AUCPR(**options)
    assert np.isnan(roc.compute(roc.empty()))
    assert np.isnan(pr.compute(pr.empty()))
    assert np.isnan(value_of(roc, preds=[0.1, 0.2], label=[1, 1]))
    assert np.isnan(value_of(roc, preds=[0.1, 0.2], label=[0, 0]))
    assert np.isnan(value_of(pr, preds=[0.1, 0.2], label=[0, 0]))
    assert value_of(pr, preds=[0.1, 0.2], label=[1, 1]) == 1
    assert np.isnan(value_of(roc, preds=[0.1, np.nan, 0.3], label=[1, 0, 0]))
    assert value_of(roc, preds=[0.9, np.nan, 0.3], label=[1, 0, 0], mask=[True, False, True]) == 1


def test_bins_round_scores_and_take_those_beyond_the_limits():
    two = AUCROC(bins=2)
    assert value_of(two, preds=[0.1, 0.4], label=[0, 1]) == 0.5  # in one bin
    assert value_of(two, preds=[0.1, 0.6], label=[0, 1]) == 1
    assert value_of(two, preds=[-7.0, 9.0], label=[0, 1]) == 1
    logits = AUCROC(bins=100, limits=(-10.0, 10.0))
    assert value_of(logits, preds=[-3.0, 2.0, 3.0], label=[0, 1, 0]) == 0.5


def test_an_exact_state_holds_its_capacity_and_no_more():
    rng = np.random.default_rng(0)
    data = {"preds": rng.random(10).astype(np.float32), "label": rng.integers(0, 2, 10)}
    exact, small = compiled(AUCROC(capacity=10)), compiled(AUCROC(capacity=9))
    halves = [{name: value[i : i + 5] for name, value in data.items()} for i in (0, 5)]
    states = [exact.state_from(half) for half in halves]
    expected = roc_auc_score(data["label"], data["preds"])
    assert float(exact.compute(exact.merge(*states))) == pytest.approx(expected)
    assert np.isnan(small.compute(small.merge(*states)))
    assert float(small.metric.seen(small.merge(*states))) == 10


def test_a_collection_warns_of_more_examples_than_the_capacity():
    data = context_of({"preds": np.linspace(0, 1, 4), "label": np.array([0, 0, 1, 1])})
    update = jax.jit(lambda metrics: metrics.update(data))
    metrics = update(collection(auc=AUCROC(capacity=6)))
    assert metrics.compute() == {"auc": 1.0}
    metrics = update(metrics)
    expected = (
        r"^The metric 'auc' has seen 8 examples and holds 6: its value is NaN\. Set capacity=8 or more, or"
        r" bins=1000 for a state of fixed size\.$"
    )
    with pytest.warns(CapacityWarning, match=expected):
        assert np.isnan(metrics.compute()["auc"])
    assert update(update(collection(auc=AUCROC(bins=6)))).compute()["auc"] == 1.0


def test_the_state_keeps_its_shape_over_steps():
    auc = compiled(AUCROC(capacity=6))
    state = auc.metric.empty()
    for n in (1, 4, 7):
        state = auc.merge(
            state, auc.state_from({"preds": np.zeros(n, np.float32), "label": np.zeros(n, int)})
        )
        assert state.shape == auc.metric.empty().shape


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"bins": 1}, r"^AUCROC with bins=1 in limits=\(0\.0, 1\.0\); expected at least 2 bins"),
        (
            {"bins": 9, "limits": (1.0, 1.0)},
            r"expected at least 2 bins and a lower limit below the upper one",
        ),
        ({"capacity": 0}, r"^AUCROC with capacity=0; expected how many examples to hold, or bins=1000"),
    ],
)
def test_options_that_cannot_be_are_an_error(options, message):
    with pytest.raises(ToolshedError, match=message):
        AUCROC(**options)


def test_scores_by_class_are_an_error():
    with pytest.raises(
        ToolshedError, match=r"^preds is float32\[2,2\] and batch/label is int32\[2\]; expected the same"
    ):
        value_of(AUCROC(), preds=np.ones((2, 2), np.float32), label=[0, 1])
