"""The digits are what scikit-learn ships, split without overlap."""

from __future__ import annotations

import functools
import sys

import numpy as np
import pytest

from toolshed.data import Dataset, digits


@functools.cache
def split(**options: float) -> Dataset:
    return digits(**options)


def rows(data: dict[str, np.ndarray]) -> list[bytes]:
    return [
        image.tobytes() + bytes([label]) for image, label in zip(data["image"], data["label"], strict=True)
    ]


def test_the_shapes_types_and_ranges_are_as_said():
    train, test = split()
    assert (len(train["label"]), len(test["label"])) == (1438, 359)  # 1797 · 0.8 = 1437.6
    for data in (train, test):
        assert data["image"].shape[1:] == (8, 8)
        assert data["image"].dtype == np.float32
        assert data["label"].dtype == np.int32
        assert (data["image"].min(), data["image"].max()) == (0.0, 1.0)
        assert sorted(set(data["label"].tolist())) == list(range(10))
        sixteenths = data["image"] * 16
        assert np.array_equal(sixteenths, sixteenths.round())


def test_train_and_test_share_no_example_and_are_all_of_them():
    from sklearn.datasets import load_digits

    images, labels = load_digits(return_X_y=True)
    everything = {"image": (images.reshape(-1, 8, 8) / 16).astype(np.float32), "label": labels}
    train, test = split()
    assert sorted(rows(train) + rows(test)) == sorted(rows(everything))
    # No two of the digits are equal, so a shared example would be seen.
    assert len(set(rows(everything))) == 1797
    assert not set(rows(train)) & set(rows(test))


def test_a_label_belongs_to_its_image():
    """Each digit is nearest to the mean image of its own label, for nine in ten."""
    train, test = split()
    means = np.stack([train["image"][train["label"] == digit].mean(axis=0) for digit in range(10)])
    distances = ((test["image"][:, None] - means) ** 2).sum(axis=(2, 3))
    assert (distances.argmin(axis=1) == test["label"]).mean() > 0.85


def test_the_split_is_that_of_its_seed():
    again, other = digits(), digits(seed=1)
    assert rows(again.train) == rows(split().train)
    assert rows(other.train) != rows(split().train)
    assert sorted(rows(other.train) + rows(other.test)) == sorted(rows(again.train) + rows(again.test))


@pytest.mark.parametrize(("fraction", "count"), [(0.5, 899), (0.1, 180), (0.999, 1795)])
def test_the_fraction_is_that_of_the_test_examples(fraction, count):
    data = digits(test_fraction=fraction)
    assert len(data.test["label"]) == count
    assert len(data.train["label"]) == 1797 - count


@pytest.mark.parametrize("fraction", [0.0, 1.0, -0.5, 20.0, float("nan")])
def test_a_fraction_that_leaves_one_side_empty_is_refused(fraction):
    with pytest.raises(ValueError, match=r"^test_fraction is .*; expected a share between 0 and 1\.$"):
        digits(test_fraction=fraction)


def test_without_scikit_learn_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn.datasets", None)  # what Python takes for: not installed
    with pytest.raises(
        ImportError, match=r"^The digits come with scikit-learn: pip install 'jax-toolshed\[lab\]'\.$"
    ):
        digits()
