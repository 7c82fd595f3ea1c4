"""Errors and explained variance against scikit-learn."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn import metrics as sk

from tests.metrics.merging import Arrays, check, for_any_seed, merged, merged_each, random_batches, value_of
from toolshed.errors import ToolshedError
from toolshed.metrics import MAE, MAPE, MSE, R2, RMSE, ExplainedVariance

ERRORS = [
    (MSE, sk.mean_squared_error),
    (RMSE, sk.root_mean_squared_error),
    (MAE, sk.mean_absolute_error),
    (MAPE, sk.mean_absolute_percentage_error),
]
SHARES = [(R2, sk.r2_score), (ExplainedVariance, sk.explained_variance_score)]


def numbers(rng: np.random.Generator, n: int) -> Arrays:
    """Targets around 100, predictions near them."""
    targets = rng.normal(100, 1, n)
    return {
        "preds": (targets + rng.normal(0.1, 0.7, n)).astype(np.float32),
        "y": targets.astype(np.float32),
        "weights": rng.random(n).astype(np.float32),
    }


@pytest.mark.parametrize(("kind", "reference"), ERRORS)
@for_any_seed
def test_errors_of_merged_batches_are_scikit_learn_s(kind, reference, seed):
    batches, whole = random_batches(seed, numbers)
    y, preds, weights = whole["y"], whole["preds"], whole["weights"]
    plain, weighted = merged_each([kind(), kind(weights="batch/weights")], batches, seed)
    check(plain, reference(y, preds) if len(y) else np.nan)
    if len(y):
        check(weighted, reference(y, preds, sample_weight=weights))


@pytest.mark.parametrize(("kind", "reference"), SHARES)
@for_any_seed
def test_shares_of_variance_of_merged_batches_are_scikit_learn_s(kind, reference, seed):
    batches, whole = random_batches(seed, numbers)
    enough = len(whole["y"]) > (1 if kind is R2 else 0)
    check(merged(kind(), batches, seed), reference(whole["y"], whole["preds"]) if enough else np.nan)


@for_any_seed
def test_r2_is_adjusted_for_its_predictors(seed):
    batches, whole = random_batches(seed, numbers)
    n, p = len(whole["y"]), 2
    expected = (
        1 - (1 - sk.r2_score(whole["y"], whole["preds"])) * (n - 1) / (n - p - 1) if n > p + 1 else np.nan
    )
    check(merged(R2(predictors=p), batches, seed), expected)


def test_a_weighted_mean_squared_error_by_hand():
    # Squared errors .25, 1, 4 with weights 1, 2, 1: (.25 + 2 + 4) / 4.
    data = {"preds": [0.5, 1.0, 2.0], "y": [0.0, 0.0, 0.0], "w": [1.0, 2.0, 1.0]}
    assert value_of(MSE(weights="batch/w"), **data) == 1.5625
    assert value_of(MSE(), **data) == 1.75
    assert value_of(MSE(weights="batch/w"), **data, mask=[True, True, False]) == 0.75


@pytest.mark.parametrize(("kind", "reference"), SHARES)
@pytest.mark.parametrize(
    ("preds", "y"),
    [
        ([0.1, 0.1, 0.1], [0.1, 0.1, 0.1]),
        ([0.3, 0.4, 0.3], [0.1, 0.1, 0.1]),
        ([1.0, 2.0, 4.0], [0.0, 1.0, 3.0]),
    ],
)
def test_equal_targets_and_equal_errors_are_as_in_scikit_learn(kind, reference, preds, y):
    expected = reference(np.float32(y).astype(float), np.float32(preds).astype(float))
    assert value_of(kind(), preds=preds, y=y) == pytest.approx(expected, rel=1e-6)


def test_a_single_value_has_no_r2():
    assert np.isnan(value_of(R2(), preds=[1.0], y=[1.0]))
    assert np.isnan(value_of(R2(predictors=1), preds=[1.0, 2.0], y=[1.0, 2.5]))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        assert np.isnan(sk.r2_score([1.0], [1.0]))
    assert "less than two samples" in str(caught[0].message)


@pytest.mark.parametrize("metric", [MSE(), MAE(), R2(), ExplainedVariance()])
def test_shapes_that_numpy_would_broadcast_are_an_error(metric):
    expected = (
        r"^preds is float32\[3,1\] and batch/y is float32\[3\]; expected the same shape\. Nothing is"
        r" broadcast: reshape one where it is made\."
    )
    with pytest.raises(ToolshedError, match=expected):
        value_of(metric, preds=[[1.0], [2.0], [3.0]], y=[1.0, 2.0, 3.0])


def test_a_percentage_of_nothing_is_as_large_as_scikit_learn_s():
    expected = sk.mean_absolute_percentage_error([0.0, 1.0], [1.0, 1.0])
    assert value_of(MAPE(), preds=[1.0, 1.0], y=[0.0, 1.0]) == pytest.approx(expected)


def test_predictors_are_counted_from_zero():
    with pytest.raises(ToolshedError, match=r"^R2 with predictors=-1; expected their number, from 0\.$"):
        R2(predictors=-1)
