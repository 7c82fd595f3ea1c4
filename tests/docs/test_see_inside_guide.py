"""The examples of the guide to looking inside do what it says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from IPython.core.interactiveshell import InteractiveShell

import toolshed
from tests.docs.test_run_guide import parts
from toolshed.views import View

GUIDE = Path(__file__).parents[2] / "docs" / "pages" / "guide" / "see_inside.md"


def given() -> dict[str, Any]:
    """What the guide takes as given: a run of which one step is done, its state and its Context."""
    names = parts()
    run = toolshed.Run(names["model"], names["optimizer"], names["loss_fn"], names["data"])
    return {**names, "run": run, "context": run.step(), "state": run.state}


@pytest.fixture
def shell() -> Any:
    InteractiveShell.clear_instance()
    yield InteractiveShell.instance()
    toolshed.disable()
    InteractiveShell.clear_instance()


def test_the_guide_s_examples_run_from_top_to_bottom(shell: Any):
    blocks = re.findall(r"```python\n(.*?)```", GUIDE.read_text(), re.DOTALL)
    names, views, figures = given(), 0, 0
    for block in blocks:
        for line in block.splitlines():
            code = line.partition("  #")[0]
            is_value = re.match(r"(toolshed\.(show|compare)|run\.show|figures\.)\b", code)
            value = eval(code, names) if is_value else exec(code, names)
            views += isinstance(value, View) and bool(value.html)
            figures += is_value is not None and hasattr(value, "savefig")
    assert (views, figures) == (9, 4)
    assert "toolshed-tree" in shell.display_formatter.format([names["state"].params])[0]["text/html"]


def test_every_figure_is_in_the_table():
    from toolshed.views import figures

    public = {name for name in vars(figures) if callable(vars(figures)[name])}
    assert public == set(re.findall(r"^\| `(\w+)` \|", GUIDE.read_text(), re.MULTILINE))
