"""Handwritten digits: the small real data set that ships with scikit-learn."""

from __future__ import annotations

from typing import NamedTuple

import numpy as np


class Dataset(NamedTuple):
    """Arrays by name, split for training and for testing."""

    train: dict[str, np.ndarray]
    test: dict[str, np.ndarray]


def digits(*, test_fraction: float = 0.2, seed: int = 0) -> Dataset:
    """1,797 handwritten digits of 8 x 8 pixels, shuffled and split.

    Args:
      test_fraction: share of the examples that goes to ``test``.
      seed: of the shuffling before the split.

    Returns:
      ``train`` and ``test``, each with ``image`` float32[n, 8, 8] from 0 (paper) to 1 (ink) and
      ``label`` int32[n] from 0 to 9.

    Raises:
      ImportError: scikit-learn is not installed.
      ValueError: ``test_fraction`` is not between 0 and 1.

    References:
      The test part of "Optical Recognition of Handwritten Digits", E. Alpaydin and C. Kaynak, UCI
      Machine Learning Repository, 1998, as ``sklearn.datasets.load_digits`` gives it.
    """
    if not 0 < test_fraction < 1:
        raise ValueError(f"test_fraction is {test_fraction}; expected a share between 0 and 1.")
    try:
        from sklearn.datasets import load_digits  # heavy, so only where it is used
    except ImportError as error:
        raise ImportError("The digits come with scikit-learn: pip install 'jax-toolshed[lab]'.") from error
    images, labels = load_digits(return_X_y=True)
    image = (np.asarray(images).reshape(-1, 8, 8) / 16).astype(np.float32)
    label = np.asarray(labels, np.int32)
    order = np.random.default_rng(seed).permutation(len(label))
    cut = round(len(label) * (1 - test_fraction))
    train, test = order[:cut], order[cut:]
    return Dataset(
        {"image": image[train], "label": label[train]}, {"image": image[test], "label": label[test]}
    )
