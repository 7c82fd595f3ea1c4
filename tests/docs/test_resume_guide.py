"""The examples of the guide to runs on the disk do what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import toolshed
from tests.run.kept import data, trainer

GUIDE = Path(__file__).parents[2] / "docs" / "pages" / "guide" / "resume.md"


def test_the_guide_s_examples_run_from_top_to_bottom(tmp_path: Path, monkeypatch: Any):
    monkeypatch.chdir(tmp_path)
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names: dict[str, Any] = {"toolshed": toolshed, "trainer": trainer(), "train": data()}
    attached: list[Any] = []
    for block in blocks:
        exec(block, names)
        attached += [names["run"]] if "attach(" in block else []
    assert len(blocks) == 4
    for follower in names["run"]._followers:
        follower.finish()
    assert list((tmp_path / "logs").iterdir())
    run = attached[0]
    assert run.progress.step == 2000
    assert names["runs"].names == ["digits"]
    assert run.checkpoints.manifest("good").step == 1000
    assert len(run.history.series("train/loss").steps) == 2000
