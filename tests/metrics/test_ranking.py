"""NDCG, MAP and MRR against scikit-learn and by hand, with ties, masked queries and masked items."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn.metrics import label_ranking_average_precision_score, ndcg_score

from tests.metrics.merging import Arrays, check, for_any_seed, merged_each, random_batches, value_of
from toolshed.errors import ToolshedError
from toolshed.metrics import MAP, MRR, NDCG

ITEMS = 6


def queries(rng: np.random.Generator, n: int) -> Arrays:
    """Scores with ties; each query has at least one relevant item."""
    relevance = rng.integers(0, 4, (n, ITEMS))
    relevance[np.arange(n), rng.integers(0, ITEMS, n)] = 1
    return {"preds": rng.integers(0, 5, (n, ITEMS)).astype(np.float32), "relevance": relevance}


@for_any_seed
def test_rankings_of_merged_batches_are_scikit_learn_s(seed):
    batches, whole = random_batches(seed, queries)
    scores, relevance = whole["preds"], whole["relevance"]
    some = len(scores) > 0
    ndcg, of_three, precision, rank = merged_each([NDCG(), NDCG(k=3), MAP(), MRR()], batches, seed)
    check(ndcg, ndcg_score(relevance, scores) if some else np.nan)
    check(of_three, ndcg_score(relevance, scores, k=3) if some else np.nan)
    check(precision, label_ranking_average_precision_score(relevance > 0, scores) if some else np.nan)
    ranks = [reciprocal(*row) for row in zip(scores, relevance, strict=True)]
    check(rank, np.mean(ranks) if some else np.nan)


def reciprocal(scores: np.ndarray, relevance: np.ndarray) -> float:
    """1 over the number of items that score at least as high as the best relevant one."""
    return 1 / (scores >= scores[relevance > 0].max()).sum()


def test_by_hand():
    # Ranks of the relevant items: 2 and 3. Precisions 1/2 and 2/3.
    data = {"preds": [[0.9, 0.8, 0.7, 0.1]], "relevance": [[0, 1, 1, 0]]}
    assert value_of(MAP(), **data) == pytest.approx((1 / 2 + 2 / 3) / 2)
    assert value_of(MAP(k=2), **data) == pytest.approx((1 / 2) / 2)
    assert value_of(MAP(k=1), **data) == 0
    assert value_of(MRR(), **data) == 0.5
    assert value_of(MRR(k=1), **data) == 0
    discount = 1 / np.log2([2, 3, 4])
    expected = (discount[1] + discount[2]) / (discount[0] + discount[1])
    assert value_of(NDCG(), **data) == pytest.approx(expected)


def test_the_order_of_tied_items_changes_nothing():
    relevance = np.array([[1, 0, 0], [0, 0, 1]])
    for metric in (MRR(), MAP(), NDCG(), NDCG(k=1)):
        first, last = (value_of(metric, preds=np.zeros((1, 3)), relevance=row[None]) for row in relevance)
        assert first == pytest.approx(last)
    assert value_of(MRR(), preds=np.zeros((1, 3)), relevance=relevance[:1]) == pytest.approx(1 / 3)


@pytest.mark.parametrize("metric", [MRR(), MAP(), NDCG(), NDCG(k=2), MRR(k=2), MAP(k=2)])
def test_masked_items_are_in_no_ranking(metric):
    scores, relevance = np.float32([[3, 9, 2, 1], [1, 2, 3, np.nan]]), np.array([[0, 1, 1, 0], [1, 0, 1, 5]])
    mask = np.array([[True, False, True, True], [True, True, True, False]])
    found = value_of(metric, preds=scores, relevance=relevance, mask=mask)
    alone = [
        value_of(metric, preds=row[None][:, keep], relevance=rel[None][:, keep])
        for row, rel, keep in zip(scores, relevance, mask, strict=True)
    ]
    assert found == pytest.approx(np.mean(alone), rel=1e-6)


def test_a_query_without_anything_relevant_is_0_and_one_without_items_is_left_out():
    for metric in (MRR(), MAP(), NDCG()):
        data = {"preds": [[2.0, 1.0], [2.0, 1.0]], "relevance": [[1, 0], [0, 0]]}
        assert value_of(metric, **data) == 0.5
        assert value_of(metric, **data, mask=[True, False]) == 1
        assert value_of(metric, **data, mask=[[1, 1], [0, 0]]) == 1
        assert np.isnan(value_of(metric, **data, mask=[False, False]))


def test_k_counts_from_1_and_shapes_agree():
    with pytest.raises(ToolshedError, match=r"^NDCG with k=0; expected a number of items from 1\."):
        NDCG(k=0)
    with pytest.raises(ToolshedError, match="the same shape"):
        value_of(MAP(), preds=[[1.0, 2.0]], relevance=[1])
    with pytest.raises(ToolshedError, match=r"^preds is float32\[\]; expected scores \[\.\.\., items\]\."):
        value_of(MAP(), preds=1.0, relevance=1)
