"""R2 stays right where sums of squares would cancel."""

from __future__ import annotations

import numpy as np
import pytest
from sklearn import metrics as sk

from tests.metrics.merging import compiled
from toolshed.metrics import R2


def test_r2_is_right_far_from_zero():
    rng = np.random.default_rng(0)
    y = rng.normal(1e4, 1, 256).astype(np.float32)
    preds = (y + rng.normal(0, 0.5, 256)).astype(np.float32)
    metric, state = compiled(R2()), R2().empty()
    for i in range(0, 256, 64):
        state = metric.merge(state, metric.state_from({"preds": preds[i : i + 64], "y": y[i : i + 64]}))
    assert float(metric.compute(state)) == pytest.approx(
        sk.r2_score(y.astype(float), preds.astype(float)), abs=1e-6
    )
