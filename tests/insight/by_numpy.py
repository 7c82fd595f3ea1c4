"""Statistics of values as numpy has them, in float64, and whether ours are the same."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from toolshed.insight import HISTOGRAM_EDGES, LeafSummary, leaf_statistics

MOMENTS = ("norm", "rms", "mean", "std", "min", "max", "absmax")
COUNTS = ("zeros", "nan", "posinf", "neginf")


def expected(values: np.ndarray) -> dict[str, float]:
    """What numpy finds, in float64."""
    x = np.abs(values) if np.iscomplexobj(values) else np.asarray(values)
    x = x.astype(np.float64).ravel()
    finite = x[np.isfinite(x)]
    counts = {
        "zeros": int((x == 0).sum()),
        "nan": int(np.isnan(x).sum()),
        "posinf": int(np.isposinf(x).sum()),
        "neginf": int(np.isneginf(x).sum()),
    }
    if not len(finite):
        return {**counts, **dict.fromkeys(MOMENTS, math.nan)}
    scale = np.abs(finite).max() or 1.0  # numpy's own squares overflow, too
    unit = finite / scale
    return {
        **counts,
        "norm": np.sqrt((unit**2).sum()) * scale,
        "rms": np.sqrt((unit**2).mean()) * scale,
        "mean": unit.mean() * scale,
        "std": unit.std() * scale,
        "min": finite.min(),
        "max": finite.max(),
        "absmax": np.abs(finite).max(),
    }


def check(summary: LeafSummary, values: np.ndarray) -> None:
    """Equal to numpy within 1e-5: of the value itself, or of the root mean square where terms cancel."""
    right = expected(values)
    for name in COUNTS:
        assert getattr(summary, name) == right[name], name
    for name in MOMENTS:
        scale = right["rms"] if name in ("mean", "std") else abs(right[name])
        np.testing.assert_allclose(
            getattr(summary, name), right[name], rtol=0, atol=1e-5 * np.nan_to_num(scale), err_msg=name
        )
    assert summary.histogram.tolist() == histogram(values).tolist()


def histogram(values: np.ndarray) -> np.ndarray:
    """numpy's counts between the published borders, each bin closed on the side of the smaller numbers."""
    x = np.abs(values) if np.iscomplexobj(values) else np.asarray(values)
    x = x.astype(np.float64).ravel()
    x = x[np.isfinite(x)]
    upper = HISTOGRAM_EDGES[26:]
    positive = np.searchsorted(upper[:-1], x[x > 0], side="right")
    negative = np.searchsorted(upper[:-1], -x[x < 0], side="right")
    counts = np.zeros(49, np.int64)
    np.add.at(counts, 25 + positive, 1)
    np.add.at(counts, 23 - negative, 1)
    counts[24] = (x == 0).sum()
    return counts


def one(values: Any) -> LeafSummary:
    return leaf_statistics({"x": values})["x"]
