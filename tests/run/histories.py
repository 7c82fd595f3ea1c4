"""A history with branches, and its lines as dicts."""

from __future__ import annotations

import numpy as np

from toolshed.run import History, Series

NAME = "train/loss"


def as_dict(series: Series) -> dict[int, float]:
    return dict(zip(series.steps.tolist(), series.values.tolist(), strict=True))


def with_branches() -> History:
    """main to step 6; from 3 "b" to step 5; from b's 4 "c" to step 6; from c's 2, which is main's, "d"."""
    kept = History()
    kept.append(NAME, np.arange(1, 7), np.arange(1, 7))
    kept.switch("main")
    for name, at, steps in (("b", 3, [4, 5]), ("c", 4, [5, 6]), ("d", 2, [3])):
        kept.begin_branch(name, at=at)
        kept.append(NAME, steps, [100 * len(kept.branches) + step for step in steps])
    return kept
