"""Confusion matrices against scikit-learn, normalised or not."""

from __future__ import annotations

import warnings

import numpy as np
import pytest
from sklearn.metrics import confusion_matrix

from tests.metrics.merging import check, for_any_seed, merged_each, random_batches, value_of
from tests.metrics.test_classification import CLASSES, scored
from toolshed.errors import ToolshedError
from toolshed.metrics import ConfusionMatrix, collection


@for_any_seed
def test_a_confusion_matrix_of_merged_batches_is_scikit_learn_s(seed):
    batches, whole = random_batches(seed, scored)
    ways = (None, "true", "pred", "all")
    metrics = [ConfusionMatrix(CLASSES, normalize=normalize) for normalize in ways]
    for normalize, value in zip(ways, merged_each(metrics, batches, seed), strict=True):
        if not len(whole["label"]):
            assert value.shape == (CLASSES, CLASSES)
            assert np.isnan(value).all()
            continue
        predicted = whole["preds"].argmax(-1)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")  # scikit-learn remarks on a single class
            expected = confusion_matrix(whole["label"], predicted, labels=range(CLASSES), normalize=normalize)
        check(value, expected)


def test_rows_are_true_and_columns_predicted():
    value = value_of(ConfusionMatrix(2), preds=np.array([1, 1, 0]), label=[0, 1, 0])
    np.testing.assert_array_equal(value, [[1, 1], [0, 1]])
    metrics = collection(matrix=ConfusionMatrix(2))
    assert metrics.compute()["matrix"].shape == (2, 2)
    assert isinstance(metrics.compute()["matrix"], np.ndarray)


def test_a_class_out_of_range_makes_it_all_nan():
    assert np.isnan(value_of(ConfusionMatrix(2), preds=np.array([1, 0]), label=[0, 2])).all()
    assert np.isnan(value_of(ConfusionMatrix(2), preds=np.array([1, 2]), label=[0, 0])).all()
    # Not even where another cell has the number that it would have had: (0, 2) is not (1, 0).
    assert np.isnan(value_of(ConfusionMatrix(2), preds=np.array([2]), label=[0])).all()
    masked = value_of(ConfusionMatrix(2), preds=np.array([1, 2]), label=[0, 0], mask=[True, False])
    np.testing.assert_array_equal(masked, [[0, 1], [0, 0]])


def test_another_normalisation_is_an_error():
    with pytest.raises(
        ToolshedError, match=r"^ConfusionMatrix with normalize='rows'; expected None, 'true', 'pred'"
    ):
        ConfusionMatrix(2, normalize="rows")
