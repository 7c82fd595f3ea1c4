"""The guide's examples run."""

from __future__ import annotations

import contextlib
import io
import json
import re
from pathlib import Path
from typing import Any

import numpy as np

import toolshed

GUIDE = Path(__file__).parents[2] / "docs" / "pages" / "guide" / "data.md"


def test_the_guide_s_examples_run_from_top_to_bottom():
    images, labels = np.zeros((300, 8, 8), np.float32), np.arange(300) % 10
    loader = [[images[:4], labels[:4]]] * 3
    names: dict[str, Any] = {"toolshed": toolshed, "np": np, "json": json}
    names |= {"images": images, "labels": labels, "loader": loader}
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    printed, trains = io.StringIO(), []
    with contextlib.redirect_stdout(printed):
        for block in blocks:
            exec(block, names)
            trains.append(names["train"])
    assert len(blocks) == 5
    assert printed.getvalue() == "10 0\n"
    assert [len(train) for train in trains] == [3, 32, 32, 3, 3]
    assert next(iter(trains[1]))["image"].shape == (32, 8, 8)
    assert next(iter(trains[3]))["label"].shape == (4,)
    assert set(names["examples"]) <= set(range(96 * 50))
